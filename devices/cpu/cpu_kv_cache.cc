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

// What the cache's memory is made of: pages of plain layers, pages of gather layers, staging pages.
struct Plan {
  std::vector<CacheView> views;  // of each layer, without the addresses
  std::vector<int64_t> base_offsets;
  int64_t staging_offset = 0;
  __int128 elements = 0;  // of 16 bits
};

Plan MakePlan(const KvCacheShape& shape) {
  Plan plan;
  std::vector<__int128> offsets;  // of a layer in a page of its kind
  __int128 strides[2] = {0, 0};
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool gather = shape.IsGather(layer);
    plan.views.push_back(MakeView(shape, gather));
    offsets.push_back(strides[gather ? 1 : 0]);
    strides[gather ? 1 : 0] += static_cast<__int128>(plan.views.back().head_stride) * shape.kv_heads;
  }
  const __int128 plain_pages = static_cast<__int128>(shape.pages) + shape.extra_pages;
  const __int128 gather_begin = strides[0] * plain_pages;
  const __int128 staging_begin = gather_begin + strides[1] * shape.pages;
  plan.elements = staging_begin;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool gather = shape.IsGather(layer);
    CacheView& view = plan.views[static_cast<size_t>(layer)];
    view.page_stride = static_cast<int64_t>(strides[gather ? 1 : 0]);
    plan.base_offsets.push_back(
        static_cast<int64_t>(offsets[static_cast<size_t>(layer)] + (gather ? gather_begin : 0)));
    view.pages = static_cast<int32_t>(gather ? shape.pages : plain_pages);
    if (!gather || shape.staging_pages == 0) continue;
    plan.staging_offset = static_cast<int64_t>(staging_begin);
    view.staging_stride = view.head_stride * shape.kv_heads;
    plan.elements = staging_begin + static_cast<__int128>(view.staging_stride) * shape.staging_pages;
  }
  return plan;
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
  if (shape.extra_pages < 0 || shape.staging_pages < 0 || shape.pages > INT32_MAX - shape.extra_pages ||
      shape.pages > INT32_MAX - shape.staging_pages) {
    return InvalidArgument("KV cache: {} extra and {} staging pages; [0, {}] are allowed", shape.extra_pages,
                           shape.staging_pages, INT32_MAX - shape.pages);
  }
  Plan plan = MakePlan(shape);
  if (plan.elements * 2 > INT64_MAX)
    return ResourceExhausted("KV cache: {} pages are more than can be", shape.pages);
  MNEMO_ASSIGN_OR_RETURN(CpuMemory memory, CpuMemory::Create(static_cast<size_t>(plan.elements * 2)));
  for (size_t layer = 0; layer < plan.views.size(); ++layer) {
    plan.views[layer].base = memory.as<uint16_t>() + plan.base_offsets[layer];
    if (plan.views[layer].staging_stride != 0) {
      plan.views[layer].staging = memory.as<uint16_t>() + plan.staging_offset;
    }
  }
  return std::unique_ptr<CpuKvCache>(new CpuKvCache(shape, std::move(memory), std::move(plan.views)));
}

uint16_t* CpuKvCache::PageOf(int layer, int kv_head, int page) const {
  MNEMO_CHECK(layer >= 0 && layer < shape_.layers && kv_head >= 0 && kv_head < shape_.kv_heads);
  MNEMO_CHECK(page >= 0 && page < shape_.PagesEnd(layer));
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  return view.Page(page) + kv_head * view.head_stride;
}

void CpuKvCache::CopyOut(int layer, int kv_head, int page, int slot, int count, uint8_t* out) const {
  MNEMO_CHECK(slot >= 0 && count >= 0 && slot + count <= kPageTokens);
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  const uint16_t* base = PageOf(layer, kv_head, page);
  const size_t row_bytes = static_cast<size_t>(shape_.head_dim) * sizeof(uint16_t);
  for (int s = slot; s < slot + count; ++s) {
    std::memcpy(out, base + view.scale_offset + s * 2, sizeof(float));
    out += sizeof(float);
    if (view.row_offset != 0) {
      std::memcpy(out, base + view.row_offset + int64_t{s} * view.value_width, row_bytes);
    } else {
      auto* key = out;
      for (int d = 0; d < shape_.head_dim; ++d, key += sizeof(uint16_t))
        std::memcpy(key, base + (d / 2 * kPageTokens + s) * 2 + d % 2, sizeof(uint16_t));
    }
    out += row_bytes;
    std::memcpy(out, base + view.value_offset + int64_t{s} * view.value_width, row_bytes);
    out += row_bytes;
  }
}

void CpuKvCache::CopyIn(int layer, int kv_head, int page, int slot, int count, const uint8_t* in) {
  MNEMO_CHECK(slot >= 0 && count >= 0 && slot + count <= kPageTokens);
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  uint16_t* base = PageOf(layer, kv_head, page);
  const size_t row_bytes = static_cast<size_t>(shape_.head_dim) * sizeof(uint16_t);
  for (int s = slot; s < slot + count; ++s) {
    std::memcpy(base + view.scale_offset + s * 2, in, sizeof(float));
    in += sizeof(float);
    for (int d = 0; d + 1 < shape_.head_dim; d += 2)
      std::memcpy(base + (d / 2 * kPageTokens + s) * 2, in + static_cast<size_t>(d) * 2, 4);
    if (shape_.head_dim % 2 != 0) {
      const int d = shape_.head_dim - 1;
      std::memcpy(base + (d / 2 * kPageTokens + s) * 2, in + static_cast<size_t>(d) * 2, 2);
    }
    if (view.row_offset != 0)
      std::memcpy(base + view.row_offset + int64_t{s} * view.value_width, in, row_bytes);
    in += row_bytes;
    std::memcpy(base + view.value_offset + int64_t{s} * view.value_width, in, row_bytes);
    in += row_bytes;
  }
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
