#include "devices/energy/counter_meter.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mnemo::energy {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kFirstPauseNs = kSecondNs;
constexpr int64_t kLongestPauseNs = 60 * kSecondNs;
constexpr int64_t kLongestGapNs = 60 * kSecondNs;
constexpr int64_t kStandstillNs = kSecondNs;  // with busy CPUs
constexpr double kBusySeconds = 0.5;
constexpr int64_t kAcceleratorStandstillNs = 10 * kSecondNs;
// Counters are brought up to date in steps; the energy of so much earlier time may be in one.
constexpr double kStepSeconds = 1;

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

}  // namespace

CounterMeter::CounterMeter(std::unique_ptr<Counter> counter, CounterMeterOptions options)
    : counter_(std::move(counter)), options_(std::move(options)) {
  report_.device = counter_->info().device;
}

void CounterMeter::Drop(DropReason reason, int64_t now_ns, const std::string& why) {
  ++report_.dropped[static_cast<int>(reason)];
  report_.is_up = false;
  has_start_ = false;
  pause_ns_ = is_waiting_ ? std::min(2 * pause_ns_, kLongestPauseNs) : kFirstPauseNs;
  is_waiting_ = true;
  next_probe_ns_ = now_ns + pause_ns_;
  if (std::exchange(was_logged_, true)) return;
  options_.log(fmt::format("energy meter {} ({}) is down, {}: {}", report_.device.Label(),
                           report_.device.source, Name(reason), why));
}

// Only the time before `point` is lost: the next interval begins with it.
void CounterMeter::DropBefore(const Point& point, DropReason reason, const std::string& why) {
  Drop(reason, point.at_ns, why);
  start_ = point;
  has_start_ = true;
}

void CounterMeter::Sample(const Round& round, std::vector<EnergyInterval>* intervals) {
  if (is_unsupported_ || (is_waiting_ && !has_start_ && round.now_ns < next_probe_ns_)) return;
  const int64_t before_ns = options_.now_ns();
  const absl::StatusOr<RawReading> reading = counter_->Read();
  // The counter was read in between.
  const int64_t now_ns = before_ns + (options_.now_ns() - before_ns) / 2;
  if (!reading.ok()) {
    is_unsupported_ = absl::IsUnimplemented(reading.status());
    return Drop(DropReason::kError, now_ns, std::string(reading.status().message()));
  }
  const Point point = {now_ns, reading->count, reading->watts, round.cpu.busy_seconds};
  const bool is_first = !has_start_;
  const int64_t silence_ns = now_ns - std::exchange(last_read_ns_, now_ns);
  if (counter_->info().is_power &&
      !(std::isfinite(point.watts) && point.watts >= 0 && point.watts <= counter_->info().max_watts)) {
    return Drop(DropReason::kError, now_ns, fmt::format("a power of {} W", point.watts));
  }
  if (is_first) {
    // A counter that stood still is not trusted until it has moved.
    if (is_suspect_ && point.count == start_.count && point.watts == start_.watts) {
      return Drop(DropReason::kStuck, now_ns, "it has not moved");
    }
    is_suspect_ = false;
    start_ = point;
    has_start_ = true;
    return;
  }
  if (now_ns <= start_.at_ns) return;
  const CounterInfo& info = counter_->info();
  const double unambiguous_seconds =
      info.range == 0 ? INFINITY : static_cast<double>(info.range) * info.joules_per_count / info.max_watts;
  const int64_t longest_ns = info.is_power ? std::max(kSecondNs, 10 * options_.interval_ns) : kLongestGapNs;
  if (silence_ns > longest_ns || (!info.is_power && Seconds(silence_ns) >= unambiguous_seconds)) {
    return DropBefore(point, DropReason::kGap, fmt::format("not read for {:.1f} s", Seconds(silence_ns)));
  }
  if (info.is_power) {
    SamplePower(point, intervals);
  } else {
    SampleCount(point, intervals);
  }
}

void CounterMeter::SampleCount(const Point& point, std::vector<EnergyInterval>* intervals) {
  const CounterInfo& info = counter_->info();
  if (point.count == start_.count) {
    if (!IsStuck(point)) return;
    is_suspect_ = true;
    return Drop(DropReason::kStuck, point.at_ns,
                fmt::format("the count stood still for {:.1f} s", Seconds(point.at_ns - start_.at_ns)));
  }
  const double most_joules = info.max_watts * (Seconds(point.at_ns - start_.at_ns) + kStepSeconds);
  if (info.range > 0 && point.count > info.range) {
    return Drop(DropReason::kError, point.at_ns, "the count is above its own range");
  }
  const bool is_back = point.count < start_.count;
  if (is_back && (info.range == 0 || start_.count > info.range)) {
    return DropBefore(point, DropReason::kBackwards, "the count went back");
  }
  // The largest count is followed by 0.
  const uint64_t counts = is_back ? info.range - start_.count + point.count + 1 : point.count - start_.count;
  const double joules = static_cast<double>(counts) * info.joules_per_count;
  if (joules > most_joules) {
    return DropBefore(point, is_back ? DropReason::kBackwards : DropReason::kGap,
                      fmt::format("{:.0f} J in {:.3f} s", joules, Seconds(point.at_ns - start_.at_ns)));
  }
  Add(point, joules, intervals);
}

void CounterMeter::SamplePower(const Point& point, std::vector<EnergyInterval>* intervals) {
  if (point.watts == 0 && start_.watts == 0) {
    if (!IsStuck(point)) return;
    is_suspect_ = true;
    return Drop(DropReason::kStuck, point.at_ns, "a power of zero");
  }
  // The trapezoid between two samples.
  Add(point, 0.5 * (start_.watts + point.watts) * Seconds(point.at_ns - start_.at_ns), intervals);
}

bool CounterMeter::IsStuck(const Point& point) const {
  const int64_t standstill_ns = point.at_ns - start_.at_ns;
  const DeviceKind kind = report_.device.kind;
  if (kind == DeviceKind::kGpu || kind == DeviceKind::kFpga) return standstill_ns >= kAcceleratorStandstillNs;
  return standstill_ns >= kStandstillNs && point.busy_seconds - start_.busy_seconds >= kBusySeconds;
}

void CounterMeter::Add(const Point& point, double joules, std::vector<EnergyInterval>* intervals) {
  intervals->push_back({report_.device, start_.at_ns, point.at_ns, joules});
  start_ = point;
  report_.is_up = true;
  is_waiting_ = false;
  if (!std::exchange(was_logged_, false)) return;
  options_.log(
      fmt::format("energy meter {} ({}) is up again", report_.device.Label(), report_.device.source));
}

void CounterMeter::AppendReports(std::vector<MeterReport>* reports) const { reports->push_back(report_); }

}  // namespace mnemo::energy
