// How many KV pages a worker has, and how long a sequence may be with them. mnemod decides it for its own
// workers, a worker that others start for itself, by the same function.
#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"
#include "devices/base/resources.h"
#include "devices/kv_cache.h"
#include "server/model/model_config.h"

namespace mnemo::worker_service {

struct KvPlan {
  int context_tokens = 0;       // longest sequence that is offered, at most the model's
  int pages = 0;                // of the pool, >= 1
  int64_t page_bytes = 0;       // of one of them
  int64_t resident_tokens = 0;  // positions of sequences whose K and V a memory service keeps; 0 = none
  int64_t cache_bytes = 0;      // of all pages of one worker: the pool's, extra and staging ones
  // Why context_tokens is less than what was asked for (the model's own, or model.context_tokens), as a part
  // of a sentence: "the KV page pool of 4096 tokens (engine.kv_cache_bytes)". Empty when it is not.
  std::string bound;
};

// With engine.kv_cache_bytes the pool has as many pages as these bytes hold. Without, it has as many as four
// contexts take, within this worker's part (one of workers.count) of a quarter of memory; a longer context is
// cut to what fits. When a memory service keeps K and V, extra and staging pages of resident sequences are
// within that part too, and the pool has half of it. `kv_type`: of the device. `service_bytes`: what this
// worker may take of its memory service, if that is known; no longer resident sequence is offered than these
// hold. INVALID_ARGUMENT names the setting that cannot hold, and the bound.
absl::StatusOr<KvPlan> PlanKv(const config::Config& config, const model::ModelConfig& model,
                              devices::KvType kv_type, const Resources& resources,
                              int64_t service_bytes = INT64_MAX);

// Whether a process with these limits can have a plan's memory beside the weights, by mapping it without use.
// RESOURCE_EXHAUSTED names the limits and the settings.
absl::Status ProbeKv(const KvPlan& plan, int64_t weight_bytes, const Resources& resources);

}  // namespace mnemo::worker_service
