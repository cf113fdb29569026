#include "server/memory/step_accounts.h"

#include <catch2/catch.hpp>

namespace mnemo::memory {
namespace {

constexpr MemoryShape kShape = {.layers = 2, .kv_heads = 3, .group = 4, .head_dim = 64, .softmax_scale = 1};
constexpr uint64_t kColumns = 6;
constexpr uint64_t kTokenBytes = 100;
const SideNames kNames = {.worker = "cpu0", .service = "memory0"};

SequenceAccount Account() { return {.method = &methods::kPageBound}; }

TEST_CASE("each step is charged to its sequence, to its device, and to the totals") {
  StepAccounts accounts(kShape, kTokenBytes);
  SequenceAccount first = Account();
  SequenceAccount second = Account();
  accounts.ChargeRecords(&first, kInService, 2, {.prepare_ns = 7, .bytes = 8});
  const ClientCost cost = {.score_ns = 10, .select_ns = 20, .bytes = 30};
  accounts.ChargeRow(
      &first,
      {.side = kInService, .asked = &cost, .scored = 50, .selected = 5, .entry_tokens = 16, .attended = 90},
      1000, 300);
  accounts.ChargeRow(&second, {.selected = 5, .entry_tokens = 16, .attended = 210}, 1000, 300);
  const std::vector<MemoryStepStat> steps = StepAccounts::StepsOf(first, kNames);
  REQUIRE(steps.size() == 4);
  for (const MemoryStepStat& step : steps) CHECK(step.method == "page_bound");
  CHECK(steps[0].step == MemoryStepKind::kPrepare);
  CHECK(steps[0].device == "memory0");
  CHECK(steps[0].count == 2 * 64 * kColumns);
  CHECK(steps[1].step == MemoryStepKind::kRelevancy);
  CHECK(steps[1].count == 50 * kColumns);
  CHECK(steps[1].round_trips == 2);
  CHECK(steps[2].step == MemoryStepKind::kRetrieval);
  CHECK(steps[2].count == 5 * kColumns);
  CHECK(steps[2].bytes == 5 * kColumns * sizeof(uint32_t));
  CHECK(steps[3].step == MemoryStepKind::kApply);
  CHECK(steps[3].device == "cpu0");
  CHECK(steps[3].time_ns == 300);
  CHECK(steps[3].bytes == 90 * kColumns * kTokenBytes);
  CHECK(StepAccounts::StepsOf(second, kNames).size() == 1);  // it asked for nothing
  PipelineStats stats;
  accounts.FillStats(kNames, nullptr, &stats);
  CHECK(stats.selected_tokens.count == 2);
  CHECK(stats.selected_tokens.sum == 2 * 5 * 16);
  uint64_t applied_ns = 0;
  for (const StepTotal& total : stats.steps) {
    if (total.step == MemoryStepKind::kApply) applied_ns += total.time_ns;
  }
  CHECK(applied_ns == 1000);
}

TEST_CASE("the time of fetching is shared by tokens") {
  StepAccounts accounts(kShape, kTokenBytes);
  SequenceAccount first = Account();
  SequenceAccount second = Account();
  accounts.ChargeFetches(std::vector<StepAccounts::Fetched>{{&first, 0}, {&second, 0}}, 100);
  CHECK(second.costs[kInService][2].time_ns == 0);
  accounts.ChargeFetches(std::vector<StepAccounts::Fetched>{{&first, 30}, {&second, 10}}, 100);
  CHECK(first.costs[kInService][2].time_ns == 75);
  CHECK(second.costs[kInService][2].time_ns == 25);
  CHECK(second.costs[kInService][2].bytes == 10 * kTokenBytes);
  accounts.CountResidentRow(5, 16, 40);
  PipelineStats stats;
  accounts.FillStats(kNames, nullptr, &stats);
  CHECK(stats.hot.selected_tokens == 5 * 16 * kColumns);
  CHECK(stats.hot.missed_tokens == 40);
}

TEST_CASE("fallbacks are counted by reason, with a sequence and without") {
  StepAccounts accounts(kShape, kTokenBytes);
  SequenceAccount account = Account();
  accounts.CountFallback(&account, "service_full");
  accounts.CountFallback(&account, "service_lost");
  accounts.CountFallback(nullptr, "service_lost");
  CHECK(account.fallbacks == 2);
  CHECK(account.fallback_reason == "service_lost");
  PipelineStats stats;
  accounts.FillStats(kNames, nullptr, &stats);
  CHECK(stats.fallbacks == std::map<std::string, uint64_t>{{"service_full", 1}, {"service_lost", 2}});
}

TEST_CASE("figures of attachments add up over those that have ended") {
  StepAccounts accounts(kShape, kTokenBytes);
  AttachmentStats attachment;
  attachment.round_trips.Observe(5'000);
  attachment.bytes_sent = 1;
  attachment.bytes_received = 2;
  accounts.AddPastAttachment(attachment);
  PipelineStats stats;
  accounts.FillStats(kNames, &attachment, &stats);
  CHECK(stats.round_trips.count == 2);
  CHECK(stats.bytes_to_service == 2);
  CHECK(stats.bytes_from_service == 4);
  accounts.FillStats(kNames, nullptr, &stats);
  CHECK(stats.round_trips.count == 1);
}

}  // namespace
}  // namespace mnemo::memory
