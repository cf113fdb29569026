#include "fpga/xrt/hot_reset.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace mnemo::xrt_card {

struct HotReset::State {
  std::mutex mutex;
  std::condition_variable ended;
  bool running = false;
  std::string error;  // of the last one; empty: it succeeded
};

HotReset::HotReset(std::chrono::milliseconds patience)
    : patience_(patience), state_(std::make_shared<State>()) {}

absl::Status HotReset::Run(const std::string& device, std::function<void()> reset) {
  std::unique_lock lock(state_->mutex);
  const auto late = [&] {
    return absl::DeadlineExceededError(fmt::format(
        "reset of device {}: XRT has not returned within {} ms; `xbutil reset` may tell more, a cold boot "
        "always helps, and then the service must be started anew",
        device, patience_.count()));
  };
  const auto ends = [&] { return state_->ended.wait_for(lock, patience_, [&] { return !state_->running; }); };
  if (state_->running && !ends()) return late();
  state_->running = true;
  state_->error.clear();
  const auto run = [state = state_, reset = std::move(reset)]() mutable {
    std::string error;
    try {
      reset();
    } catch (const std::exception& thrown) {
      error = thrown.what();
      if (error.empty()) error = "no reason is told";
    }
    reset = nullptr;  // what it owns goes before its end is told
    const std::lock_guard done(state->mutex);
    state->error = std::move(error);
    state->running = false;
    state->ended.notify_all();
  };
  try {
    std::thread(run).detach();
  } catch (const std::system_error& error) {
    state_->running = false;
    return absl::ResourceExhaustedError(
        fmt::format("reset of device {}: a thread for it: {}", device, error.what()));
  }
  if (!ends()) return late();
  if (state_->error.empty()) return absl::OkStatus();
  return absl::UnavailableError(fmt::format(
      "reset of device {}: {}; `xbutil reset` may tell more, no other program may use the card, a "
      "cold boot always helps",
      device, state_->error));
}

}  // namespace mnemo::xrt_card
