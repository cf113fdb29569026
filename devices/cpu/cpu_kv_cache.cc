#include "devices/cpu/cpu_kv_cache.h"

#include <utility>

namespace mnemo::devices::cpu {
namespace {

constexpr int64_t RoundUp(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

CacheView MakeView(const KvCacheShape& shape, uint16_t* base) {
  CacheView view;
  view.base = base;
  view.value_stride = static_cast<int>(RoundUp(shape.head_dim, kTileRows));
  view.scale_offset = RoundUp(shape.head_dim, 2) * kPageTokens;
  view.value_offset = view.scale_offset + int64_t{2} * kPageTokens;
  view.head_stride = RoundUp(view.value_offset + int64_t{view.value_stride} * kPageTokens, 32);
  view.page_stride = view.head_stride * shape.kv_heads * shape.layers;
  view.format = shape.type == KvType::kF16 ? CacheFormat::kF16 : CacheFormat::kBF16;
  return view;
}

}  // namespace

CpuKvCache::CpuKvCache(const KvCacheShape& shape, CpuMemory memory)
    : shape_(shape), memory_(std::move(memory)), first_layer_(MakeView(shape, memory_.as<uint16_t>())) {}

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
  const __int128 bytes = static_cast<__int128>(MakeView(shape, nullptr).page_stride) * shape.pages * 2;
  if (bytes > INT64_MAX) return ResourceExhausted("KV cache: {} pages are more than can be", shape.pages);
  MNEMO_ASSIGN_OR_RETURN(CpuMemory memory, CpuMemory::Create(static_cast<size_t>(bytes)));
  return std::unique_ptr<CpuKvCache>(new CpuKvCache(shape, std::move(memory)));
}

CacheView CpuKvCache::View(int layer) const {
  CacheView view = first_layer_;
  view.base += first_layer_.head_stride * shape_.kv_heads * layer;
  return view;
}

}  // namespace mnemo::devices::cpu
