#include "server/telemetry/energy/energy_monitor.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "devices/energy/make_energy_source.h"

namespace mnemo::attribution {
namespace {

using energy::DeviceKind;

constexpr int64_t kMs = 1'000'000;

// A meter whose power the test sets.
class ScriptedSource : public energy::EnergySource {
 public:
  void Sample(const energy::Round& round, std::vector<energy::EnergyInterval>* intervals) override {
    if (round.now_ns == last_ns_) return;
    const double joules = watts * static_cast<double>(round.now_ns - last_ns_) * 1e-9;
    intervals->push_back({{DeviceKind::kCpu, 0, "rapl"}, last_ns_, round.now_ns, joules});
    intervals->push_back({{DeviceKind::kGpu, 0, "nvml"}, last_ns_, round.now_ns, 2 * joules});
    last_ns_ = round.now_ns;
  }
  std::vector<energy::MeterState> States() const override {
    energy::MeterState state;
    state.device = {DeviceKind::kCpu, 0, "rapl"};
    state.is_up = true;
    return {state};
  }
  double watts = 0;

 private:
  int64_t last_ns_ = 0;
};

}  // namespace

TEST_CASE("the monitor divides what the meters read by the work that is reported") {
  int64_t now = 0, used = 0;
  energy::CpuTimes cpu;
  MonitorOptions options;
  auto source = std::make_unique<ScriptedSource>();
  ScriptedSource* const meter = source.get();
  options.source = std::move(source);
  options.now_ns = [&] { return now; };
  options.cpu_times = [&] { return cpu; };
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
    cpu.busy_seconds += 0.2;
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
    cpu.busy_seconds += 0.2;
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

TEST_CASE("stolen time is busy time neither for the share nor for the model") {
  // Two CPUs, 200 ms each in an interval: 100 ms busy, half of it ours, 100 ms idle and 200 ms stolen.
  int64_t now = 0, used = 0, interval = 0;
  config::Config::Energy energy;
  energy.sources = {};
  energy.model = {"cpu0 idle=10 busy=50"};
  MonitorOptions options;
  absl::StatusOr<std::unique_ptr<energy::EnergySource>> source =
      energy::MakeEnergySource(energy, {.now_ns = [&] { return now; }});
  REQUIRE(source.ok());
  options.source = *std::move(source);
  options.now_ns = [&] { return now; };
  options.cpu_times = [&] {
    const int64_t ticks = 10 * interval;
    return energy::ParseCpuTimes(fmt::format("cpu  {} 0 0 {} 0 0 0 {}", 1 + ticks, ticks, 2 * ticks), 100);
  };
  options.process_cpu = [&](pid_t) { return std::optional(used); };
  options.processes = [] { return std::vector<pid_t>{1}; };
  options.ledger.idle_watts = [](const energy::MeteredDevice&) { return 10.0; };
  EnergyMonitor monitor(std::move(options));
  for (; interval <= 10; ++interval, now += 200 * kMs, used += 50 * kMs) monitor.Sample();
  const EnergySnapshot snapshot = monitor.Snapshot();
  REQUIRE(snapshot.devices.size() == 1);
  const Uses& uses = snapshot.devices[0].uses;
  CHECK(uses.idle == Approx(2 * 10));
  CHECK(uses.overhead == Approx(2 * 40 * 0.25 * 0.5));
  CHECK(uses.other == Approx(2 * 40 * 0.25 * 0.5));
}

TEST_CASE("the thread samples until it is stopped") {
  std::atomic<int> samples = 0;
  class Counting : public energy::EnergySource {
   public:
    explicit Counting(std::atomic<int>* count) : count_(count) {}
    void Sample(const energy::Round&, std::vector<energy::EnergyInterval>*) override { count_->fetch_add(1); }
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
