// A thread that ends the process when mnemod is gone, and that receives signals.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo {

// Must be created before any other thread: it blocks SIGTERM, SIGINT and SIGHUP in the calling thread and the
// threads that thread starts, and receives them itself.
class Watcher {
 public:
  struct Options {
    // Ownership passes to the watcher; -1: none.
    int lifeline_fd = -1;
    // Removed when the watcher ends the process, unless another process listens there. Empty paths are
    // ignored.
    std::vector<std::string> socket_paths;
    // Removed after the sockets.
    std::string private_dir;
    // Called on SIGHUP, on the watcher's thread; must not block.
    std::function<void()> on_hangup;
    // Called before the watcher ends the process; must be short.
    std::function<void()> before_end;
  };
  // INVALID_ARGUMENT: lifeline_fd is no open descriptor. INTERNAL: the system refuses a descriptor.
  static absl::StatusOr<std::unique_ptr<Watcher>> Create(Options options);
  ~Watcher();

  // Reports to the holder of the lifeline that the process listens. Until this call a signal ends the process
  // at once, since there is no work to finish.
  void SetListening();
  // Blocks until SIGTERM or SIGINT. A second signal ends the process at once.
  void WaitForSignal();

 private:
  explicit Watcher(Options options);
  void Loop();
  [[noreturn]] void EndProcess(int code);

  const Options options_;
  UniqueFd lifeline_;
  UniqueFd signals_;
  // An eventfd.
  UniqueFd stop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool listening_ = false;
  bool signalled_ = false;
  std::thread thread_;
};

}  // namespace mnemo
