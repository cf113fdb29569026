// Accepts connections for whoever serves them, so that a shortage of descriptors or memory passes: gRPC gives
// a listening socket up for good at the first accept that fails.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/undo_at_end.h"
#include "devices/base/unique_fd.h"
#include "server/link/refusal.h"

namespace mnemo::link {

class Acceptor {
 public:
  struct Options {
    std::string address;      // "host:port", port 0 for any; all that the host stands for. Or "unix:/path"
    mode_t unix_mode = 0600;  // of the socket's file
    int max_connections = 0;  // open at once; 0 = no bound
    std::string bound;        // the setting of that, for whom is refused: "server.max_connections"
    int user_timeout_ms = 0;  // TCP_USER_TIMEOUT; 0 = the system's
    // A connection, which does not block; `listener` is the socket that it came to. On the acceptor's thread.
    std::function<void(UniqueFd connection, int listener)> on_connection;
    // A line for the log, once for each time that something is short.
    std::function<void(const std::string& line)> on_trouble;
  };

  // Binds and listens; clients can connect and wait. UNAVAILABLE: the address is taken, or cannot be had.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(Options options);
  ~Acceptor();  // Stop

  // Accepts from now on, on a thread of its own. Once.
  absl::Status Start();
  // No connection comes any more; the addresses are free, and the socket's file is removed. Connections that
  // were handed over go on.
  void Stop();

  const std::string& address() const { return address_; }  // with the port that was taken
  int port() const { return port_; }                       // 0 with a Unix socket
  // Counts those that are open now, by the system's word. Any thread.
  int CountOpen();
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }

 private:
  struct Refused {
    std::unique_ptr<Refusal> refusal;
    std::chrono::steady_clock::time_point end;
  };

  Acceptor(Options options, UniqueFd stop);
  absl::Status Bind();
  void Loop();
  // False: something is short.
  bool AcceptAll(int listener);
  void Take(UniqueFd connection, int listener);
  bool HasRoom();
  void Refuse(UniqueFd connection);
  void StepRefused(const std::vector<int>& readable);
  void Forget();  // open_mutex_ held: connections that were closed

  const Options options_;
  const UniqueFd stop_;  // eventfd
  std::vector<UniqueFd> listeners_;
  std::string address_;
  int port_ = 0;
  std::string path_;  // of the socket's file
  ino_t path_inode_ = 0;
  UndoAtEnd undo_;
  std::thread thread_;

  // Descriptors that were handed over, with the number that the system gave the socket: whoever has them
  // closes them without a word.
  std::mutex open_mutex_;
  std::unordered_map<int, ino_t> open_;
  std::chrono::steady_clock::time_point forget_time_;

  std::atomic<uint64_t> refused_{0};
  std::vector<Refused> refusing_;  // the acceptor's thread
  bool is_short_ = false;
  bool is_refusing_ = false;
};

}  // namespace mnemo::link
