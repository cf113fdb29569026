// One connection that carries frames both ways. Nothing here polls: a thread of the caller blocks in Read,
// and a write is one system call by the sending thread. That matters because a model computes on all cores.
// Every wake-up and every line of code that a token touches then runs with cold caches.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "server/link/frame.h"

namespace mnemo::link {

class Connection {
 public:
  // `socket` is in blocking mode. `written` is called when a pending write ends, successfully or not, on a
  // thread of the connection. It may call Write.
  Connection(UniqueFd socket, std::function<void()> written);
  // Breaks the connection. Must not be called from within `written`.
  ~Connection();

  // Blocks until the next message and parses it into `message`. One reading thread only. UNAVAILABLE: the
  // peer has closed or died. INVALID_ARGUMENT: the bytes are no frame or no such message. DEADLINE_EXCEEDED:
  // nothing arrived within the limit of SetReadTimeout.
  absl::Status Read(google::protobuf::MessageLite* message);
  // Sets the timeout of later reads; 0: none.
  void SetReadTimeout(int milliseconds);

  // Never blocks. Returns true when all is written or the connection is broken, which Read reports. Returns
  // false when the peer is slow: another thread writes the rest and then calls `written`. Until then `frames`
  // must stay valid and Write must not be called.
  bool Write(std::string_view frames);

  // Ends the connection at both sides; earlier writes still arrive. Any thread, any number of times.
  void Break();

 private:
  bool SendWhatFits(std::string_view* frames);
  // Returns false when no thread can be started now.
  bool StartWriter();
  void WriterLoop();

  const UniqueFd socket_;
  const std::function<void()> written_;
  FrameReader reader_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Data left for the writer.
  std::string_view rest_;
  bool stopped_ = false;
  // Started by the first write that is left pending.
  std::thread writer_;
};

}  // namespace mnemo::link
