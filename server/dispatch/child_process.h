// A child with a lifeline: a socket whose closing end tells it that we are gone.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "server/dispatch/program.h"

namespace mnemo::dispatch {

// Where the child finds what it inherits.
inline constexpr int kChildWeightsFd = 3;
inline constexpr int kChildLifelineFd = 4;
inline constexpr int kChildConfigFd = 5;   // its configuration, config/child_config.h
inline constexpr int kChildProgramFd = 6;  // its own file, when it was started through a descriptor

// Move-only. Destroying it closes the lifeline, and neither kills nor reaps. UndoAtEnd::UndoAll
// (devices/base) ends all children that are alive: it closes their lifelines, and kills what is left after
// kUndoTime.
class ChildProcess {
 public:
  static constexpr std::chrono::milliseconds kUndoTime{80};

  // Starts `program` with `arguments` (the first is argv[1]) and an end of a new lifeline, in a process group
  // of its own so that Ctrl-C reaches us alone. `weights_fd` and `config_fd` stay the caller's; -1 = none.
  // Safe with threads. NOT_FOUND or PERMISSION_DENIED when the program cannot be started.
  static absl::StatusOr<ChildProcess> Spawn(const Program& program, const std::vector<std::string>& arguments,
                                            int weights_fd, int config_fd = -1);

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }        // readable once it has ended
  int lifeline() const { return lifeline_.get(); }  // readable once it listens, and when it has ended
  // True: it has told that it listens. Reads the lifeline without blocking.
  bool ReadListening();
  void Signal(int number);
  // How long its threads of now have waited for a core, summed; 0 where the system does not tell.
  std::chrono::nanoseconds CoreWait() const;
  // Reaps it if it has ended: "exit code 1", "signal 9".
  std::optional<std::string> Reap();

 private:
  // Has the child in the list of those that UndoAll ends, as long as it lives.
  class Listed {
   public:
    Listed() = default;
    Listed(pid_t pid, int lifeline);
    Listed(Listed&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    Listed& operator=(Listed&& other) noexcept {
      std::swap(pid_, other.pid_);
      return *this;
    }
    ~Listed();

   private:
    pid_t pid_ = -1;
  };

  ChildProcess() = default;
  pid_t pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd lifeline_;
  Listed listed_;  // last: it names the lifeline
};

}  // namespace mnemo::dispatch
