#include "server/worker/service/convert.h"

#include <catch2/catch.hpp>

#include "server/memory/methods/method.h"

namespace mnemo::worker_service {
namespace {

using memory::AttentionSettings;

TEST_CASE("attention comes over as the front end resolved it") {
  internal::v1::Submit submit;
  CHECK(ToEngineRequest(submit, {}).attention.method == AttentionSettings::Method::kDense);
  internal::v1::Attention* attention = submit.mutable_attention();
  CHECK(ToEngineRequest(submit, {}).attention.method == AttentionSettings::Method::kDense);
  attention->set_method(7);
  attention->set_token_budget(1024);
  attention->set_keep_first(4);
  attention->set_keep_last(16);
  attention->set_reuse_interval(2);
  attention->set_first_stage_tokens(4096);
  attention->set_key_bits(8);
  attention->set_placement(2);
  const AttentionSettings settings = ToEngineRequest(submit, {}).attention;
  CHECK(settings.method == AttentionSettings::Method::kCascade);
  CHECK(settings.token_budget == 1024);
  CHECK(settings.keep_first == 4);
  CHECK(settings.keep_last == 16);
  CHECK(settings.reuse_interval == 2);
  CHECK(settings.first_stage_tokens == 4096);
  CHECK(settings.key_bits == 8);
  CHECK(settings.placement == AttentionSettings::Placement::kMemoryService);
}

TEST_CASE("a method that has no name keeps its number, so that the engine can refuse it") {
  internal::v1::Submit submit;
  submit.mutable_attention()->set_method(99);
  const AttentionSettings settings = ToEngineRequest(submit, {}).attention;
  CHECK(static_cast<int>(settings.method) == 99);
  CHECK(memory::methods::MethodName(settings.method).empty());
}

TEST_CASE("what memory processing cost is reported whole") {
  memory::PipelineStats stats;
  stats.service_attached = true;
  stats.service = "memory0";
  stats.inline_indexes = 1;
  stats.inline_bytes = 2;
  stats.service_indexes = 3;
  stats.bytes_to_service = 4;
  stats.bytes_from_service = 5;
  stats.round_trips.Observe(1'500);
  stats.selected_tokens.Observe(1024);
  stats.selected_tokens.Observe(1025);
  stats.hot = {.selected_tokens = 8, .missed_tokens = 9};
  stats.fallbacks["service_full"] = 6;
  memory::StepTotal& step = stats.steps.emplace_back();
  step.step = memory::MemoryStepKind::kApply;
  step.device = "cpu0";
  step.time_ns = 7;
  step.times.Observe(5'000'000'000);
  internal::v1::MemoryFigures out;
  FillMemoryFigures(stats, &out);
  CHECK(out.service_attached());
  CHECK(out.service() == "memory0");
  CHECK(out.inline_indexes() == 1);
  CHECK(out.inline_bytes() == 2);
  CHECK(out.service_indexes() == 3);
  CHECK(out.bytes_to_service() == 4);
  CHECK(out.bytes_from_service() == 5);
  CHECK(out.hot_selected_tokens() == 8);
  CHECK(out.hot_missed_tokens() == 9);
  CHECK(out.fallbacks().at("service_full") == 6);
  CHECK(out.round_trips().count() == 1);
  CHECK(out.round_trips().sum() == 1'500);
  REQUIRE(out.round_trips().buckets_size() == static_cast<int>(memory::kDurationBoundsNs.size()) + 1);
  CHECK(out.round_trips().buckets(1) == 1);      // (1,000, 2,000]
  CHECK(out.selected_tokens().buckets(4) == 1);  // a bound is in its own bucket
  CHECK(out.selected_tokens().buckets(5) == 1);
  REQUIRE(out.steps_size() == 1);
  CHECK(out.steps(0).total().step() == 4);
  CHECK(out.steps(0).total().device() == "cpu0");
  CHECK(out.steps(0).total().time_ns() == 7);
  CHECK(out.steps(0).times().buckets(static_cast<int>(memory::kDurationBoundsNs.size())) == 1);
}

}  // namespace
}  // namespace mnemo::worker_service
