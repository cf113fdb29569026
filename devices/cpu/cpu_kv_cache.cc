#include "devices/cpu/cpu_kv_cache.h"

#include <cstring>
#include <utility>

#include "devices/tensor_type.h"

namespace mnemo::devices::cpu {
namespace {

constexpr int64_t RoundUp(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

CacheView MakeView(const KvCacheShape& shape, bool gather) {
  CacheView view;
  view.value_width = static_cast<int>(RoundUp(shape.head_dim, kTileRows));
  view.scale_offset = RoundUp(shape.head_dim, 2) * kPageTokens;
  view.value_offset = view.scale_offset + int64_t{2} * kPageTokens;
  const int64_t value_end = view.value_offset + int64_t{view.value_width} * kPageTokens;
  view.row_offset = gather ? value_end : 0;
  view.head_stride = RoundUp(gather ? 2 * value_end - view.value_offset : value_end, 32);
  view.format = shape.type == KvType::kF16 ? CacheFormat::kF16 : CacheFormat::kBF16;
  return view;
}

// A view of each layer, its base counted from nullptr; returns the elements of a page.
__int128 MakeViews(const KvCacheShape& shape, std::vector<int64_t>* offsets, std::vector<CacheView>* views) {
  __int128 offset = 0;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool gather = !shape.gather_layers.empty() && shape.gather_layers[static_cast<size_t>(layer)] != 0;
    views->push_back(MakeView(shape, gather));
    offsets->push_back(static_cast<int64_t>(offset));
    offset += static_cast<__int128>(views->back().head_stride) * shape.kv_heads;
  }
  return offset;
}

}  // namespace

CpuKvCache::CpuKvCache(const KvCacheShape& shape, CpuMemory memory, std::vector<CacheView> layers)
    : shape_(shape), memory_(std::move(memory)), layers_(std::move(layers)) {}

absl::StatusOr<std::unique_ptr<CpuKvCache>> CpuKvCache::Create(const KvCacheShape& shape) {
  static_assert(kPageTokens == kKeysPerPage);
  struct Bound {
    const char* name;
    int value;
    int largest;
  };
  const Bound bounds[] = {{"layers", shape.layers, 1 << 16},
                          {"kv_heads", shape.kv_heads, 1 << 16},
                          {"head_dim", shape.head_dim, 1024}};
  for (const Bound& bound : bounds) {
    if (bound.value < 1 || bound.value > bound.largest) {
      return InvalidArgument("KV cache: {} is {}; [1, {}] is allowed", bound.name, bound.value,
                             bound.largest);
    }
  }
  if (shape.pages < 1) return InvalidArgument("KV cache: pages is {}; at least 1 is allowed", shape.pages);
  if (shape.type == KvType::kF32) {
    return InvalidArgument("KV cache: type f32; the cpu device has f16 and bf16");
  }
  if (!shape.gather_layers.empty() && shape.gather_layers.size() != static_cast<size_t>(shape.layers)) {
    return InvalidArgument("KV cache: gather_layers has {} entries; none or {}, one a layer, are allowed",
                           shape.gather_layers.size(), shape.layers);
  }
  std::vector<int64_t> offsets;
  std::vector<CacheView> views;
  const __int128 page_stride = MakeViews(shape, &offsets, &views);
  const __int128 bytes = page_stride * shape.pages * 2;
  if (bytes > INT64_MAX) return ResourceExhausted("KV cache: {} pages are more than can be", shape.pages);
  MNEMO_ASSIGN_OR_RETURN(CpuMemory memory, CpuMemory::Create(static_cast<size_t>(bytes)));
  for (size_t layer = 0; layer < views.size(); ++layer) {
    views[layer].base = memory.as<uint16_t>() + offsets[layer];
    views[layer].page_stride = static_cast<int64_t>(page_stride);
  }
  return std::unique_ptr<CpuKvCache>(new CpuKvCache(shape, std::move(memory), std::move(views)));
}

const uint16_t* CpuKvCache::PageOf(int layer, int kv_head, int page) const {
  MNEMO_CHECK(layer >= 0 && layer < shape_.layers && kv_head >= 0 && kv_head < shape_.kv_heads);
  MNEMO_CHECK(page >= 0 && page < shape_.pages);
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  return view.base + page * view.page_stride + kv_head * view.head_stride;
}

void CpuKvCache::ReadKeys(int layer, int kv_head, int page, float* out) const {
  for (int slot = 0; slot < kPageTokens; ++slot) {
    ReadKv(layer, kv_head, page, slot, out + int64_t{slot} * shape_.head_dim, nullptr);
  }
}

void CpuKvCache::ReadKv(int layer, int kv_head, int page, int slot, float* key, float* value) const {
  MNEMO_CHECK(slot >= 0 && slot < kPageTokens);
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  const uint16_t* base = PageOf(layer, kv_head, page);
  if (key != nullptr) {
    float scale = 0;
    std::memcpy(&scale, base + view.scale_offset + slot * 2, sizeof scale);
    const uint16_t* row = base + view.row_offset + int64_t{slot} * view.value_width;
    for (int d = 0; d < shape_.head_dim; ++d) {
      const uint16_t stored = view.row_offset != 0 ? row[d] : base[(d / 2 * kPageTokens + slot) * 2 + d % 2];
      key[d] = scale * static_cast<float>(static_cast<int16_t>(stored));
    }
  }
  if (value != nullptr) {
    const uint16_t* row = base + view.value_offset + int64_t{slot} * view.value_width;
    for (int d = 0; d < shape_.head_dim; ++d) {
      value[d] = view.format == CacheFormat::kF16 ? HalfToFloat(row[d]) : Bfloat16ToFloat(row[d]);
    }
  }
}

}  // namespace mnemo::devices::cpu
