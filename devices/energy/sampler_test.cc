#include "devices/energy/sampler.h"

#include <catch2/catch.hpp>

#include "devices/energy/testing/energy_fixture.h"

namespace mnemo::energy {
namespace {

using namespace testing;  // NOLINT: the tools of these tests

using Catch::Matchers::Contains;

// A meter whose next interval is `watts` times the time since the last one; down while `is_up` is false.
class SteadyMeter : public Meter {
 public:
  SteadyMeter(MeteredDevice device, double watts, bool* is_up)
      : device_(std::move(device)), watts_(watts), is_up_(is_up) {}
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override {
    if (*is_up_ && last_ns_ > 0) {
      intervals->push_back(
          {device_, last_ns_, round.now_ns, watts_ * 1e-9 * static_cast<double>(round.now_ns - last_ns_)});
    }
    last_ns_ = *is_up_ ? round.now_ns : 0;
  }
  void AppendReports(std::vector<MeterReport>* reports) const override {
    reports->push_back({device_, *is_up_, {}});
  }

 private:
  const MeteredDevice device_;
  const double watts_;
  bool* const is_up_;
  int64_t last_ns_ = 0;
};

struct TwoSources {
  TwoSources(double first, double second) {
    std::vector<std::unique_ptr<Meter>> meters;
    meters.push_back(
        std::make_unique<SteadyMeter>(MeteredDevice{DeviceKind::kCpu, 0, "perf"}, second, &perf_up));
    meters.push_back(
        std::make_unique<SteadyMeter>(MeteredDevice{DeviceKind::kCpu, 0, "rapl"}, first, &rapl_up));
    sampler = std::make_unique<Sampler>(std::move(meters), SamplerOptions{.log = world.Log()});
  }
  void Run(int rounds) {
    for (int i = 0; i < rounds; ++i) {
      world.Pass(kTestIntervalNs);
      sampler->Sample(world.Present(), &intervals);
    }
  }
  TestWorld world;
  bool rapl_up = true, perf_up = true;
  std::vector<EnergyInterval> intervals;
  std::unique_ptr<Sampler> sampler;
};

TEST_CASE("of two sources of one device the preferred one counts, and the other stands in for it") {
  TwoSources two(20, 22);
  two.Run(11);
  CHECK(Joules(two.intervals) == Approx(20));
  CHECK(StateOf(*two.sampler, "cpu0", "rapl").joules_total == Approx(20));
  CHECK(StateOf(*two.sampler, "cpu0", "rapl").watts == Approx(20));
  CHECK(StateOf(*two.sampler, "cpu0", "perf").joules_total == 0);
  CHECK(StateOf(*two.sampler, "cpu0", "perf").watts == Approx(22));
  two.rapl_up = false;
  two.Run(10);
  CHECK(StateOf(*two.sampler, "cpu0", "rapl").watts == 0);
  CHECK(StateOf(*two.sampler, "cpu0", "perf").joules_total == Approx(22));
  two.rapl_up = true;
  two.Run(11);
  // No time counts twice: intervals of the device join or leave gaps.
  int64_t until_ns = 0;
  double joules = 0;
  for (const EnergyInterval& interval : two.intervals) {
    CHECK(interval.begin_ns >= until_ns);
    until_ns = interval.end_ns;
    joules += interval.joules;
  }
  CHECK(joules == Approx(StateOf(*two.sampler, "cpu0", "rapl").joules_total +
                         StateOf(*two.sampler, "cpu0", "perf").joules_total));
}

TEST_CASE("two sources that differ by more than 30 % over ten seconds are reported once") {
  TwoSources near(100, 75);
  near.Run(300);
  CHECK(near.world.log.empty());
  TwoSources far(100, 65);
  far.Run(85);
  CHECK(far.world.log.empty());
  far.Run(300);
  REQUIRE(far.world.log.size() == 1);
  CHECK_THAT(far.world.log[0],
             Contains("cpu0 differ: rapl says 100.0 W, perf says 65.0 W over 10 s; rapl counts"));
  TwoSources dead(100, 0);
  dead.Run(200);
  CHECK(dead.world.log.size() == 1);
}

TEST_CASE("devices of different kinds and numbers add up apart") {
  TestWorld world;
  bool up = true;
  std::vector<std::unique_ptr<Meter>> meters;
  for (int i = 0; i < 5; ++i) {
    meters.push_back(
        std::make_unique<SteadyMeter>(MeteredDevice{DeviceKind::kCpu, i, "rapl"}, 10.0 * (i + 1), &up));
    meters.push_back(
        std::make_unique<SteadyMeter>(MeteredDevice{DeviceKind::kDram, i, "rapl"}, 1.0 * (i + 1), &up));
  }
  Sampler sampler(std::move(meters), {.log = world.Log()});
  std::vector<EnergyInterval> intervals;
  for (int i = 0; i <= 20; ++i) {
    world.Pass(kTestIntervalNs);
    sampler.Sample(world.Present(), &intervals);
  }
  for (int i = 0; i < 5; ++i) {
    CHECK(Joules(intervals, "cpu" + std::to_string(i)) == Approx(20.0 * (i + 1)));
    CHECK(Joules(intervals, "dram" + std::to_string(i)) == Approx(2.0 * (i + 1)));
  }
  CHECK(sampler.States().size() == 10);
}

}  // namespace
}  // namespace mnemo::energy
