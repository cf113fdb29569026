// A meter over one counter: sums over wraps and drops readings that cannot be trusted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/energy/counter.h"
#include "devices/energy/meter.h"

namespace mnemo::energy {

struct CounterMeterOptions {
  int64_t interval_ns = 100'000'000;            // expected between two calls of Sample
  std::function<int64_t()> now_ns;              // CLOCK_MONOTONIC
  std::function<void(const std::string&)> log;  // a line for the operator
};

// Rules, in this order:
// - error: the counter cannot be read, or gives no number.
// - gap: so much time since the last reading that wraps cannot be counted (range / max_watts), or more than a
//   minute. For power: more than ten intervals, or a second if that is more.
// - backwards: a smaller count than before without a range, or one that no wrap explains at max_watts.
// - gap: a larger count than max_watts explains.
// - stuck: the same count, or a power of zero, for a second in which the CPUs were busy for half a second, or
//   for ten seconds on an accelerator. A device that is on draws power.
// A reading that repeats the count makes no interval; the next one spans both, since counters of GPUs move in
// steps of 10 ms and more. A dropped reading takes the meter down; it is up again with its next interval.
// After a gap or a step back that interval begins at once. After an error or a standstill the counter is
// probed after one second, two, and so on up to a minute.
class CounterMeter : public Meter {
 public:
  CounterMeter(std::unique_ptr<Counter> counter, CounterMeterOptions options);
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override;
  void AppendReports(std::vector<MeterReport>* reports) const override;

 private:
  struct Point {
    int64_t at_ns = 0;
    uint64_t count = 0;
    double watts = 0;
    double busy_seconds = 0;
  };
  void Drop(DropReason reason, int64_t now_ns, const std::string& why);
  void DropBefore(const Point& point, DropReason reason, const std::string& why);
  void SampleCount(const Point& point, std::vector<EnergyInterval>* intervals);
  void SamplePower(const Point& point, std::vector<EnergyInterval>* intervals);
  bool IsStuck(const Point& point) const;
  void Add(const Point& point, double joules, std::vector<EnergyInterval>* intervals);

  const std::unique_ptr<Counter> counter_;
  const CounterMeterOptions options_;
  MeterReport report_;
  bool has_start_ = false;
  // Begin of the next interval: the last reading at which the count moved.
  Point start_;
  int64_t last_read_ns_ = 0;
  // While it is down.
  bool is_waiting_ = false;
  int64_t next_probe_ns_ = 0;
  int64_t pause_ns_ = 0;
  bool was_logged_ = false;  // the present failure
  bool is_unsupported_ = false;
  bool is_suspect_ = false;  // it stood still: the next reading has to move
};

}  // namespace mnemo::energy
