#include "devices/energy/counter_meter.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "devices/energy/model_meter.h"
#include "devices/energy/testing/energy_fixture.h"

namespace mnemo::energy {
namespace {

using namespace testing;  // NOLINT: the tools of these tests

using Catch::Matchers::Contains;

struct Script {
  CounterInfo info;
  absl::StatusOr<RawReading> next = RawReading{};
};

class ScriptedCounter : public Counter {
 public:
  explicit ScriptedCounter(Script* script) : script_(script) {}
  const CounterInfo& info() const override { return script_->info; }
  absl::StatusOr<RawReading> Read() override { return script_->next; }

 private:
  Script* const script_;
};

// One meter, and a count in millijoules.
class Bench {
 public:
  explicit Bench(DeviceKind kind = DeviceKind::kCpu, uint64_t range = 0, bool is_power = false) {
    script.info = {.device = {kind, 0, "rapl"},
                   .is_power = is_power,
                   .joules_per_count = 1e-3,
                   .range = range,
                   .max_watts = 100};
    meter.emplace(std::make_unique<ScriptedCounter>(&script),
                  CounterMeterOptions{.now_ns = world.Now(), .log = world.Log()});
  }
  // Intervals of one reading after a pause.
  std::vector<EnergyInterval> Read(absl::StatusOr<RawReading> reading, int64_t pause_ns = kTestIntervalNs,
                                   double use = 0) {
    world.Pass(pause_ns, use);
    script.next = std::move(reading);
    std::vector<EnergyInterval> intervals;
    meter->Sample({world.now_ns, world.cpu}, &intervals);
    return intervals;
  }
  std::vector<EnergyInterval> ReadCount(uint64_t count, int64_t pause_ns = kTestIntervalNs, double use = 0) {
    return Read(RawReading{.count = count}, pause_ns, use);
  }
  std::vector<EnergyInterval> ReadWatts(double watts, int64_t pause_ns = kTestIntervalNs, double use = 0) {
    return Read(RawReading{.watts = watts}, pause_ns, use);
  }
  MeterReport Report() const {
    std::vector<MeterReport> reports;
    meter->AppendReports(&reports);
    return reports.at(0);
  }
  uint64_t Dropped(DropReason reason) const { return Report().dropped[static_cast<int>(reason)]; }

  TestWorld world;
  Script script;
  std::optional<CounterMeter> meter;
};

TEST_CASE("intervals join without a gap and carry the joules between two readings") {
  Bench bench;
  CHECK(bench.ReadCount(5000).empty());
  CHECK_FALSE(bench.Report().is_up);
  const std::vector<EnergyInterval> first = bench.ReadCount(7000);
  REQUIRE(first.size() == 1);
  CHECK(first[0].joules == Approx(2.0));
  CHECK(first[0].end_ns - first[0].begin_ns == kTestIntervalNs);
  CHECK(bench.Report().is_up);
  const std::vector<EnergyInterval> second = bench.ReadCount(7500);
  REQUIRE(second.size() == 1);
  CHECK(second[0].begin_ns == first[0].end_ns);
  CHECK(second[0].joules == Approx(0.5));
}

TEST_CASE("a count that moves in steps makes intervals that span the repeats") {
  Bench bench(DeviceKind::kGpu);
  bench.ReadCount(0);
  double joules = 0;
  int64_t length_ns = 0;
  // A step of 100 ms under readings every 30 ms.
  for (int i = 1; i <= 1000; ++i) {
    const auto steps = static_cast<uint64_t>(i * 30 / 100);
    for (const EnergyInterval& interval : bench.ReadCount(steps * 5000, 30'000'000)) {
      joules += interval.joules;
      length_ns += interval.end_ns - interval.begin_ns;
      CHECK(interval.joules > 0);
    }
  }
  CHECK(joules == Approx(300 * 5.0));
  CHECK(length_ns == 1000 * int64_t{30'000'000});
  CHECK(bench.Report().is_up);
}

TEST_CASE("sums over wraps equal the energy of a 64-bit counter, for random ranges and powers") {
  const unsigned seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    const uint64_t range = std::uniform_int_distribution<uint64_t>(20'000, 1'000'000)(random);
    Bench bench(DeviceKind::kCpu, range);
    uint64_t truth = std::uniform_int_distribution<uint64_t>(0, range)(random);
    const uint64_t begin = truth;
    bench.ReadCount(truth);
    double joules = 0;
    for (int i = 0; i < 200; ++i) {
      truth += std::uniform_int_distribution<uint64_t>(1, 10'000)(random);
      joules += Joules(bench.ReadCount(truth % (range + 1)));
    }
    CHECK(joules == Approx(static_cast<double>(truth - begin) * 1e-3));
    for (const DropReason reason : {DropReason::kBackwards, DropReason::kGap, DropReason::kError}) {
      CHECK(bench.Dropped(reason) == 0);
    }
  }
}

TEST_CASE("a step back without a range is dropped, and the next interval begins there") {
  Bench bench;
  bench.ReadCount(50'000);
  bench.ReadCount(51'000);
  CHECK(bench.ReadCount(10).empty());
  CHECK(bench.Dropped(DropReason::kBackwards) == 1);
  CHECK_FALSE(bench.Report().is_up);
  CHECK(Joules(bench.ReadCount(1010)) == Approx(1.0));
  CHECK(bench.Report().is_up);
  REQUIRE(bench.world.log.size() == 2);
  CHECK_THAT(bench.world.log[0], Contains("cpu0 (rapl) is down, backwards"));
  CHECK_THAT(bench.world.log[1], Contains("up again"));
}

TEST_CASE("a reset to zero is no wrap where the wrap would be too much energy") {
  Bench bench(DeviceKind::kCpu, 1'000'000);
  bench.ReadCount(100'000);
  bench.ReadCount(101'000);
  CHECK(bench.ReadCount(0).empty());
  CHECK(bench.Dropped(DropReason::kBackwards) == 1);
}

TEST_CASE("a leap that no power explains, and a late reading, are gaps") {
  Bench bench(DeviceKind::kCpu, 1'000'000);
  bench.ReadCount(1000);
  bench.ReadCount(2000);
  CHECK(bench.ReadCount(900'000).empty());
  CHECK(bench.Dropped(DropReason::kGap) == 1);
  CHECK_FALSE(bench.ReadCount(901'000).empty());
  // At 100 W the range of 1,000 J may wrap within 10 s.
  CHECK_FALSE(bench.ReadCount(902'000, 9 * kTestSecondNs).empty());
  CHECK(bench.ReadCount(903'000, 11 * kTestSecondNs).empty());
  CHECK(bench.Dropped(DropReason::kGap) == 2);
  // Without a range only a minute is too long.
  Bench wide;
  wide.ReadCount(1000);
  CHECK_FALSE(wide.ReadCount(2000, 59 * kTestSecondNs).empty());
  CHECK(wide.ReadCount(3000, 61 * kTestSecondNs).empty());
  CHECK(wide.Dropped(DropReason::kGap) == 1);
}

TEST_CASE("a count above its range is an error") {
  Bench bench(DeviceKind::kCpu, 100'000);
  bench.ReadCount(99'500);
  CHECK(bench.ReadCount(100'001).empty());
  CHECK(bench.Dropped(DropReason::kError) == 1);
}

TEST_CASE("a counter that stands still is stuck only while the CPUs are busy") {
  Bench bench;
  bench.ReadCount(0);
  for (int i = 0; i < 100; ++i) bench.ReadCount(0, kTestIntervalNs, 0.01);
  CHECK(bench.Dropped(DropReason::kStuck) == 0);
  for (int i = 0; i < 20; ++i) bench.ReadCount(0, kTestIntervalNs, 1.0);
  CHECK(bench.Dropped(DropReason::kStuck) >= 1);
  CHECK_FALSE(bench.Report().is_up);
  // Probes come ever more seldom, at most a minute apart, and each one is dropped.
  const uint64_t before = bench.Dropped(DropReason::kStuck);
  for (int i = 0; i < 6000; ++i) bench.ReadCount(0, kTestIntervalNs, 1.0);
  const uint64_t probes = bench.Dropped(DropReason::kStuck) - before;
  CHECK(probes >= 600 / 61);
  CHECK(probes <= 20);
  CHECK(bench.world.log.size() == 1);
  // It comes back when it moves.
  double joules = 0;
  for (uint64_t i = 1; i <= 700; ++i) joules += Joules(bench.ReadCount(i * 1000, kTestIntervalNs, 1.0));
  CHECK(bench.Report().is_up);
  CHECK(joules > 0);
}

TEST_CASE("an accelerator's counter that stands still for ten seconds is stuck") {
  Bench bench(DeviceKind::kGpu);
  bench.ReadCount(77);
  for (int i = 0; i < 99; ++i) bench.ReadCount(77);
  CHECK(bench.Dropped(DropReason::kStuck) == 0);
  bench.ReadCount(77);
  CHECK(bench.Dropped(DropReason::kStuck) == 1);
}

TEST_CASE("errors take the meter down, and it is probed with growing pauses") {
  Bench bench;
  bench.ReadCount(0);
  bench.ReadCount(1000);
  const absl::Status lost = Unavailable("GPU is lost");
  CHECK(bench.Read(lost).empty());
  CHECK_FALSE(bench.Report().is_up);
  for (int i = 0; i < 3000; ++i) bench.Read(lost);
  // 1 + 2 + 4 + ... + 60 s in 300 s.
  CHECK(bench.Dropped(DropReason::kError) >= 6);
  CHECK(bench.Dropped(DropReason::kError) <= 12);
  CHECK(bench.world.log.size() == 1);
  bench.ReadCount(500'000, 61 * kTestSecondNs);
  // The energy of the time without readings is not made up.
  CHECK(Joules(bench.ReadCount(501'000)) == Approx(1.0));
  CHECK(bench.Report().is_up);
}

TEST_CASE("a counter that the device does not have is asked once") {
  Bench bench;
  bench.Read(Unimplemented("no"));
  for (int i = 0; i < 5000; ++i) bench.Read(Unimplemented("no"));
  CHECK(bench.Dropped(DropReason::kError) == 1);
  CHECK(bench.world.log.size() == 1);
}

TEST_CASE("power is integrated by trapezoids, and a late sample is a gap") {
  Bench bench(DeviceKind::kFpga, 0, true);
  bench.ReadWatts(10);
  // A ramp of 10 to 50 W in 4 s, which trapezoids integrate exactly.
  double joules = 0;
  for (int i = 1; i <= 40; ++i) joules += Joules(bench.ReadWatts(10 + i), "fpga0");
  CHECK(joules == Approx(4 * 30.0));
  CHECK(bench.ReadWatts(50, 2 * kTestSecondNs).empty());
  CHECK(bench.Dropped(DropReason::kGap) == 1);
  CHECK(Joules(bench.ReadWatts(50), "fpga0") == Approx(5.0));
  for (const double bad :
       {-1.0, 101.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    Bench other(DeviceKind::kFpga, 0, true);
    other.ReadWatts(10);
    CHECK(other.ReadWatts(bad).empty());
    CHECK(other.Dropped(DropReason::kError) == 1);
  }
}

TEST_CASE("a power of zero for ten seconds is stuck") {
  Bench bench(DeviceKind::kFpga, 0, true);
  for (int i = 0; i <= 100; ++i) bench.ReadWatts(0);
  CHECK(bench.Dropped(DropReason::kStuck) == 1);
}

TEST_CASE("the model lies between its figures by the use of the CPUs") {
  TestWorld world;
  ModelMeter meter({DeviceKind::kCpu, 0, ""}, 10, 50);
  std::vector<EnergyInterval> intervals;
  const auto sample = [&] {
    intervals.clear();
    meter.Sample({world.now_ns, world.cpu}, &intervals);
    return Joules(intervals);
  };
  CHECK(sample() == 0);
  world.Pass(kTestSecondNs, 0);
  CHECK(sample() == Approx(10));
  world.Pass(kTestSecondNs, 1);
  CHECK(sample() == Approx(50));
  world.Pass(2 * kTestSecondNs, 0.25);
  CHECK(sample() == Approx(2 * 20));
  REQUIRE(intervals.size() == 1);
  CHECK(intervals[0].device.source == "model");
  world.now_ns += 1;  // no tick has passed
  CHECK(sample() == 0);
  world.Pass(kTestSecondNs, 1);
  CHECK(sample() == Approx(50));
  world.cpu = {};
  CHECK(sample() == 0);
  std::vector<MeterReport> reports;
  meter.AppendReports(&reports);
  CHECK(reports[0].dropped[static_cast<int>(DropReason::kError)] == 1);
  CHECK_FALSE(reports[0].is_up);
}

}  // namespace
}  // namespace mnemo::energy
