// Shape of a model and its cache, as memory processing needs it.
#pragma once

#include <cstdint>

#include "devices/base/status.h"
#include "devices/kv_cache.h"
#include "server/memory/attention_settings.h"
#include "server/memory/indexed_layers.h"

namespace mnemo::model {
class Transformer;
}

namespace mnemo::memory {

// Figures of a model's indexed layers.
struct MemoryShape {
  int layers = 0;  // indexed ones
  int kv_heads = 0;
  int group = 0;  // query heads of a KV head
  int head_dim = 0;
  float softmax_scale = 0;
};

// The layout::Format of K and V that come from, and go to, a cache of this type.
uint32_t KvFormat(devices::KvType type);
// `transformer` was made with indexed layers.
MemoryShape ShapeOf(const model::Transformer& transformer);

// Whether the model can attend as the settings say. Errors as methods::CheckSettings; UNIMPLEMENTED: the
// model takes no sparse method (server/memory/indexed_layers.h).
absl::Status CheckSettings(const AttentionSettings& settings, const MemoryShape& shape);

}  // namespace mnemo::memory
