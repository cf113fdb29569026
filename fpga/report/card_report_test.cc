#include <catch2/catch.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "fpga/card/model/testing_card.h"
#include "fpga/card/model/timing.h"
#include "fpga/report/device_run.h"
#include "fpga/report/estimate.h"
#include "fpga/report/linear_reader.h"
#include "fpga/report/whole_run.h"
#include "fpga/report/workload.h"
#include "proto/layout/card.h"
#include "proto/layout/record.h"

namespace mnemo::card::report {
namespace {

constexpr model::Shape kSmall{.channels = 2};

// Runs the workload on the functional model; `cycles`: what it counted from doorbell to completion.
layout::Completion RunModel(const Workload& workload, uint64_t* cycles) {
  std::mt19937 random(7);
  model::ModelOptions options;
  options.shape = kSmall;
  options.channel_bytes = 64 << 20;
  model::TestCard card(options,
                       {.format = workload.format,
                        .dim = workload.dim,
                        .heads = workload.heads,
                        .tokens = (workload.tokens + 63) / 64 * 64},
                       random);
  card.SetRegister(layout::kCardRegPeriod, 1024);
  layout::Descriptor d = card.NewDescriptor();
  const layout::Descriptor wanted = DescriptorOf(workload);
  d.format = wanted.format;
  d.score_op = wanted.score_op;
  d.group_op = wanted.group_op;
  d.select_op = wanted.select_op;
  d.group = wanted.group;
  d.begin = 0;
  d.end = wanted.end;
  d.k = wanted.k;
  card.SetLengths(&d);
  for (uint32_t head = 0; head < workload.heads; ++head) {
    model::FillQueries(d.group, workload.dim, d.format, random,
                       card.Payload() + head * layout::QueryBlockBytes(d.group, workload.dim));
  }
  // The second one counts: the card knows its index then.
  REQUIRE(card.Run(d).status == layout::kStatusOk);
  d.seq = card.NewDescriptor().seq;
  const uint64_t before = card.port().simulated_cycles();
  const layout::Completion completion = card.Run(d);
  // The card is idle when the ring's head counts the completion.
  *cycles = card.port().simulated_cycles() - before - model::HeadTime(1024);
  return completion;
}

TEST_CASE("the estimate is what the functional model counts") {
  for (const uint8_t format :
       {layout::kFormatCodes2, layout::kFormatCodes4, layout::kFormatCodes8, layout::kFormatBounds}) {
    for (const uint32_t dim : {64U, 128U}) {
      for (const uint32_t heads : {1U, 3U}) {
        const Workload workload{"", Measure::kDescriptor, 2992, heads, dim, 4, 64, format, false, 0, ""};
        CAPTURE(+format, dim, heads);
        uint64_t cycles = 0;
        const layout::Completion completion = RunModel(workload, &cycles);
        REQUIRE(completion.status == layout::kStatusOk);
        const Estimate estimate = EstimateOf(workload, kSmall, 250);
        CHECK(estimate.bytes == completion.bytes_read);
        // Hits lie together or apart, where the estimate has what random ones take the collector.
        CHECK(estimate.us == Approx(static_cast<double>(cycles) / 250).margin(heads * 64 / 4.0 / 250));
        const double load_ns = static_cast<double>(model::LoadTime(1024, true)) * 4;
        if (heads == 1) CHECK(estimate.scan_us * 1000 + load_ns == Approx(completion.score_ns).margin(1));
      }
    }
  }
}

TEST_CASE("a faster clock does not slow a card") {
  for (const Workload& workload : Workloads()) {
    CAPTURE(std::string(workload.name));
    const Estimate slow = EstimateOf(workload, {.channels = 32}, 250);
    const Estimate fast = EstimateOf(workload, {.channels = 32}, 300);
    CHECK(fast.us <= slow.us + 0.01);
    CHECK(slow.reader_share > 0);
    CHECK(slow.reader_share <= 1);
    // The scan stays below the channels' peak.
    CHECK(static_cast<double>(slow.bytes) / workload.heads / slow.scan_us <= 32 * 14375.0);
  }
}

TEST_CASE("scans of one pass keep the card's bounds by the estimate") {
  for (const Workload& workload : Workloads()) {
    CAPTURE(std::string(workload.name));
    if (workload.measure != Measure::kScan || workload.group > 4) continue;
    CHECK(EstimateOf(workload, {.channels = 32}, 250).us <= workload.bound_us);
    CHECK(EstimateOf(workload, {.channels = 16}, 250).us > workload.bound_us);
  }
}

TEST_CASE("a device of the build runs a workload") {
  auto run = DeviceRun::Make({.kind = "cpu", .max_tokens = 8192});
  REQUIRE(run.ok());
  const Workload small{"", Measure::kDescriptor, 4160, 2, 64, 4, 100, layout::kFormatCodes2, false, 0, ""};
  // Twice: the index is freed in between.
  for (int n = 0; n < 2; ++n) {
    const auto times = (*run)->Run(small, 2);
    REQUIRE(times.ok());
    CHECK(times->bytes > 0);
    CHECK(times->score_us + times->select_us <= times->wall_us);
  }
  // Times of threads side by side are elapsed ones, too, but for rounding.
  auto threads = DeviceRun::Make({.kind = "cpu", .threads = 4, .max_tokens = 8192});
  REQUIRE(threads.ok());
  const auto shared = (*threads)->Run(small, 2);
  REQUIRE(shared.ok());
  CHECK(shared->score_us > 0);
  CHECK(shared->select_us >= 0);
  CHECK(shared->score_us + shared->select_us <= shared->wall_us * 1.000001);
  Workload sign = small;
  sign.sign_stage = true;
  const auto signs = (*run)->Run(sign, 1);
  REQUIRE(signs.ok());
  CHECK((*run)->Ids().size() == 1);
  Workload relu = small;
  relu.relu = true;
  relu.group = 16;
  REQUIRE((*run)->Run(relu, 1).ok());
  CHECK((*run)->Ids().size() == small.k);
  Workload wide = small;
  wide.group = 200;
  CHECK(absl::IsUnimplemented((*run)->Run(wide, 1).status()));
}

TEST_CASE("scores have the order that the workload names") {
  constexpr uint32_t kTokens = 4160;
  for (const char* kind : {"cpu", "card-model"}) {
    auto run = DeviceRun::Make({.kind = kind, .max_tokens = 8192});
    REQUIRE(run.ok());
    const auto ids_of = [&](Order order) {
      const Workload workload{"",   Measure::kDescriptor,  kTokens, 2, 128, 4,
                              128,  layout::kFormatCodes2, false,   0, "",  false,
                              order};
      const auto times = (*run)->Run(workload, 1);
      REQUIRE(times.ok());
      // A head alone is scanned where times are simulated, and its results are not those that count.
      CHECK((times->head_us > 0) == (*run)->device().simulated_time());
      const std::vector<uint32_t> ids = (*run)->Ids();
      REQUIRE(ids.size() == workload.k);
      return ids;
    };
    CHECK(ids_of(Order::kRising).front() >= kTokens - 512);
    CHECK(ids_of(Order::kFalling).back() < 512);
    CHECK(ids_of(Order::kEqual).back() == 127);
    const std::vector<uint32_t> spike = ids_of(Order::kSpike);
    CHECK(spike.back() == SpikeOf(kTokens));
    CHECK(spike[126] == 126);
  }
}

TEST_CASE("selections add little to a long descriptor, whatever the order, by the estimate") {
  uint32_t bounded = 0;
  for (const Workload& workload : Workloads()) {
    CAPTURE(std::string(workload.name));
    if (SelectionBound(workload) == 0) continue;
    ++bounded;
    const Estimate estimate = EstimateOf(workload, {.channels = 32}, 250);
    CHECK(estimate.us > workload.heads * estimate.scan_us);
    CHECK(estimate.us <= workload.heads * estimate.scan_us * (1 + SelectionBound(workload)));
  }
  CHECK(bounded == 5);
}

TEST_CASE("a pass of twice as many queries halves a weighted ReLU") {
  for (const Workload& workload : Workloads()) {
    if (!workload.relu) continue;
    CAPTURE(std::string(workload.name));
    const Estimate four = EstimateOf(workload, {.channels = 32, .queries = 4}, 250);
    const Estimate eight = EstimateOf(workload, {.channels = 32, .queries = 8}, 250);
    CHECK(four.us <= workload.bound_us);
    CHECK(four.us == Approx(2 * eight.us));
  }
}

// Time of a descriptor by the card's own figures: from its first job to its last result.
double TimeOf(DeviceRun* run, const Workload& workload) {
  const auto times = run->Run(workload, 1);
  REQUIRE(times.ok());
  return times->score_us + times->select_us;
}

TEST_CASE("the model's time of a descriptor is within 10 % of the simulated card's") {
  auto rtl = DeviceRun::Make({.kind = "rtl", .max_tokens = 8192, .max_group = 64});
  if (!rtl.ok()) return;  // a build without the simulated card
  auto model = DeviceRun::Make(
      {.kind = "card-model", .max_tokens = 8192, .max_group = 64, .device_options = {{"channels", "2"}}});
  REQUIRE(model.ok());
  struct Case {
    uint32_t tokens, heads, dim, group, k;
    uint8_t format;
  };
  const Case cases[] = {
      {64, 1, 64, 1, 16, layout::kFormatCodes2},      {512, 8, 128, 4, 256, layout::kFormatCodes2},
      {512, 3, 64, 3, 64, layout::kFormatCodes2},     {512, 8, 128, 4, 512, layout::kFormatCodes2},
      {2048, 8, 128, 4, 1024, layout::kFormatCodes2}, {2048, 4, 128, 8, 128, layout::kFormatCodes4},
      {4096, 2, 128, 4, 1024, layout::kFormatCodes2}, {8192, 1, 128, 4, 1024, layout::kFormatCodes8},
      {8192, 2, 64, 4, 2048, layout::kFormatCodes2},  {8192, 3, 128, 4, 64, layout::kFormatBounds},
      {4096, 1, 128, 64, 64, layout::kFormatCodes2},  {4096, 1, 128, 64, 64, layout::kFormatCodes8},
      {4096, 2, 64, 64, 256, layout::kFormatCodes2},
  };
  for (const Case& of : cases) {
    CAPTURE(of.tokens, of.heads, of.dim, of.group, of.k, +of.format);
    const Workload workload{
        "", Measure::kDescriptor, of.tokens, of.heads, of.dim, of.group, of.k, of.format, false, 0,
        "", of.group > 16};
    const double simulated = TimeOf(rtl->get(), workload);
    CHECK(TimeOf(model->get(), workload) == Approx(simulated).epsilon(0.1));
  }
}

TEST_CASE("formulas of a whole descriptor are within 10 % of the simulated card") {
  for (const Workload& workload :
       {Workload{"", Measure::kDescriptor, 512, 3, 64, 3, 64, layout::kFormatCodes2, false, 0, ""},
        Workload{"", Measure::kDescriptor, 2048, 8, 128, 4, 1024, layout::kFormatCodes2, false, 0, ""},
        Workload{"", Measure::kDescriptor, 8192, 1, 128, 4, 1024, layout::kFormatCodes4, false, 0, ""}}) {
    CAPTURE(workload.tokens);
    for (const double clock : {250.0, 300.0}) {
      const absl::StatusOr<WholeTimes> whole = RunWhole(workload, clock);
      if (absl::IsUnimplemented(whole.status())) return;  // a build without the simulated card
      INFO(whole.status());
      REQUIRE(whole.ok());
      const double us = static_cast<double>(whole->host.again) / clock;
      CHECK(EstimateOf(workload, {.channels = whole->channels}, clock).us == Approx(us).epsilon(0.1));
      // The index is known then, and rings in card memory are nearer.
      CHECK(whole->host.again < whole->host.first);
      CHECK(whole->card.again < whole->card.first);
      CHECK(whole->card.again < whole->host.again);
      CHECK(whole->jobs_us < us);
    }
  }
}

TEST_CASE("a plain linear reader gets 92 of 100 of the channel's peak, whatever the clock") {
  for (const double clock : {250.0, 300.0}) {
    const std::optional<double> rate = LinearReaderRate(clock);
    if (!rate.has_value()) continue;  // a build without the simulated card
    CHECK(*rate > 0.91 * 14'400);
    CHECK(*rate < 0.93 * 14'400);
  }
}

TEST_CASE("the published card reads numbers of 16 bits at 38 GB/s, and has no scan of bounds") {
  Workload workload{"", Measure::kScan, 1 << 20, 1, 128, 64, 2048, layout::kFormatCodes8, false, 0, ""};
  CHECK(PublishedUs(workload) == Approx(7064).margin(1));
  workload.format = layout::kFormatBounds;
  CHECK(PublishedUs(workload) == 0);
}

TEST_CASE("an unknown kind of device is named") {
  const auto run = DeviceRun::Make({.kind = "abacus"});
  REQUIRE_FALSE(run.ok());
  CHECK(std::string(run.status().message()).find("abacus") != std::string::npos);
}

}  // namespace
}  // namespace mnemo::card::report
