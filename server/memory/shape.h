// What memory processing has to know of a model and its cache.
#pragma once

#include <cstdint>
#include <vector>

#include "devices/kv_cache.h"
#include "server/memory/method.h"

namespace mnemo::model {
struct ModelConfig;
class Transformer;
}  // namespace mnemo::model

namespace mnemo::memory {

// The layout::Format of K and V that come from, and go to, a cache of this type.
uint32_t KvFormat(devices::KvType type);
// Of a transformer that was made with indexed layers.
MemoryShape ShapeOf(const model::Transformer& transformer);
// Full-attention layers of the model but the first `dense_layers` of them, ascending.
std::vector<int> IndexedLayers(const model::ModelConfig& config, int dense_layers);

}  // namespace mnemo::memory
