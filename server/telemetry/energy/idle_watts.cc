#include "server/telemetry/energy/idle_watts.h"

#include <algorithm>

namespace mnemo::attribution {

void IdleWatts::Observe(int64_t begin_ns, int64_t end_ns, double joules) {
  constexpr int64_t kSecondNs = 1'000'000'000;
  if (configured_.has_value()) return;
  if (begin_ns != end_ns_) {
    begin_ns_ = begin_ns;
    joules_ = 0;
  }
  end_ns_ = end_ns;
  joules_ += joules;
  if (end_ns_ - begin_ns_ < kSecondNs) return;
  const double watts = joules_ / (static_cast<double>(end_ns_ - begin_ns_) * 1e-9);
  begin_ns_ = end_ns_;
  joules_ = 0;
  if (seconds_.size() < kMost) {
    seconds_.push_back(watts);
  } else {
    seconds_[next_] = watts;
    next_ = (next_ + 1) % kMost;
  }
  if (seconds_.size() < kFewest) return;
  std::vector<double> sorted = seconds_;
  const auto at = sorted.begin() + static_cast<ptrdiff_t>((sorted.size() - 1) / 20);
  std::nth_element(sorted.begin(), at, sorted.end());
  measured_ = *at;
}

}  // namespace mnemo::attribution
