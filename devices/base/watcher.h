// The thread that ends the process when mnemod is gone, and hears signals.
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

// Must be made before any other thread: SIGTERM, SIGINT and SIGHUP are blocked in the calling thread and
// those it starts, and are heard here.
class Watcher {
 public:
  struct Options {
    int lifeline_fd = -1;  // becomes the watcher's; -1 = none
    // Removed when the process is ended here, unless another process listens there; empty ones are not.
    std::vector<std::string> socket_paths;
    std::string private_dir;           // then removed too
    std::function<void()> on_hangup;   // SIGHUP; on the watcher's thread, must not block
    std::function<void()> before_end;  // before the process is ended here; short
  };
  static absl::StatusOr<std::unique_ptr<Watcher>> Create(Options options);
  ~Watcher();

  // Until this is called a signal ends the process at once, since nothing is there to be finished. Tells
  // whoever holds the lifeline that the process listens.
  void SetListening();
  // Returns at SIGTERM or SIGINT. A second signal ends the process at once.
  void WaitForSignal();

 private:
  explicit Watcher(Options options);
  void Loop();
  [[noreturn]] void EndProcess(int code);

  const Options options_;
  UniqueFd lifeline_;
  UniqueFd signals_;
  UniqueFd stop_;  // eventfd
  std::mutex mutex_;
  std::condition_variable changed_;
  bool listening_ = false;
  bool signalled_ = false;
  std::thread thread_;
};

}  // namespace mnemo
