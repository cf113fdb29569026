// A reset of the whole card by XRT, which may not return.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "devices/base/status.h"

namespace mnemo::xrt_card {

// One card's resets, one at a time. A reset that takes too long is left to a thread of its own, the only one.
class HotReset {
 public:
  explicit HotReset(std::chrono::milliseconds patience = std::chrono::seconds(20));

  // `reset` may throw, and owns what it uses. UNAVAILABLE: it threw. DEADLINE_EXCEEDED: it has not returned,
  // or one before it has not; then `reset` is not called.
  absl::Status Run(const std::string& device, std::function<void()> reset);

 private:
  struct State;
  const std::chrono::milliseconds patience_;
  const std::shared_ptr<State> state_;
};

}  // namespace mnemo::xrt_card
