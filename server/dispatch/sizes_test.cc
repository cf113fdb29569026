#include "server/dispatch/sizes.h"

#include <catch2/catch.hpp>

#include "config/child_config.h"

namespace mnemo::dispatch {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

model::ModelConfig Model(int context_tokens) {
  model::ModelConfig model;
  model.layers = 4;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 16;
  model.context_tokens = context_tokens;
  model.weight_bytes = kGiB;
  model.layer_is_windowed.assign(4, false);
  return model;
}

Resources Machine(int64_t memory_bytes) {
  return {.memory_bytes = memory_bytes,
          .memory_bound = "memory.max of /a",
          .cores = 6,
          .cores_bound = "cpu.max of /a"};
}

absl::StatusOr<ContextBound> Decide(int context_tokens, const Resources& machine, config::Config* config) {
  const absl::StatusOr<ContextBound> bound =
      DecideSizes(Model(context_tokens), devices::DeviceOptions(), machine, config);
  if (bound.ok()) {
    // The decided figures are a valid configuration, which children are given.
    const absl::StatusOr<UniqueFd> image = config::MakeImage(*config);
    REQUIRE(image.ok());
    const absl::StatusOr<config::Config> told = config::LoadImage(image->get(), {});
    INFO(told.status());
    REQUIRE(told.ok());
    CHECK(config::Serialize(*told) == config::Serialize(*config));
  }
  return bound;
}

TEST_CASE("what is left to the daemon is decided from what it may use") {
  config::Config config;
  config.workers.count = 2;
  config.memory.services = 3;
  const absl::StatusOr<ContextBound> bound = Decide(1 << 24, Machine(8 * kGiB), &config);
  REQUIRE(bound.ok());
  CHECK(config.cpu.threads == 6);
  CHECK(config.memory.index_bytes == 8 * kGiB / 4 / 3);
  CHECK(config.engine.kv_cache_bytes <= kGiB);
  CHECK(config.engine.kv_cache_bytes > kGiB - (1 << 20));
  CHECK(config.model.context_tokens == bound->tokens);
  CHECK(bound->tokens < 1 << 24);
  CHECK_THAT(bound->reason, Catch::Contains("over 2 workers") && Catch::Contains("memory.max of /a"));
  CHECK(config.memory.resident_tokens == 0);
  // Two workers share three services: the first two have one each.
  CHECK(QuotaOf(config, 0) == config.memory.index_bytes);

  // Decided once, it stays.
  config::Config again = config;
  REQUIRE(Decide(1 << 24, Machine(8 * kGiB), &again).ok());
  CHECK(again.engine.kv_cache_bytes == config.engine.kv_cache_bytes);
  CHECK(again.model.context_tokens == config.model.context_tokens);
}

TEST_CASE("what is set is kept, or refused with the bound") {
  config::Config config;
  config.cpu.threads = 3;
  config.memory.index_bytes = kGiB;
  config.model.context_tokens = 2048;
  const absl::StatusOr<ContextBound> bound = Decide(1 << 20, Machine(8 * kGiB), &config);
  REQUIRE(bound.ok());
  CHECK(bound->tokens == 2048);
  CHECK(bound->reason.empty());
  CHECK(config.cpu.threads == 3);
  CHECK(config.memory.index_bytes == kGiB);
  const auto error = [&](int64_t memory_bytes) {
    config::Config changed = config;
    const absl::StatusOr<ContextBound> refused = Decide(1 << 20, Machine(memory_bytes), &changed);
    REQUIRE_FALSE(refused.ok());
    return std::string(refused.status().message());
  };
  CHECK_THAT(error(kGiB / 2), Catch::Contains("model.path") && Catch::Contains("memory.max of /a"));
  config.memory.index_bytes = 3 * kGiB;
  CHECK_THAT(error(2 * kGiB), Catch::Contains("memory.index_bytes") && Catch::Contains("memory.max of /a"));
}

TEST_CASE("sequences that the memory service keeps have their share") {
  config::Config config;
  config.memory.kv_residency = "memory_service";
  const absl::StatusOr<ContextBound> bound = Decide(1 << 20, Machine(2 * kGiB), &config);
  REQUIRE(bound.ok());
  CHECK(config.memory.resident_tokens >= bound->tokens);
  CHECK(config.engine.kv_cache_bytes <= kGiB / 4 + (1 << 20));
}

TEST_CASE("the smallest sizes that are decided are valid settings") {
  config::Config config;
  config.workers.count = 64;
  config.memory.services = 1;
  config.memory.index_bytes = 1 << 20;
  REQUIRE(Decide(32, Machine(8 * kGiB), &config).ok());
  CHECK(config.model.context_tokens == 0);
  CHECK(QuotaOf(config, 0) == (1 << 20) / 64);
  CHECK(config::Load({.file = "", .overrides = {{"memory.quota_bytes", std::to_string(QuotaOf(config, 0))}}})
            .ok());
}

TEST_CASE("a service that can keep nothing leaves K and V to the workers, and requests to itself") {
  config::Config config;
  config.memory.kv_residency = "memory_service";
  config.attention.dense_layers = 4;  // all
  REQUIRE(Decide(1 << 20, Machine(2 * kGiB), &config).ok());
  CHECK(config.memory.kv_residency == "worker");
  CHECK(config.memory.placement == "memory_service");
}

}  // namespace
}  // namespace mnemo::dispatch
