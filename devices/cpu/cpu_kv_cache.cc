#include "devices/cpu/cpu_kv_cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "devices/base/range.h"
#include "devices/tensor_type.h"

namespace mnemo::devices::cpu {
namespace {

constexpr int64_t RoundUp(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

CacheView MakeView(const KvCacheShape& shape, bool gather) {
  const bool bytes = shape.type == KvType::kQ8;
  CacheView view;
  view.value_width = static_cast<int>(RoundUp(shape.head_dim, kTileRows));
  view.row_stride = bytes ? view.value_width / 2 : view.value_width;
  view.scale_offset =
      bytes ? RoundUp(shape.head_dim, 4) / 2 * kPageTokens : RoundUp(shape.head_dim, 2) * kPageTokens;
  view.value_offset = view.scale_offset + int64_t{2} * kPageTokens;
  const int64_t value_end = view.value_offset + int64_t{view.row_stride} * kPageTokens;
  view.row_offset = gather ? value_end : 0;
  view.head_stride = RoundUp(gather ? 2 * value_end - view.value_offset : value_end, 32);
  view.format = bytes                        ? CacheFormat::kQ8
                : shape.type == KvType::kF16 ? CacheFormat::kF16
                                             : CacheFormat::kBF16;
  return view;
}

// Undoes the rotation of 8-bit keys (CacheView): the Walsh-Hadamard transform is its own inverse.
void RotateBack(float* key, int head_dim) {
  const int block = RotatedBlock(head_dim);
  for (int half = 1; half < block; half *= 2) {
    for (int i = 0; i < head_dim; i += 2 * half) {
      for (int j = i; j < i + half; ++j) {
        const float a = key[j];
        const float b = key[j + half];
        key[j] = a + b;
        key[j + half] = a - b;
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(block));
  for (int d = 0; d < head_dim; ++d) key[d] *= scale;
}

// Division of the cache's memory: the pages of each plain layer, those of each gather layer, then staging
// pages. The pages of one layer are contiguous, since an operation reads a sequence's pages of one layer, and
// most of them are adjacent. Decoding 8 x 8,000 tokens with q8 is 6 % faster than with all layers of a page
// together.
struct Plan {
  // View of each layer, without addresses.
  std::vector<CacheView> views;
  std::vector<int64_t> base_offsets;
  int64_t staging_offset = 0;
  // Size in elements of 16 bits.
  __int128 elements = 0;
};

Plan MakePlan(const KvCacheShape& shape) {
  Plan plan;
  const __int128 plain_pages = static_cast<__int128>(shape.pages) + shape.extra_pages;
  // Offset of each layer within its part.
  std::vector<__int128> offsets;
  // Total size of the plain layers and of the gather layers.
  __int128 elements[2] = {0, 0};
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool gather = shape.IsGather(layer);
    CacheView& view = plan.views.emplace_back(MakeView(shape, gather));
    view.page_stride = view.head_stride * shape.kv_heads;
    view.pages = static_cast<int32_t>(gather ? shape.pages : plain_pages);
    offsets.push_back(elements[gather ? 1 : 0]);
    elements[gather ? 1 : 0] += static_cast<__int128>(view.page_stride) * view.pages;
  }
  const __int128 staging_begin = elements[0] + elements[1];
  plan.elements = staging_begin;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool gather = shape.IsGather(layer);
    CacheView& view = plan.views[static_cast<size_t>(layer)];
    plan.base_offsets.push_back(
        static_cast<int64_t>(offsets[static_cast<size_t>(layer)] + (gather ? elements[0] : 0)));
    if (!gather || shape.staging_pages == 0) continue;
    plan.staging_offset = static_cast<int64_t>(staging_begin);
    view.staging_stride = view.page_stride;
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
    MNEMO_RETURN_IF_ERROR(CheckRange(fmt::format("KV cache: {}", bound.name), bound.value, 1, bound.largest));
  }
  if (shape.pages < 1) return InvalidArgument("KV cache: pages is {}; at least 1 is allowed", shape.pages);
  if (shape.type == KvType::kF32) {
    return InvalidArgument("KV cache: type f32; the cpu device has f16, bf16 and q8");
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

// Positions of a key's elements in the first form of its page.
struct CpuKvCache::KeyColumns {
  explicit KeyColumns(CacheFormat format)
      : element_bytes(format == CacheFormat::kQ8 ? 1 : 2), elements(4 / element_bytes) {}
  // Returns the offset in bytes from the head's first key to elements [d, d + elements) of the key of a slot;
  // these are 4 bytes.
  size_t At(int d, int slot) const {
    return static_cast<size_t>((d * kPageTokens + slot * elements) * element_bytes);
  }

  int element_bytes;
  // Number of elements of a key that are adjacent.
  int elements;
};

void CpuKvCache::CopyOut(int layer, int kv_head, int page, int slot, int count, uint8_t* out) const {
  MNEMO_CHECK(slot >= 0 && count >= 0 && slot + count <= kPageTokens);
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  const uint16_t* base = PageOf(layer, kv_head, page);
  const KeyColumns columns(view.format);
  const int row_bytes = shape_.head_dim * columns.element_bytes;
  for (int s = slot; s < slot + count; ++s) {
    std::memcpy(out, base + view.scale_offset + s * 2, sizeof(float));
    out += sizeof(float);
    if (view.row_offset != 0) {
      std::memcpy(out, base + view.row_offset + int64_t{s} * view.row_stride, static_cast<size_t>(row_bytes));
    } else {
      const auto* keys = reinterpret_cast<const uint8_t*>(base);
      for (int d = 0; d < shape_.head_dim; d += columns.elements) {
        const int done = d * columns.element_bytes;
        std::memcpy(out + done, keys + columns.At(d, s), static_cast<size_t>(std::min(4, row_bytes - done)));
      }
    }
    out += row_bytes;
    std::memcpy(out, base + view.value_offset + int64_t{s} * view.row_stride, static_cast<size_t>(row_bytes));
    out += row_bytes;
  }
}

void CpuKvCache::CopyIn(int layer, int kv_head, int page, int slot, int count, const uint8_t* in) {
  MNEMO_CHECK(slot >= 0 && count >= 0 && slot + count <= kPageTokens);
  const CacheView& view = layers_[static_cast<size_t>(layer)];
  uint16_t* base = PageOf(layer, kv_head, page);
  const KeyColumns columns(view.format);
  const int row_bytes = shape_.head_dim * columns.element_bytes;
  for (int s = slot; s < slot + count; ++s) {
    std::memcpy(base + view.scale_offset + s * 2, in, sizeof(float));
    in += sizeof(float);
    auto* keys = reinterpret_cast<uint8_t*>(base);
    for (int d = 0; d < shape_.head_dim; d += columns.elements) {
      const int done = d * columns.element_bytes;
      std::memcpy(keys + columns.At(d, s), in + done, static_cast<size_t>(std::min(4, row_bytes - done)));
    }
    if (view.row_offset != 0) {
      std::memcpy(base + view.row_offset + int64_t{s} * view.row_stride, in, static_cast<size_t>(row_bytes));
    }
    in += row_bytes;
    std::memcpy(base + view.value_offset + int64_t{s} * view.row_stride, in, static_cast<size_t>(row_bytes));
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
  uint32_t scales = 0;
  std::memcpy(&scales, base + view.scale_offset + slot * 2, sizeof scales);
  if (key != nullptr) {
    const float scale = std::bit_cast<float>(scales);
    const KeyColumns columns(view.format);
    const auto* keys = reinterpret_cast<const uint8_t*>(base);
    const auto* row =
        reinterpret_cast<const uint8_t*>(base + view.row_offset + int64_t{slot} * view.row_stride);
    for (int d = 0; d < shape_.head_dim; ++d) {
      const int together = d % columns.elements;
      const uint8_t* stored = view.row_offset != 0
                                  ? row + d * columns.element_bytes
                                  : keys + columns.At(d - together, slot) + together * columns.element_bytes;
      int16_t fixed = 0;
      if (view.format == CacheFormat::kQ8) {
        fixed = static_cast<int16_t>(*stored - 128);
      } else {
        std::memcpy(&fixed, stored, sizeof fixed);
      }
      key[d] = scale * static_cast<float>(fixed);
    }
    if (view.format == CacheFormat::kQ8) RotateBack(key, shape_.head_dim);
  }
  if (value != nullptr) {
    const uint16_t* row = base + view.value_offset + int64_t{slot} * view.row_stride;
    const auto* bytes = reinterpret_cast<const int8_t*>(row);
    const float scale = std::bit_cast<float>(scales << 16);
    for (int d = 0; d < shape_.head_dim; ++d) {
      value[d] = view.format == CacheFormat::kF16    ? HalfToFloat(row[d])
                 : view.format == CacheFormat::kBF16 ? Bfloat16ToFloat(row[d])
                                                     : scale * static_cast<float>(bytes[d]);
    }
  }
}

}  // namespace mnemo::devices::cpu
