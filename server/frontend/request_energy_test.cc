#include "server/frontend/request_energy.h"

#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <tuple>

namespace mnemo::frontend {
namespace {

using attribution::EnergyStep;
using attribution::StepIndex;
using energy::DeviceKind;

v1::MemoryStep* AddStep(v1::Final* final, v1::MemoryStep::Step step, const std::string& device, int time_ms) {
  v1::MemoryStep* out = final->add_memory_steps();
  out->set_step(step);
  out->set_device(device);
  out->mutable_time()->set_nanos(time_ms * 1'000'000);
  return out;
}

attribution::RequestEnergy Energy() {
  attribution::RequestEnergy energy;
  energy.devices.push_back({{DeviceKind::kCpu, 0, "rapl"}, {}});
  energy.devices.push_back({{DeviceKind::kFpga, 0, "xrt"}, {}});
  energy.devices[0].steps[StepIndex(EnergyStep::kDecode)] = 5;
  energy.devices[0].steps[StepIndex(EnergyStep::kRelevancy)] = 4;
  energy.devices[0].steps[StepIndex(EnergyStep::kApply)] = 2;
  energy.devices[1].steps[StepIndex(EnergyStep::kRelevancy)] = 3;
  return energy;
}

}  // namespace

TEST_CASE("names of devices tell which meter covers their work") {
  const auto [name, kind, index] =
      GENERATE(table<std::string, DeviceKind, int>({{"cpu0", DeviceKind::kCpu, 0},
                                                    {"reference0", DeviceKind::kCpu, 0},
                                                    {"memory1:cpu", DeviceKind::kCpu, 0},
                                                    {"memory1:rtl", DeviceKind::kCpu, 0},
                                                    {"cuda1", DeviceKind::kGpu, 1},
                                                    {"memory2:hip", DeviceKind::kGpu, 0},
                                                    {"memory2:xrt3", DeviceKind::kFpga, 3},
                                                    {"", DeviceKind::kCpu, 0}}));
  CHECK(ToWorkDevice(name).kind == kind);
  CHECK(ToWorkDevice(name).index == index);
}

TEST_CASE("joules of a step go to the entries of its devices by their times") {
  v1::Final final;
  AddStep(&final, v1::MemoryStep::STEP_RELEVANCY, "cpu0", 30);
  AddStep(&final, v1::MemoryStep::STEP_RELEVANCY, "memory0:cpu", 10);
  AddStep(&final, v1::MemoryStep::STEP_RELEVANCY, "memory1:xrt", 5);
  AddStep(&final, v1::MemoryStep::STEP_APPLY, "cpu0", 0);
  AddStep(&final, v1::MemoryStep::STEP_PREPARE, "cpu0", 7);
  FillEnergy(Energy(), &final);
  CHECK(final.energy().joules() == Approx(14));
  REQUIRE(final.energy().devices_size() == 2);
  CHECK(final.energy().devices(0).device() == "cpu0");
  CHECK(final.energy().devices(0).source() == "rapl");
  CHECK(final.energy().devices(0).joules() == Approx(11));
  CHECK(final.energy().devices(1).joules() == Approx(3));
  CHECK(final.memory_steps(0).joules() == Approx(3));
  CHECK(final.memory_steps(1).joules() == Approx(1));
  CHECK(final.memory_steps(2).joules() == Approx(3));
  CHECK(final.memory_steps(3).joules() == Approx(2));
  CHECK(final.memory_steps(4).joules() == 0);
}

TEST_CASE("without a reading there is no energy") {
  v1::Final final;
  AddStep(&final, v1::MemoryStep::STEP_RELEVANCY, "cpu0", 30);
  FillEnergy({}, &final);
  CHECK_FALSE(final.has_energy());
  CHECK(final.memory_steps(0).joules() == 0);
}

TEST_CASE("the observer hands requests and spans to the monitor") {
  class Meter : public energy::EnergySource {
   public:
    void Sample(const energy::Round&, std::vector<energy::EnergyInterval>* intervals) override {
      if (!was_read) intervals->push_back({{DeviceKind::kCpu, 0, "rapl"}, 0, 1'000'000'000, 30});
      was_read = true;
    }
    std::vector<energy::MeterState> States() const override { return {}; }
    bool was_read = false;
  };
  int64_t now = 0;
  attribution::MonitorOptions options;
  options.source = std::make_unique<Meter>();
  options.now_ns = [&] { return now; };
  options.cpu_times = [] { return Unavailable("none"); };
  attribution::EnergyMonitor monitor(std::move(options));
  EnergyObserver observer(&monitor);
  internal::v1::Submit dense, sparse;
  dense.set_request_id("a");
  sparse.set_request_id("b");
  sparse.mutable_attention()->set_method(v1::ATTENTION_METHOD_TOKEN_TOPK);
  observer.OnRequestBegin(1, dense);
  observer.OnRequestBegin(2, sparse);
  google::protobuf::RepeatedPtrField<internal::v1::Span> spans;
  for (const auto& [id, step, work, device] : {std::tuple(1, 2, 10, ""), std::tuple(2, 4, 20, "memory0:cpu"),
                                               std::tuple(2, 7, 100, ""), std::tuple(2, 0, 100, "")}) {
    internal::v1::Span* span = spans.Add();
    span->set_id(static_cast<uint64_t>(id));
    span->set_step(step);
    span->set_device(device);
    span->set_length_ns(1'000'000'000);
    span->set_work_ns(work);
  }
  observer.OnSpans("cpu0", spans);
  now = 1'000'000'000;
  monitor.Sample();
  CHECK(monitor.Estimate(1).joules() == Approx(10));
  CHECK(monitor.Estimate(2).joules() == Approx(20));
  observer.OnRequestEnd(1, 1);
  CHECK(monitor.Running().size() == 1);
  const attribution::EnergySnapshot snapshot = monitor.Snapshot();
  REQUIRE(snapshot.steps.size() == 2);
  CHECK(snapshot.steps[0].method == "dense");
  CHECK(snapshot.steps[1].method == "token_topk");
  CHECK(snapshot.steps[1].steps[StepIndex(EnergyStep::kRelevancy)] == Approx(20));
}

}  // namespace mnemo::frontend
