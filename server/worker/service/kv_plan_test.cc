#include "server/worker/service/kv_plan.h"

#include <catch2/catch.hpp>

namespace mnemo::worker_service {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

// 4 layers, of which with dense_layers 2 the last two are indexed.
model::ModelConfig Model(int context_tokens) {
  model::ModelConfig model;
  model.layers = 4;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 16;
  model.context_tokens = context_tokens;
  model.layer_is_windowed.assign(4, false);
  return model;
}

// 64 slots of 2 heads: K and V of 16 bytes each and 4 bytes of scales; keys twice in indexed layers.
constexpr int64_t kPlain = 64 * 2 * (2 * 16 + 4);
constexpr int64_t kIndexed = 64 * 2 * (3 * 16 + 4);
constexpr int64_t kPage = 2 * kPlain + 2 * kIndexed;

Resources Machine(int64_t memory_bytes, int64_t process_bytes = INT64_MAX) {
  return {.memory_bytes = memory_bytes,
          .memory_bound = "memory.max of /a",
          .process_bytes = process_bytes,
          .process_bound = process_bytes == INT64_MAX ? "" : "RLIMIT_AS (ulimit -v)"};
}

absl::StatusOr<KvPlan> Plan(const config::Config& config, int context_tokens, const Resources& machine,
                            int64_t service_bytes = INT64_MAX) {
  return PlanKv(config, Model(context_tokens), devices::KvType::kQ8, machine, service_bytes);
}

std::string ErrorOf(const config::Config& config, int context_tokens, const Resources& machine) {
  const absl::StatusOr<KvPlan> plan = Plan(config, context_tokens, machine);
  REQUIRE(plan.status().code() == absl::StatusCode::kInvalidArgument);
  return std::string(plan.status().message());
}

TEST_CASE("the default pool has four contexts, where a quarter of memory holds them") {
  config::Config config;
  const KvPlan plan = *Plan(config, 1000, Machine(kGiB));
  CHECK(plan.pages == 64);
  CHECK(plan.page_bytes == kPage);
  CHECK(plan.cache_bytes == 64 * kPage);
  CHECK(plan.context_tokens == 1000);
  CHECK(plan.bound.empty());
}

TEST_CASE("the default pool stays within its part of a quarter, and the context within the pool") {
  config::Config config;
  config.workers.count = GENERATE(1, 2, 3);
  const int context_tokens = GENERATE(1000, 1 << 20, 10'000'000, 1 << 24);
  const int64_t memory_bytes = GENERATE(4 * 3 * kPage, 100 * kPage, kGiB, 16 * kGiB);
  CAPTURE(config.workers.count, context_tokens, memory_bytes);
  const absl::StatusOr<KvPlan> plan = Plan(config, context_tokens, Machine(memory_bytes));
  REQUIRE(plan.ok());
  CHECK(plan->cache_bytes * config.workers.count <= memory_bytes / 4);
  CHECK(plan->context_tokens <= int64_t{plan->pages} * 64);
  CHECK((plan->context_tokens == context_tokens) == plan->bound.empty());
  if (plan->context_tokens < context_tokens) {
    // As much as there is room for.
    CHECK((plan->pages + 1) * kPage * config.workers.count > memory_bytes / 4 - config.workers.count * kPage);
    CHECK_THAT(plan->bound, Catch::Contains("memory.max of /a") && Catch::Contains("engine.kv_cache_bytes"));
  }
  // A worker that is told the decided figures decides the same.
  config::Config told = config;
  told.model.context_tokens = plan->context_tokens;
  told.engine.kv_cache_bytes = plan->pages * plan->page_bytes;
  const absl::StatusOr<KvPlan> again = Plan(told, context_tokens, Machine(memory_bytes));
  REQUIRE(again.ok());
  CHECK(again->pages == plan->pages);
  CHECK(again->context_tokens == plan->context_tokens);
  CHECK(again->bound.empty());
}

TEST_CASE("a limit of each process bounds the pool too") {
  const KvPlan plan = *Plan({}, 1 << 20, Machine(kGiB, 40 * kPage));
  CHECK(plan.pages == 10);
  CHECK(plan.context_tokens == 640);
  CHECK_THAT(plan.bound, Catch::Contains("RLIMIT_AS"));
}

TEST_CASE("a given pool is what was asked for, or refused with the bound") {
  config::Config config;
  config.engine.kv_cache_bytes = 10 * kPage + 1;
  const KvPlan plan = *Plan(config, 1 << 20, Machine(kGiB));
  CHECK(plan.pages == 10);
  CHECK(plan.context_tokens == 641);  // the last token of an output needs no place
  CHECK(plan.bound == "the KV page pool of 640 tokens (engine.kv_cache_bytes)");
  CHECK(Plan(config, 600, Machine(kGiB))->context_tokens == 600);
  // More than a quarter is honoured, more than there is is not.
  CHECK(Plan(config, 600, Machine(11 * kPage))->pages == 10);
  CHECK_THAT(ErrorOf(config, 600, Machine(9 * kPage)),
             Catch::Contains("engine.kv_cache_bytes") && Catch::Contains("memory.max of /a"));
  CHECK_THAT(ErrorOf(config, 600, Machine(kGiB, 9 * kPage)), Catch::Contains("RLIMIT_AS"));
  config.workers.count = 2;
  CHECK_THAT(ErrorOf(config, 600, Machine(19 * kPage)), Catch::Contains("each of 2 workers"));
  config.engine.kv_cache_bytes = kPage - 1;
  CHECK_THAT(ErrorOf(config, 600, Machine(kGiB)), Catch::Contains("do not hold one page"));
}

TEST_CASE("a given context that does not fit is refused with the bound") {
  config::Config config;
  config.model.context_tokens = 640;
  CHECK(Plan(config, 1 << 20, Machine(4 * 10 * kPage))->context_tokens == 640);
  CHECK_THAT(ErrorOf(config, 1 << 20, Machine(4 * 9 * kPage)), Catch::Contains("model.context_tokens: 640") &&
                                                                   Catch::Contains("memory.max of /a") &&
                                                                   Catch::Contains("holds 576 tokens"));
  CHECK_THAT(ErrorOf(config, 600, Machine(kGiB)), Catch::Contains("more than the model's 600"));
  CHECK_THAT(ErrorOf({}, 600, Machine(3 * kPage)), Catch::Contains("one page"));
}

TEST_CASE("sequences whose K and V a service keeps may be longer than the pool, within the same bound") {
  config::Config config;
  config.memory.kv_residency = "memory_service";
  const KvPlan all = *Plan(config, 1000, Machine(kGiB));
  CHECK(all.pages == 64);
  CHECK(all.resident_tokens == 4 * 1024);
  CHECK(all.cache_bytes == 64 * kPage + 64 * 2 * kPlain + 16 * kIndexed);
  CHECK(all.context_tokens == 1000);

  const KvPlan tight = *Plan(config, 1 << 20, Machine(4 * 100 * kPage));
  CHECK(tight.pages == 50);
  CHECK(tight.cache_bytes <= 100 * kPage);
  CHECK(tight.context_tokens > 50 * 64);
  CHECK(tight.context_tokens <= tight.resident_tokens);
  CHECK_FALSE(tight.bound.empty());

  config::Config told = config;
  told.model.context_tokens = tight.context_tokens;
  told.engine.kv_cache_bytes = tight.pages * tight.page_bytes;
  told.memory.resident_tokens = static_cast<int>(tight.resident_tokens);
  const KvPlan again = *Plan(told, 1 << 20, Machine(4 * 100 * kPage));
  CHECK(again.context_tokens == tight.context_tokens);
  CHECK(again.resident_tokens == tight.resident_tokens);
  CHECK(again.cache_bytes == tight.cache_bytes);

  // A service that holds less than the pool offers nothing beside it.
  CHECK(Plan(config, 1 << 20, Machine(4 * 100 * kPage), 1000)->context_tokens == 50 * 64);
  config.memory.resident_tokens = 1 << 20;
  CHECK_THAT(ErrorOf(config, 1 << 20, Machine(4 * 100 * kPage)), Catch::Contains("memory.resident_tokens"));
  // Without layers that could be indexed there are none.
  config.attention.dense_layers = 4;
  CHECK(Plan(config, 1000, Machine(kGiB))->resident_tokens == 0);
}

TEST_CASE("memory that cannot be had is known before it is needed") {
  KvPlan plan;
  plan.cache_bytes = 1 << 20;
  CHECK(ProbeKv(plan, 1 << 20, Machine(kGiB)).ok());
  plan.cache_bytes = int64_t{1} << 60;  // more than any address space
  const absl::Status status = ProbeKv(plan, 0, Machine(kGiB));
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Catch::Contains("engine.kv_cache_bytes"));
}

}  // namespace
}  // namespace mnemo::worker_service
