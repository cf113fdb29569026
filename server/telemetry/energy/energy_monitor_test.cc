#include "server/telemetry/energy/energy_monitor.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

namespace mnemo::attribution {
namespace {

using energy::DeviceKind;

constexpr int64_t kMs = 1'000'000;

// A meter whose power the test sets, on a clock that it moves.
class ScriptedSource : public energy::EnergySource {
 public:
  explicit ScriptedSource(const int64_t* now_ns) : now_ns_(now_ns) {}
  void Sample(std::vector<energy::EnergyInterval>* intervals) override {
    if (*now_ns_ == last_ns_) return;
    const double joules = watts * static_cast<double>(*now_ns_ - last_ns_) * 1e-9;
    intervals->push_back({{DeviceKind::kCpu, 0, "rapl"}, last_ns_, *now_ns_, joules});
    intervals->push_back({{DeviceKind::kGpu, 0, "nvml"}, last_ns_, *now_ns_, 2 * joules});
    last_ns_ = *now_ns_;
  }
  std::vector<energy::MeterState> States() const override {
    energy::MeterState state;
    state.device = {DeviceKind::kCpu, 0, "rapl"};
    state.is_up = true;
    return {state};
  }
  double watts = 0;

 private:
  const int64_t* const now_ns_;
  int64_t last_ns_ = 0;
};

}  // namespace

TEST_CASE("the monitor divides what the meters read by the work that is reported") {
  int64_t now = 0, busy = 0, used = 0;
  MonitorOptions options;
  auto source = std::make_unique<ScriptedSource>(&now);
  ScriptedSource* const meter = source.get();
  options.source = std::move(source);
  options.now_ns = [&] { return now; };
  options.busy = [&] { return std::optional(busy); };
  options.process_cpu = [&](pid_t) { return std::optional(used); };
  options.processes = [] { return std::vector<pid_t>{1}; };
  options.ledger.idle_watts = [](const energy::MeteredDevice&) { return 10.0; };
  EnergyMonitor monitor(std::move(options));
  monitor.Sample();
  meter->watts = 50;
  monitor.BeginRequest(1, "first", "dense");
  for (int i = 0; i < 10; ++i) {
    const WorkSpan span = {1, EnergyStep::kDecode, {DeviceKind::kCpu, 0}, now, now + 100 * kMs, 1e6};
    monitor.AddSpans({&span, 1});
    now += 100 * kMs;
    busy += 200 * kMs;
    used += 50 * kMs;
    monitor.Sample();
  }
  CHECK(monitor.Running().size() == 1);
  monitor.EndRequest(1, 10);
  // 40 W above idle, a quarter of it ours, and all of the idle power; the GPU did nothing for it.
  const RequestEnergy energy = monitor.Estimate(1);
  REQUIRE(energy.devices.size() == 2);
  CHECK(energy.request_id == "first");
  CHECK(energy.devices[0].joules() == Approx(20));
  CHECK(energy.devices[1].joules() == Approx(10));
  for (int i = 0; i < 20; ++i) {
    now += 100 * kMs;
    busy += 200 * kMs;
    monitor.Sample();
  }
  const EnergySnapshot snapshot = monitor.Snapshot();
  REQUIRE(snapshot.devices.size() == 2);
  CHECK(snapshot.devices[0].uses.request == Approx(20));
  CHECK(snapshot.devices[0].uses.other == Approx(30 + 80));
  CHECK(snapshot.devices[1].uses.overhead == Approx(90 + 180));  // an accelerator is taken to be ours
  CHECK(snapshot.devices[0].idle_origin == IdleWatts::Origin::kConfigured);
  CHECK(snapshot.meters.size() == 1);
  CHECK(std::accumulate(snapshot.requests.buckets.begin(), snapshot.requests.buckets.end(), uint64_t{0}) ==
        1);
  CHECK(snapshot.requests.sum == Approx(30));
  CHECK(snapshot.output_tokens.sum == Approx(3));
  CHECK(monitor.Running().empty());
}

TEST_CASE("the thread samples until it is stopped") {
  std::atomic<int> samples = 0;
  class Counting : public energy::EnergySource {
   public:
    explicit Counting(std::atomic<int>* count) : count_(count) {}
    void Sample(std::vector<energy::EnergyInterval>*) override { count_->fetch_add(1); }
    std::vector<energy::MeterState> States() const override { return {}; }

   private:
    std::atomic<int>* const count_;
  };
  MonitorOptions options;
  options.source = std::make_unique<Counting>(&samples);
  options.interval = std::chrono::milliseconds(1);
  EnergyMonitor monitor(std::move(options));
  monitor.Start();
  while (samples < 3) std::this_thread::yield();
  monitor.Stop();
  const int stopped = samples;
  CHECK(stopped >= 3);
  CHECK(samples == stopped);
}

}  // namespace mnemo::attribution
