// One connection that carries frames both ways. Nothing here polls: a thread of the caller's blocks in Read,
// and a write is one system call by whoever has something to say. That matters: while a model computes on all
// cores, every wake-up and every line of code that a token touches is cold.
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
  // `socket` blocks. `written` is told of the end of writes that were left pending, good or not, on a thread
  // of the connection; it may call Write.
  Connection(UniqueFd socket, std::function<void()> written);
  // Breaks the connection. Not from within `written`.
  ~Connection();

  // Blocks for the next message, which becomes the content of `message`. One thread. UNAVAILABLE: the peer
  // has closed, or died; INVALID_ARGUMENT: what came is no frame or no such message; DEADLINE_EXCEEDED:
  // nothing came within the bound of SetReadTimeout.
  absl::Status Read(google::protobuf::MessageLite* message);
  // For the reads that come; 0 = none.
  void SetReadTimeout(int milliseconds);

  // Never blocks. True: written, or the connection is broken, which Read tells. False: the peer is slow; the
  // rest is written on another thread, `written` follows, and until then `frames` stays and nobody calls
  // Write.
  bool Write(std::string_view frames);

  // Both sides see the end; what was written before still arrives. Any thread, any number of times.
  void Break();

 private:
  bool SendWhatFits(std::string_view* frames);
  bool StartWriter();  // false: there is no thread for it now
  void WriterLoop();

  const UniqueFd socket_;
  const std::function<void()> written_;
  FrameReader reader_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string_view rest_;  // what the writer is to write
  bool stopped_ = false;
  std::thread writer_;  // begun by the first write that is left pending
};

}  // namespace mnemo::link
