// Interrupts of a card as a file descriptor: XRT offers a call that waits for them, and none that poll(2)
// takes.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::xrt_card {

// Calls of XRT for one line. They may throw, and are made by one thread.
struct InterruptLine {
  std::function<bool(std::chrono::milliseconds)> raised;  // waits at most so long; whether it is up
  std::function<void()> take;  // clears the card's status, then lets XRT tell of the next interrupt
};

// A thread that waits for interrupts.
class InterruptWatch {
 public:
  static absl::StatusOr<std::unique_ptr<InterruptWatch>> Start(InterruptLine line);
  // Waits until the call of XRT that is under way returns.
  ~InterruptWatch();

  // Whether an interrupt came since the last call, or comes within `most`. UNAVAILABLE: XRT failed; it stays
  // so.
  absl::StatusOr<bool> Wait(std::chrono::milliseconds most);
  // Readable while Wait has an answer at once.
  int fd() const { return event_.get(); }

 private:
  InterruptWatch(InterruptLine line, UniqueFd event);
  void Run();
  void Tell();

  const InterruptLine line_;
  const UniqueFd event_;
  std::atomic<bool> stops_ = false;
  std::mutex mutex_;
  absl::Status failure_;  // under mutex_
  std::thread thread_;
};

}  // namespace mnemo::xrt_card
