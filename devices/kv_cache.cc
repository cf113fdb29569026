#include "devices/kv_cache.h"

namespace mnemo::devices {

int64_t KvPageBytes(const KvCacheShape& shape) {
  const int64_t element_bytes = shape.type == KvType::kF32 ? 4 : 2;
  // Planes of keys or values.
  int64_t planes = int64_t{2} * shape.layers;
  if (shape.type != KvType::kF32) {
    for (uint8_t gather : shape.gather_layers) planes += gather != 0 ? 1 : 0;
  }
  return planes * shape.kv_heads * shape.head_dim * kPageTokens * element_bytes;
}

}  // namespace mnemo::devices
