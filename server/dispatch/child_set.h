// Child processes by number, and the wait for what becomes of them. All but Wake are called on one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "devices/base/unique_fd.h"
#include "server/dispatch/child_process.h"

namespace mnemo::dispatch {

class ChildSet {
 public:
  struct Listener {
    // The child takes connections.
    std::function<void(int child, uint64_t life)> listening;
    // It has ended and is reaped; `how`: "exit code 1", "signal 9".
    std::function<void(int child, uint64_t life, const std::string& how)> exited;
  };

  static absl::StatusOr<ChildSet> Create();

  // As ChildProcess::Spawn; returns the process id. There is no child of that number.
  absl::StatusOr<int> Spawn(int child, uint64_t life, const Program& program,
                            const std::vector<std::string>& arguments, int weights_fd, int config_fd = -1);
  // Nothing happens when the child of that life has ended.
  void Signal(int child, uint64_t life, int number);
  void SignalAll(int number);
  // As ChildProcess::CoreWait; 0 when the child of that life has ended.
  std::chrono::nanoseconds CoreWait(int child, uint64_t life) const;
  // Waits for children, Wake or the time, whichever is first, and tells `listener` of children.
  void Poll(std::chrono::steady_clock::time_point until, const Listener& listener);
  // Ends a Poll, the present or the next one. Any thread; may be called under a lock.
  void Wake();

 private:
  struct Child {
    uint64_t life = 0;
    bool listening = false;
    ChildProcess process;
  };
  explicit ChildSet(UniqueFd wake) : wake_(std::move(wake)) {}

  UniqueFd wake_;  // eventfd
  std::map<int, Child> children_;
};

}  // namespace mnemo::dispatch
