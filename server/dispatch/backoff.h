// When a child that has ended is started again.
#pragma once

#include <algorithm>
#include <chrono>

namespace mnemo::dispatch {

class Backoff {
 public:
  using milliseconds = std::chrono::milliseconds;

  // A life has ended that was ready for `ready_for` (0 = it never was). Returns the pause before the next
  // one: `first`, and twice the last one up to `longest` after a life that was not started in earnest.
  milliseconds Next(std::chrono::nanoseconds ready_for, milliseconds first, milliseconds longest) {
    if (ready_for >= std::max(kStableTime, 2 * last_)) next_ = milliseconds(0);
    last_ = std::max(next_, first);
    next_ = std::min(2 * last_, longest);
    return last_;
  }
  milliseconds last() const { return last_; }

 private:
  // Ready for so long, and for longer than it was waited for: started in earnest.
  static constexpr milliseconds kStableTime{1000};

  milliseconds last_{0};
  milliseconds next_{0};
};

}  // namespace mnemo::dispatch
