#include "server/memory/position_plan.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "proto/layout/record.h"
#include "server/memory/shape.h"

namespace mnemo::memory {
namespace {

using M = AttentionSettings::Method;
using methods::FindMethod;
using methods::Method;
using methods::MethodSteps;

const Method* const kMethods[] = {&methods::kTokenTopk, &methods::kCascade, &methods::kPageBound,
                                  &methods::kBlockMean};

AttentionSettings Settings(M method, int budget) {
  AttentionSettings settings;
  settings.method = method;
  settings.token_budget = budget;
  settings.keep_first = 4;
  settings.keep_last = 0;
  settings.reuse_interval = 1;
  settings.first_stage_tokens = 4 * budget;
  settings.key_bits = 2;
  return settings;
}

int Attended(const PositionPlan& plan, const MethodSteps& steps, int position) {
  return plan.first_end + plan.k * steps.apply.entry_tokens + position + 1 - plan.tail_begin;
}

TEST_CASE("a position within the budget is dense", "[memory]") {
  const AttentionSettings settings = Settings(M::kTokenTopk, 1024);
  const MethodSteps steps = FindMethod(M::kTokenTopk)->steps(settings, {});
  CHECK(PlanPosition(settings, steps, 1023, 100).dense);
  CHECK_FALSE(PlanPosition(settings, steps, 1024, 100).dense);
}

TEST_CASE("token_topk fills its budget exactly, the open page and the kept ends counted", "[memory]") {
  const AttentionSettings settings = Settings(M::kTokenTopk, 1024);
  const MethodSteps steps = FindMethod(M::kTokenTopk)->steps(settings, {});
  for (int position = 2048; position < 2048 + 200; ++position) {
    const PositionPlan plan = PlanPosition(settings, steps, position, 2000);
    CHECK(plan.anchor == position);
    CHECK(plan.end % layout::kPageTokens == 0);
    CHECK(position + 1 - plan.end <= layout::kPageTokens);
    CHECK(position + 1 - plan.end >= 1);
    CHECK(Attended(plan, steps, position) == 1024);
  }
}

TEST_CASE("random settings: ranges are in order, the budget holds, positions of an interval share a plan",
          "[memory]") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  auto draw = [&random](int low, int high) { return std::uniform_int_distribution(low, high)(random); };
  for (int round = 0; round < 20000; ++round) {
    const Method& method = *kMethods[draw(0, 3)];
    AttentionSettings settings = Settings(method.id, 0);
    settings.keep_first = draw(0, 200);
    settings.keep_last = draw(0, 500);
    settings.reuse_interval = draw(1, 64);
    settings.token_budget = settings.keep_first + settings.keep_last + 64 + draw(0, 1) * draw(0, 2000);
    settings.first_stage_tokens = settings.token_budget + draw(0, 3000);
    const MethodSteps steps = method.steps(settings, {.entry_tokens = draw(0, 1) == 0 ? 16 : 64});
    const int decode_begin = draw(1, 8000);
    const int position = decode_begin + draw(0, 2000);
    const PositionPlan plan = PlanPosition(settings, steps, position, decode_begin);
    REQUIRE(plan.anchor <= position);
    REQUIRE(plan.anchor >= decode_begin);
    if (plan.dense) {
      REQUIRE(plan.anchor < settings.token_budget);
      continue;
    }
    const int entry = steps.apply.entry_tokens;
    REQUIRE(plan.first_end >= settings.keep_first);
    REQUIRE(plan.begin % entry == 0);
    REQUIRE(plan.tail_begin <= std::max(plan.anchor + 1 - settings.keep_last, plan.first_end));
    REQUIRE(plan.begin <= plan.end);
    REQUIRE((plan.end == plan.begin || plan.end % layout::kPageTokens == 0));
    REQUIRE(plan.tail_begin >= plan.first_end);
    REQUIRE(plan.tail_begin <= plan.anchor + 1 + entry);
    REQUIRE((plan.end == plan.begin || plan.end <= plan.anchor - settings.keep_last));
    REQUIRE(plan.k <= (plan.end - plan.begin) / entry);
    REQUIRE(Attended(plan, steps, position) <= settings.token_budget);
    if (steps.retrieval.first_stage_tokens > 0) REQUIRE(plan.k1 >= plan.k);
    const int group = position / settings.reuse_interval * settings.reuse_interval;
    const int other = std::max(group + draw(0, settings.reuse_interval - 1), decode_begin);
    const PositionPlan shared = PlanPosition(settings, steps, other, decode_begin);
    REQUIRE(shared.anchor == plan.anchor);
    REQUIRE(shared.k == plan.k);
    REQUIRE(shared.end == plan.end);
  }
}

TEST_CASE("a model without an index takes no sparse method, and says why", "[memory]") {
  const MemoryShape shape = {
      .layers = 28, .kv_heads = 3, .group = 3, .head_dim = 64, .softmax_scale = 0.125f};
  const AttentionSettings settings = Settings(M::kTokenTopk, 1024);
  CHECK(CheckSettings(settings, shape).ok());
  const auto refused = [&settings](const MemoryShape& odd, const std::string& words) {
    const absl::Status status = CheckSettings(settings, odd);
    CHECK(absl::IsUnimplemented(status));
    CHECK_THAT(
        std::string(status.message()),
        Catch::Contains("attention.method: ATTENTION_METHOD_TOKEN_TOPK does not work with the model: ") &&
            Catch::Contains(words));
  };
  MemoryShape odd = shape;
  odd.head_dim = 80;
  refused(odd, "its heads have 80 dimensions");
  CHECK(CheckSettings(Settings(M::kDense, 0), odd).ok());
  odd = shape;
  odd.layers = 0;
  refused(odd, "no layer");
}

}  // namespace
}  // namespace mnemo::memory
