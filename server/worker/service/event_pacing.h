// When events go to the front end. Each message costs it a wake-up and a message to the client, whatever is
// in it, so that the events of fast steps go together.
#pragma once

#include <chrono>
#include <utility>

namespace mnemo::worker_service {

// Not thread-safe.
class EventPacing {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Without an interval nothing waits.
  explicit EventPacing(std::chrono::milliseconds interval = {}) : interval_(interval) {}

  // A message takes all pending events.
  void Taken(Time now) { taken_at_ = now; }
  // After each step of the engine: whether what it added may wait for the next step, which takes about as
  // long.
  bool MayWait(bool is_urgent, Time now) {
    const auto step = now - std::exchange(stepped_at_, now);
    return !is_urgent && interval_.count() > 0 && now + step <= taken_at_ + interval_;
  }

 private:
  std::chrono::milliseconds interval_;
  Time taken_at_;    // by the last message
  Time stepped_at_;  // the last step's end
};

}  // namespace mnemo::worker_service
