// Accepts connections on behalf of their server and survives a shortage of descriptors or memory. gRPC's own
// listener gives up a listening socket for good at the first accept that fails.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/undo_at_end.h"
#include "devices/base/unique_fd.h"
#include "server/link/refusal.h"

namespace mnemo::link {

// Start and Stop are called by one thread.
class Acceptor {
 public:
  struct Options {
    // "host:port", with port 0 for any, stands for all addresses of the host. Or "unix:/path".
    std::string address;
    // Mode of the socket's file.
    mode_t unix_mode = 0600;
    // Leaves the file of a Unix socket at the end, for the process that gets the socket next.
    bool leaves_file = false;
    // Limit on open connections; 0: no limit.
    int max_connections = 0;
    // Name of that setting for refused clients: "server.max_connections".
    std::string bound;
    // TCP_USER_TIMEOUT; 0: the system's value.
    int user_timeout_ms = 0;
    // Receives a non-blocking connection; `listener` is the socket on which it arrived. Called on the
    // acceptor's thread.
    std::function<void(UniqueFd connection, int listener)> on_connection;
    // Receives one log line for each occurrence of a shortage.
    std::function<void(const std::string& line)> on_trouble;
  };

  // Listening sockets that were there before.
  struct Inherited {
    // Those that outlive this process, as of a socket unit. All of them serve, whether `address` names them
    // or not, and their files stay.
    std::vector<UniqueFd> passed;
    // Those that an earlier process left. The ones at `address` are used again, the others are closed.
    std::vector<UniqueFd> kept;
  };

  // Binds and listens; clients can connect and wait. UNAVAILABLE: the address is taken or cannot be used.
  // INVALID_ARGUMENT: a passed descriptor is no listening stream socket.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(Options options, Inherited inherited = {});
  // Calls Stop.
  ~Acceptor();

  // Starts to accept, on a separate thread. Call once.
  absl::Status Start();
  // Ends accepting: the addresses are free and the socket's file is removed. Connections that were handed
  // over stay open.
  void Stop();
  // Ends what is sent on all open connections, after the data that their owners have written: clients see
  // the connection closed, and no call on it is answered any more. After Stop.
  void EndConnections();

  // Includes the port in use.
  const std::string& address() const { return address_; }
  // 0 with a Unix socket.
  int port() const { return port_; }
  // The listening sockets that were not passed. Valid until Stop.
  std::vector<int> own_listeners() const;
  // Counts the connections that are open now, by asking the system. Any thread.
  int CountOpen();
  // Turns of the accepting thread so far; asks it for another one, soon. Any thread, between Start and Stop.
  uint64_t AskForTurn();
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }

 private:
  struct Refused {
    std::unique_ptr<Refusal> refusal;
    std::chrono::steady_clock::time_point end;
  };

  Acceptor(Options options, UniqueFd wake);
  absl::Status Bind(Inherited given);
  absl::Status BindAddress(std::vector<UniqueFd>* inherited);
  void Loop();
  void Wake();
  // Returns false when a resource is short.
  bool AcceptAll(int listener);
  void Take(UniqueFd connection, int listener);
  bool HasRoom();
  void Refuse(UniqueFd connection);
  void StepRefused(const std::vector<int>& readable);
  // Removes closed connections; open_mutex_ must be held.
  void Forget();

  const Options options_;
  // An eventfd.
  const UniqueFd wake_;
  std::atomic<bool> is_stopping_ = false;
  std::atomic<uint64_t> turns_ = 0;
  std::vector<UniqueFd> listeners_;
  std::set<int> passed_;  // those of listeners_ that were passed
  std::string address_;
  int port_ = 0;
  // Path of the socket's file.
  std::string path_;
  ino_t path_inode_ = 0;
  UndoAtEnd undo_;
  std::thread thread_;

  // Descriptors that were handed over, with the socket's inode number. Their owners close them without
  // notice.
  std::mutex open_mutex_;
  std::unordered_map<int, ino_t> open_;
  std::chrono::steady_clock::time_point forget_time_;

  std::atomic<uint64_t> refused_{0};
  // Used only by the acceptor's thread.
  std::vector<Refused> refusing_;
  bool is_short_ = false;
  bool is_refusing_ = false;
};

}  // namespace mnemo::link
