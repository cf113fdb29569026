#include "devices/kv_cache.h"

#include <algorithm>

namespace mnemo::devices {

namespace {

int64_t GatherLayers(const KvCacheShape& shape) {
  return std::count_if(shape.gather_layers.begin(), shape.gather_layers.end(),
                       [](uint8_t gather) { return gather != 0; });
}

// Of a number of layers of either kind.
int64_t BytesOf(const KvCacheShape& shape, int64_t plain, int64_t gather) {
  const bool narrow = shape.type != KvType::kF32;
  // Planes of keys or values.
  const int64_t planes = 2 * plain + (narrow ? 3 : 2) * gather;
  return planes * shape.kv_heads * shape.head_dim * kPageTokens * (narrow ? 2 : 4);
}

}  // namespace

int64_t KvPageBytes(const KvCacheShape& shape) {
  const int64_t gather = GatherLayers(shape);
  return BytesOf(shape, shape.layers - gather, gather);
}

int64_t KvExtraPageBytes(const KvCacheShape& shape) {
  return BytesOf(shape, shape.layers - GatherLayers(shape), 0);
}

int64_t KvStagingPageBytes(const KvCacheShape& shape) { return BytesOf(shape, 0, 1); }

StoredKvForm StoredForm(KvType type) {
  return type == KvType::kF32 ? StoredKvForm::kFloat32 : StoredKvForm::kScaledKeys;
}

int64_t StoredKvBytes(StoredKvForm form, int head_dim) {
  return form == StoredKvForm::kFloat32 ? int64_t{8} * head_dim : int64_t{4} + int64_t{4} * head_dim;
}

}  // namespace mnemo::devices
