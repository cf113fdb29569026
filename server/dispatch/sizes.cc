#include "server/dispatch/sizes.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "server/worker/service/kv_plan.h"

namespace mnemo::dispatch {
namespace {

constexpr int64_t kMemoryFraction = 4;  // of all memory services' indexes together: 1 / this
// The least that the schema allows, which what is decided has to satisfy as well.
constexpr int64_t kLeastIndexBytes = 1 << 20;
constexpr int kLeastContextTokens = 64;
constexpr int kMaxThreads = 1024;

absl::Status DecideIndexBytes(const Resources& resources, config::Config::Memory* memory) {
  if (memory->services == 0) return absl::OkStatus();
  if (memory->index_bytes == 0) {
    memory->index_bytes = std::max<int64_t>(
        kLeastIndexBytes, std::min(resources.memory_bytes / kMemoryFraction / memory->services,
                                   resources.process_bytes / kMemoryFraction));
    return absl::OkStatus();
  }
  if (memory->index_bytes > resources.memory_bytes / memory->services) {
    return InvalidArgument("memory.index_bytes: {} for each of {} services are more than the {} bytes of {}",
                           memory->index_bytes, memory->services, resources.memory_bytes,
                           resources.memory_bound);
  }
  if (memory->index_bytes > resources.process_bytes) {
    return InvalidArgument("memory.index_bytes: {} are more than the {} bytes of {}", memory->index_bytes,
                           resources.process_bytes, resources.process_bound);
  }
  return absl::OkStatus();
}

// A worker's share of its service, the least of all workers; INT64_MAX when others run a service.
int64_t LeastQuota(const config::Config& config) {
  if (config.memory.services == 0 || !config.memory.addresses.empty()) return INT64_MAX;
  int64_t least = INT64_MAX;
  for (int i = 0; i < config.memory.services; ++i) least = std::min(least, QuotaOf(config, i));
  return least;
}

}  // namespace

size_t ServiceOf(int index, size_t services) { return static_cast<size_t>(index) % services; }

int SharersOf(const config::Config& config, int service) {
  int sharers = 0;
  for (int worker = 0; worker < config.workers.count; ++worker) {
    sharers += ServiceOf(worker, config.memory.service_count()) == static_cast<size_t>(service) ? 1 : 0;
  }
  return std::max(1, sharers);
}

int64_t QuotaOf(const config::Config& config, int service) {
  const int64_t quota = std::min(config.memory.quota_bytes, config.memory.index_bytes);
  if (quota > 0) return quota;
  // Rounded up, so that nothing is left of which a further owner could be granted a sliver.
  const int sharers = SharersOf(config, service);
  return (config.memory.index_bytes + sharers - 1) / sharers;
}

absl::StatusOr<ContextBound> DecideSizes(const model::ModelConfig& model,
                                         const devices::DeviceOptions& device, const Resources& resources,
                                         config::Config* config) {
  for (const std::string& warning : resources.warnings) spdlog::warn("{}", warning);
  spdlog::info("sizes follow from {} bytes of memory ({}) and {} cores ({})", resources.memory_bytes,
               resources.memory_bound, resources.cores, resources.cores_bound);
  if (model.weight_bytes > resources.memory_bytes) {
    return ResourceExhausted("model.path: its {} bytes of weights are more than the {} bytes of {}",
                             model.weight_bytes, resources.memory_bytes, resources.memory_bound);
  }
  if (config->cpu.threads == 0) config->cpu.threads = std::min(resources.cores, kMaxThreads);
  MNEMO_RETURN_IF_ERROR(DecideIndexBytes(resources, &config->memory));

  devices::DeviceOptions one_thread = device;
  one_thread.threads = 1;
  one_thread.cpus.clear();
  MNEMO_ASSIGN_OR_RETURN(const auto probed, devices::CreateDevice(one_thread));
  MNEMO_ASSIGN_OR_RETURN(
      const worker_service::KvPlan plan,
      worker_service::PlanKv(*config, model, probed->info().kv_type, resources, LeastQuota(*config)));
  MNEMO_RETURN_IF_ERROR(worker_service::ProbeKv(plan, model.weight_bytes, resources));
  const int64_t all_bytes = model.weight_bytes + plan.cache_bytes * config->workers.count +
                            config->memory.index_bytes * config->memory.services;
  if (all_bytes > resources.memory_bytes) {
    spdlog::warn(
        "weights of {} bytes, KV pages and indexes may grow to {} bytes, more than the {} of {}; "
        "engine.kv_cache_bytes and memory.index_bytes bound them",
        model.weight_bytes, all_bytes, resources.memory_bytes, resources.memory_bound);
  }
  const int wanted_tokens =
      config->model.context_tokens > 0 ? config->model.context_tokens : model.context_tokens;
  // A shorter context is the model's own, which 0 stands for.
  config->model.context_tokens = plan.context_tokens >= kLeastContextTokens ? plan.context_tokens : 0;
  config->engine.kv_cache_bytes = plan.pages * plan.page_bytes;
  config->memory.resident_tokens = static_cast<int>(plan.resident_tokens);
  if (config->memory.kv_residency == "memory_service" && plan.resident_tokens == 0) {
    config->memory.kv_residency = "worker";
    config->memory.placement = "memory_service";  // which the former implied
  }
  if (!plan.bound.empty()) {
    spdlog::warn("context: {} of {} tokens are offered, what fits {}", plan.context_tokens, wanted_tokens,
                 plan.bound);
  }
  if (const int64_t bound = config->limits.max_tokens_in_flight; bound > 0 && plan.context_tokens > bound) {
    spdlog::warn("context: requests of more than {} tokens are refused by limits.max_tokens_in_flight",
                 bound);
  }
  return ContextBound{plan.context_tokens, plan.bound};
}

}  // namespace mnemo::dispatch
