#include "server/worker/service/kv_plan.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <vector>

#include "server/memory/indexed_layers.h"

namespace mnemo::worker_service {
namespace {

constexpr int64_t kDefaultContexts = 4;  // that the default pool holds, and the default of resident_tokens
constexpr int64_t kMemoryFraction = 4;   // of all workers' default pools together: 1 / this
constexpr int64_t kMaxPages = 1 << 24;
constexpr int64_t kMaxResidentTokens = 1 << 28;
// Memory of a process beside pages and weights. With a limit of its own also what is mapped and hardly used:
// stacks of threads, arenas of malloc.
constexpr int64_t kOtherBytes = int64_t{64} << 20;
constexpr int64_t kOtherMappedBytes = int64_t{512} << 20;

// Bytes of one page of each kind.
struct PageBytes {
  int64_t pool = 0;
  int64_t extra = 0;    // layers that are not indexed
  int64_t staging = 0;  // one indexed layer
};

PageBytes BytesOf(const model::ModelConfig& model, const std::vector<int>& indexed, devices::KvType kv_type) {
  devices::KvCacheShape shape = {.layers = model.layers,
                                 .kv_heads = model.kv_heads,
                                 .head_dim = model.head_dim,
                                 .pages = 1,
                                 .type = kv_type};
  if (!indexed.empty()) shape.gather_layers.resize(static_cast<size_t>(model.layers));
  for (const int layer : indexed) shape.gather_layers[static_cast<size_t>(layer)] = 1;
  return {devices::KvPageBytes(shape), devices::KvExtraPageBytes(shape), devices::KvStagingPageBytes(shape)};
}

// Bytes that a memory service keeps of one position, at most: K and V as stored, and records of keys of 8
// bits with their scales.
int64_t ServiceTokenBytes(const model::ModelConfig& model, int64_t indexed_layers, devices::KvType kv_type) {
  const int64_t stored = devices::StoredKvBytes(devices::StoredForm(kv_type), model.head_dim);
  return indexed_layers * model.kv_heads * (stored + model.head_dim + int64_t{2} * sizeof(float));
}

// Workers that share this machine's memory.
int LocalWorkers(const config::Config& config) { return std::max(1, config.workers.count); }

// Bytes that one worker may have by default, and the name of the bound.
struct Share {
  int64_t bytes = 0;
  std::string name;
};

Share ShareOf(const config::Config& config, const Resources& resources) {
  const int workers = LocalWorkers(config);
  Share share = {resources.memory_bytes / kMemoryFraction / workers,
                 fmt::format("a quarter of {} bytes ({}){}", resources.memory_bytes, resources.memory_bound,
                             workers > 1 ? fmt::format(", over {} workers", workers) : std::string())};
  if (resources.process_bytes / kMemoryFraction < share.bytes) {
    share = {resources.process_bytes / kMemoryFraction,
             fmt::format("a quarter of {} bytes ({})", resources.process_bytes, resources.process_bound)};
  }
  return share;
}

// Pages of sequences whose K and V a memory service keeps.
struct ResidentPages {
  int64_t extra = 0;
  int64_t context = 0;  // of the longest such sequence; as many staging pages are needed
  int64_t Bytes(const PageBytes& page) const { return extra * page.extra + context * page.staging; }
};

ResidentPages PlanResidents(int64_t resident_tokens, int64_t context_pages, int64_t budget_bytes,
                            const PageBytes& page) {
  ResidentPages pages;
  if (resident_tokens > 0) {
    pages.extra = devices::PagesFor(resident_tokens);
    pages.context = std::min(context_pages, pages.extra);
    return pages;
  }
  const int64_t wanted =
      std::min(kDefaultContexts * context_pages, kMaxResidentTokens / devices::kPageTokens);
  pages.context =
      std::min({context_pages, wanted, std::max<int64_t>(budget_bytes, 0) / (page.extra + page.staging)});
  pages.extra = wanted;
  if (page.extra > 0) {
    pages.extra = std::min(wanted, (budget_bytes - pages.context * page.staging) / page.extra);
  }
  if (pages.context == 0) pages.extra = 0;
  return pages;
}

absl::Status CheckTotal(const config::Config& config, const KvPlan& plan, const Resources& resources) {
  const int workers = LocalWorkers(config);
  const auto setting = [&] {
    return config.engine.kv_cache_bytes > 0
               ? fmt::format("engine.kv_cache_bytes: {}", config.engine.kv_cache_bytes)
               : fmt::format("memory.resident_tokens: {}", config.memory.resident_tokens);
  };
  if (plan.cache_bytes > resources.memory_bytes / workers) {
    return InvalidArgument("{}: {} bytes of KV pages for each of {} workers are more than the {} bytes of {}",
                           setting(), plan.cache_bytes, workers, resources.memory_bytes,
                           resources.memory_bound);
  }
  if (plan.cache_bytes > resources.process_bytes) {
    return InvalidArgument("{}: {} bytes of KV pages are more than the {} bytes of {}", setting(),
                           plan.cache_bytes, resources.process_bytes, resources.process_bound);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvPlan> PlanKv(const config::Config& config, const model::ModelConfig& model,
                              devices::KvType kv_type, const Resources& resources, int64_t service_bytes) {
  if (config.model.context_tokens > model.context_tokens) {
    return InvalidArgument("model.context_tokens: {} is more than the model's {}",
                           config.model.context_tokens, model.context_tokens);
  }
  const int64_t wanted_tokens =
      config.model.context_tokens > 0 ? config.model.context_tokens : model.context_tokens;
  const int64_t context_pages = devices::PagesFor(wanted_tokens);
  const std::vector<int> indexed = memory::IndexableLayers(model, config.attention.dense_layers);
  const PageBytes page = BytesOf(model, indexed, kv_type);
  const bool resident =
      config.memory.kv_residency == "memory_service" && config.memory.service_count() > 0 && !indexed.empty();
  const Share share = ShareOf(config, resources);
  const bool is_given = config.engine.kv_cache_bytes > 0;

  int64_t pages = 0;
  int64_t resident_bytes = share.bytes;
  if (is_given) {
    pages = std::min(config.engine.kv_cache_bytes / page.pool, kMaxPages);
    if (pages == 0) {
      return InvalidArgument("engine.kv_cache_bytes: {} do not hold one page, which takes {}",
                             config.engine.kv_cache_bytes, page.pool);
    }
  } else {
    const int64_t most = std::min(kDefaultContexts * context_pages, kMaxPages);
    pages = std::min(most, share.bytes / page.pool);
    if (resident) {
      const ResidentPages all = PlanResidents(config.memory.resident_tokens, context_pages,
                                              std::numeric_limits<int64_t>::max(), page);
      const int64_t for_pool = std::max(share.bytes - all.Bytes(page), share.bytes / 2);
      pages = std::min(most, for_pool / page.pool);
      resident_bytes -= pages * page.pool;
    }
    if (pages == 0) {
      return InvalidArgument(
          "engine.kv_cache_bytes: 0 takes {}, which do not hold one page of {} bytes; set it, or allow more "
          "memory",
          share.name, page.pool);
    }
  }

  KvPlan plan;
  plan.pages = static_cast<int>(pages);
  plan.page_bytes = page.pool;
  plan.cache_bytes = pages * page.pool;
  const int64_t pool_tokens = pages * devices::kPageTokens;
  // The last token of an output needs no place in the pool, which a given pool's end allows for.
  int64_t offered = std::min(wanted_tokens, is_given ? pool_tokens + 1 : pool_tokens);
  if (resident) {
    const ResidentPages residents =
        PlanResidents(config.memory.resident_tokens, context_pages, resident_bytes, page);
    plan.resident_tokens = residents.extra * devices::kPageTokens;
    plan.cache_bytes += residents.Bytes(page);
    const int64_t longest =
        std::min(residents.context * devices::kPageTokens,
                 service_bytes / ServiceTokenBytes(model, static_cast<int64_t>(indexed.size()), kv_type));
    offered = std::max(offered, std::min(wanted_tokens, longest));
  }
  plan.context_tokens = static_cast<int>(offered);
  if (is_given || (resident && config.memory.resident_tokens > 0)) {
    MNEMO_RETURN_IF_ERROR(CheckTotal(config, plan, resources));
  }
  if (offered == wanted_tokens) return plan;
  if (config.model.context_tokens > 0 && !is_given) {
    return InvalidArgument(
        "model.context_tokens: {} tokens need {} bytes of KV pages, and {} holds {} tokens; lower it, set "
        "engine.kv_cache_bytes, or allow more memory",
        config.model.context_tokens, context_pages * page.pool, share.name, offered);
  }
  if (offered > pool_tokens + 1) {
    plan.bound = fmt::format(
        "KV pages within {} and the memory service (memory.resident_tokens, memory.index_bytes, "
        "engine.kv_cache_bytes)",
        share.name);
    return plan;
  }
  if (is_given) {
    plan.bound = fmt::format("the KV page pool of {} tokens (engine.kv_cache_bytes)", pool_tokens);
    return plan;
  }
  plan.bound =
      fmt::format("the KV page pool of {} tokens ({}; engine.kv_cache_bytes)", pool_tokens, share.name);
  return plan;
}

absl::Status ProbeKv(const KvPlan& plan, int64_t weight_bytes, const Resources& resources) {
  const int64_t other = resources.process_bound.empty() ? kOtherBytes : kOtherMappedBytes;
  const size_t bytes = static_cast<size_t>(plan.cache_bytes + weight_bytes + other);
  void* area = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area != MAP_FAILED) {
    ::munmap(area, bytes);
    return absl::OkStatus();
  }
  return ResourceExhausted(
      "a worker cannot have its memory: {} bytes of KV pages, {} of weights and {} for the rest: {}; {} "
      "bytes "
      "are there ({}){}; lower engine.kv_cache_bytes or model.context_tokens, or allow more",
      plan.cache_bytes, weight_bytes, other, std::strerror(errno), resources.memory_bytes,
      resources.memory_bound,
      resources.process_bound.empty()
          ? std::string()
          : fmt::format(", {} for a process ({})", resources.process_bytes, resources.process_bound));
}

}  // namespace mnemo::worker_service
