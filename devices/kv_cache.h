#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace mnemo::devices {

// What values are stored as. A device may keep keys in a form of its own that is as precise and about as
// large. kQ8: keys (rotated,
// devices/cpu/kernels.h) and values as integers in [-127, 127], with a scale for each token and KV head.
enum class KvType : uint32_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8 = 3 };
// As in the configuration: "f32", "f16", "bf16", "q8".
const char* KvTypeName(KvType type);
std::optional<KvType> KvTypeOfName(std::string_view name);

// A pool of pages; a page holds kv_page_tokens consecutive positions of one sequence, for all layers and KV
// heads (but see extra_pages and staging_pages). Position p of a sequence lives in its page p / kPageTokens
// at slot p % kPageTokens.
inline constexpr int kPageTokens = 64;

// Pages that hold so many positions.
constexpr int PagesFor(int64_t positions) {
  return static_cast<int>((positions + kPageTokens - 1) / kPageTokens);
}

struct KvCacheShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int pages = 0;
  KvType type = KvType::kF16;
  // [layers], 1 where attention will read single tokens (SparseSelection with entry_tokens 1), or empty for
  // none. A device may keep such a layer's keys a second time, in a form that is fast to read so; without
  // this the same results come slowly.
  std::vector<uint8_t> gather_layers;
  // More pages of the layers that are not gather layers: ids [pages, pages + extra_pages). For sequences
  // whose keys and values of gather layers are kept elsewhere.
  int extra_pages = 0;
  // Pages [pages, pages + staging_pages) of gather layers: one memory for all of these layers, so that what
  // was copied there for one layer is gone when the next one is. Only read by attention, written by CopyIn.
  int staging_pages = 0;

  bool IsGather(int layer) const {
    return !gather_layers.empty() && gather_layers[static_cast<size_t>(layer)] != 0;
  }
  // One past the last page of a layer.
  int64_t PagesEnd(int layer) const {
    return int64_t{pages} + (IsGather(layer) ? staging_pages : extra_pages);
  }
};

// Bytes of K and V of one page, with the second form of keys where there is one (not with kF32).
int64_t KvPageBytes(const KvCacheShape& shape);
// Bytes of one of the extra pages, and of a staging page.
int64_t KvExtraPageBytes(const KvCacheShape& shape);
int64_t KvStagingPageBytes(const KvCacheShape& shape);

// What CopyOut gives of one slot and KV head: K and V as they are stored, bit by bit.
enum class StoredKvForm : uint32_t {
  kFloat32 = 0,     // float32 key[head_dim], value[head_dim]
  kScaledKeys = 1,  // float32 scale; int16 key[head_dim], to be multiplied by it; 16-bit value[head_dim]
  // uint32 scales: as float32 the key's, its low half as BF16 the value's; uint8 key[head_dim], 128 more than
  // what is to be multiplied; int8 value[head_dim]
  kScaledBytes = 2,
};
// Of a cache of this type, on every device.
StoredKvForm StoredForm(KvType type);
int64_t StoredKvBytes(StoredKvForm form, int head_dim);

// Made by Device::CreateKvCache; the layout within a page is the device's own. Memory starts zeroed: a slot
// that was never written holds finite numbers.
//
// What is read back is a function of the bits stored, the same on each call. Several threads may read at
// once, also while other slots are written; page must be in [0, shape().pages).
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual const KvCacheShape& shape() const = 0;
  // The keys of a page, after rotary embedding: out is [kPageTokens, head_dim].
  virtual void ReadKeys(int layer, int kv_head, int page, float* out) const = 0;
  // Key and value of one slot, [head_dim] each; either may be nullptr.
  virtual void ReadKv(int layer, int kv_head, int page, int slot, float* key, float* value) const = 0;

  // Moves K and V out of the cache and back, without loss: [count] of
  // StoredKvBytes of StoredForm, slots from `slot` on of
  // one page. CopyIn also writes staging pages.
  virtual void CopyOut(int layer, int kv_head, int page, int slot, int count, uint8_t* out) const = 0;
  virtual void CopyIn(int layer, int kv_head, int page, int slot, int count, const uint8_t* in) = 0;
};

}  // namespace mnemo::devices
