#include "server/worker/engine_setup.h"

#include <algorithm>
#include <random>

#include "devices/base/range.h"
#include "server/memory/shape.h"

namespace mnemo::worker {
namespace {

int ContextTokens(const EngineOptions& options, const model::Transformer& transformer) {
  return options.context_tokens > 0 ? options.context_tokens : transformer.config().context_tokens;
}

bool KeepsKvInService(const EngineOptions& options, const model::Transformer& transformer) {
  return options.extra_pages > 0 && options.attach_memory && !transformer.options().indexed_layers.empty();
}

}  // namespace

absl::Status CheckOptions(const EngineOptions& options, const model::Transformer& transformer) {
  const model::TransformerOptions& model = transformer.options();
  MNEMO_RETURN_IF_ERROR(CheckRange("max_batch_rows", options.max_batch_rows, 1, model.max_rows,
                                   ", the rows the transformer was made for"));
  MNEMO_RETURN_IF_ERROR(CheckRange("max_running", options.max_running, 1, 65536));
  if (std::min(options.max_running, options.max_batch_rows) > model.max_sequences) {
    return InvalidArgument(
        "max_running is {} and max_batch_rows {}; allowed: one of them at most {}, the sequences the "
        "transformer was made for",
        options.max_running, options.max_batch_rows, model.max_sequences);
  }
  MNEMO_RETURN_IF_ERROR(CheckRange("max_waiting", options.max_waiting, 0, 1 << 20));
  MNEMO_RETURN_IF_ERROR(CheckRange("context_tokens", options.context_tokens, 0,
                                   transformer.config().context_tokens, ", the model's context"));
  MNEMO_RETURN_IF_ERROR(CheckRange("kv_pages", options.kv_pages, 1, 1 << 24));
  MNEMO_RETURN_IF_ERROR(CheckRange("reserve_tokens", options.reserve_tokens, 1, 1 << 20));
  MNEMO_RETURN_IF_ERROR(CheckRange("max_sessions", options.max_sessions, 0, 1 << 20));
  return CheckRange("extra_pages", options.extra_pages, 0, 1 << 24);
}

devices::KvCacheShape CacheShapeOf(const EngineOptions& options, const model::Transformer& transformer) {
  devices::KvCacheShape shape = transformer.KvShape(options.kv_pages);
  if (!KeepsKvInService(options, transformer)) return shape;
  shape.extra_pages = options.extra_pages;
  shape.staging_pages = devices::PagesFor(ContextTokens(options, transformer));
  return shape;
}

memory::PipelineOptions PipelineOptionsOf(const EngineOptions& options,
                                          const model::Transformer& transformer) {
  memory::PipelineOptions made;
  made.layers = transformer.options().indexed_layers;
  made.shape = memory::ShapeOf(transformer);
  made.methods = options.methods;
  made.max_queries = std::min(options.max_running, options.max_batch_rows);
  made.context_tokens = ContextTokens(options, transformer);
  made.max_indexes = MaxLive(options);
  made.pages = options.kv_pages;
  made.placement = options.placement;
  made.kv_in_service = KeepsKvInService(options, transformer);
  return made;
}

RequestLimits LimitsOf(const EngineOptions& options, const model::Transformer& transformer,
                       const devices::KvCache& cache, const memory::Pipeline* pipeline) {
  return {
      .vocabulary = transformer.config().vocabulary,
      .context_tokens = ContextTokens(options, transformer),
      .kv_pages = options.kv_pages,
      .extra_pages = cache.shape().extra_pages,
      .any_placement_in_service = options.placement == memory::AttentionSettings::Placement::kMemoryService,
      .memory = pipeline == nullptr ? memory::MemoryShape() : pipeline->options().shape};
}

SchedulerOptions SchedulerOptionsOf(const EngineOptions& options, const devices::KvCache& cache) {
  return {.max_batch_rows = options.max_batch_rows,
          .max_running = options.max_running,
          .max_live = MaxLive(options),
          .kv_pages = options.kv_pages,
          .extra_pages = cache.shape().extra_pages,
          .staging_pages = cache.shape().staging_pages,
          .reserve_tokens = options.reserve_tokens,
          .prefix_cache = options.prefix_cache,
          .max_sessions = options.max_sessions,
          .hash_seed = 1 + uint64_t{std::random_device{}()}};
}

ParkingOptions ParkingOptionsOf(const EngineOptions& options) {
  return {.service_wait = options.service_wait, .kv_pages = options.kv_pages, .max_live = MaxLive(options)};
}

}  // namespace mnemo::worker
