#include "devices/kv_cache.h"

#include <algorithm>

namespace mnemo::devices {

namespace {

int64_t GatherLayers(const KvCacheShape& shape) {
  return std::count_if(shape.gather_layers.begin(), shape.gather_layers.end(),
                       [](uint8_t gather) { return gather != 0; });
}

// Returns the bytes for a number of plain layers and a number of gather layers.
int64_t BytesOf(const KvCacheShape& shape, int64_t plain, int64_t gather) {
  const bool scaled = shape.type != KvType::kF32;
  const int64_t element = shape.type == KvType::kQ8 ? 1 : scaled ? 2 : 4;
  // Planes of keys or values.
  const int64_t planes = 2 * plain + (scaled ? 3 : 2) * gather;
  const int64_t scales = scaled ? (plain + gather) * int64_t{sizeof(float)} : 0;
  return (planes * shape.head_dim * element + scales) * shape.kv_heads * kPageTokens;
}

}  // namespace

const char* KvTypeName(KvType type) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8"};
  return kNames[static_cast<size_t>(type)];
}

std::optional<KvType> KvTypeOfName(std::string_view name) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8}) {
    if (name == KvTypeName(type)) return type;
  }
  return std::nullopt;
}

int64_t KvPageBytes(const KvCacheShape& shape) {
  const int64_t gather = GatherLayers(shape);
  return BytesOf(shape, shape.layers - gather, gather);
}

int64_t KvExtraPageBytes(const KvCacheShape& shape) {
  return BytesOf(shape, shape.layers - GatherLayers(shape), 0);
}

int64_t KvStagingPageBytes(const KvCacheShape& shape) { return BytesOf(shape, 0, 1); }

StoredKvForm StoredForm(KvType type) {
  switch (type) {
    case KvType::kF32:
      return StoredKvForm::kFloat32;
    case KvType::kF16:
    case KvType::kBF16:
      return StoredKvForm::kScaledKeys;
    case KvType::kQ8:
      return StoredKvForm::kScaledBytes;
  }
  return StoredKvForm::kFloat32;
}

int64_t StoredKvBytes(StoredKvForm form, int head_dim) {
  switch (form) {
    case StoredKvForm::kFloat32:
      return int64_t{8} * head_dim;
    case StoredKvForm::kScaledKeys:
      return int64_t{4} + int64_t{4} * head_dim;
    case StoredKvForm::kScaledBytes:
      return int64_t{4} + int64_t{2} * head_dim;
  }
  return 0;
}

}  // namespace mnemo::devices
