// Sizes of the engine's parts, from its options and the transformer.
#pragma once

#include "devices/base/status.h"
#include "devices/kv_cache.h"
#include "server/memory/pipeline.h"
#include "server/model/transformer.h"
#include "server/worker/engine.h"
#include "server/worker/parking.h"
#include "server/worker/request_limits.h"
#include "server/worker/scheduler.h"

namespace mnemo::worker {

// INVALID_ARGUMENT names the option and its bound. The other functions want options that have passed.
absl::Status CheckOptions(const EngineOptions& options, const model::Transformer& transformer);

// Requests that may be live at once, running and waiting.
inline int MaxLive(const EngineOptions& options) { return options.max_running + options.max_waiting; }

// The worker's own pool, and extra and staging pages where the memory service keeps K and V.
devices::KvCacheShape CacheShapeOf(const EngineOptions& options, const model::Transformer& transformer);
memory::PipelineOptions PipelineOptionsOf(const EngineOptions& options,
                                          const model::Transformer& transformer);
// `cache` has the shape of CacheShapeOf. `pipeline`: nullptr when the model has no indexed layers.
RequestLimits LimitsOf(const EngineOptions& options, const model::Transformer& transformer,
                       const devices::KvCache& cache, const memory::Pipeline* pipeline);
// With a random seed of the prefix cache's hash.
SchedulerOptions SchedulerOptionsOf(const EngineOptions& options, const devices::KvCache& cache);
ParkingOptions ParkingOptionsOf(const EngineOptions& options);

}  // namespace mnemo::worker
