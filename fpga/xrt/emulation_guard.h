// Guard of a process that uses XRT's software emulation.
//
// XRT takes the handlers of SIGSEGV, SIGFPE, SIGABRT, SIGUSR1 and SIGCHLD, and kills the whole process group
// when its device process dies; without that handler its calls would wait forever. Here the handlers stay the
// program's, but SIGPIPE is ignored where it would kill. A program whose device process has died ends by
// itself at once, with exit code 1 and a line on standard error. Its supervisor starts it again.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <array>
#include <thread>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::xrt_card {

class EmulationGuard {
 public:
  // Before XRT starts its device process. This process leaves its group until Watch.
  EmulationGuard();
  // After XRT has closed the device. This process is in its group again.
  ~EmulationGuard();
  EmulationGuard(const EmulationGuard&) = delete;
  EmulationGuard& operator=(const EmulationGuard&) = delete;

  // When it has started. INTERNAL: it is not found.
  absl::Status Watch();
  // Before XRT closes the device: the device process may end. XRT waits for it as a process of this group, so
  // this process leaves its own again.
  void Close();
  // 0 before Watch.
  pid_t device_process() const { return pid_; }

 private:
  void Restore();

  static constexpr std::array kSignals = {SIGSEGV, SIGFPE, SIGABRT, SIGUSR1, SIGCHLD};
  std::array<struct sigaction, kSignals.size()> handlers_{};
  struct sigaction pipe_handler_ {};  // of SIGPIPE
  pid_t group_;
  pid_t pid_ = 0;
  UniqueFd process_;
  UniqueFd stop_;
  std::thread watcher_;
};

}  // namespace mnemo::xrt_card
