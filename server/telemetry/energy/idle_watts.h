// Power of a device without work: configured, or measured while no request is in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mnemo::attribution {

// Not thread-safe.
class IdleWatts {
 public:
  enum class Origin { kConfigured, kMeasured };

  // `configured`: watts, >= 0; none: measured.
  explicit IdleWatts(std::optional<double> configured) : configured_(configured) {}

  // An interval during which no request was in flight. Intervals add up to seconds while each begins where
  // the one before it ended.
  void Observe(int64_t begin_ns, int64_t end_ns, double joules);
  // The configured watts, or the 5th percentile of the seconds without work; 0 before there are kFewest of
  // them.
  double watts() const { return configured_.value_or(measured_); }
  Origin origin() const { return configured_.has_value() ? Origin::kConfigured : Origin::kMeasured; }
  // Neither configured nor measured yet: 0 stands for an unknown value.
  bool unknown() const { return !configured_.has_value() && seconds_.size() < kFewest; }

  static constexpr size_t kFewest = 3;

 private:
  static constexpr size_t kMost = 600;

  const std::optional<double> configured_;
  double measured_ = 0;
  int64_t begin_ns_ = 0;  // the second in hand
  int64_t end_ns_ = 0;
  double joules_ = 0;
  std::vector<double> seconds_;  // watts; a ring once it has kMost
  size_t next_ = 0;
};

}  // namespace mnemo::attribution
