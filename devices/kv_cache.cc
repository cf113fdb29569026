#include "devices/kv_cache.h"

namespace mnemo::devices {

int64_t KvPageBytes(const KvCacheShape& shape) {
  const int64_t element_bytes = shape.type == KvType::kF32 ? 4 : 2;
  return int64_t{2} * shape.layers * shape.kv_heads * shape.head_dim * kPageTokens * element_bytes;
}

}  // namespace mnemo::devices
