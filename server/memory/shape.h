// What memory processing has to know of a model and its cache.
#pragma once

#include <cstdint>

#include "devices/kv_cache.h"
#include "server/memory/indexed_layers.h"
#include "server/memory/method.h"

namespace mnemo::model {
class Transformer;
}

namespace mnemo::memory {

// The layout::Format of K and V that come from, and go to, a cache of this type.
uint32_t KvFormat(devices::KvType type);
// Of a transformer that was made with indexed layers.
MemoryShape ShapeOf(const model::Transformer& transformer);

}  // namespace mnemo::memory
