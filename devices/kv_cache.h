#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace mnemo::devices {

// Storage type of values. A device may store keys in its own form of about the same precision and size. kQ8
// stores keys (rotated, devices/cpu/kernels.h) and values as integers in [-127, 127], with a scale per token
// and KV head.
enum class KvType : uint32_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8 = 3 };
// Names as in the configuration: "f32", "f16", "bf16", "q8".
const char* KvTypeName(KvType type);
std::optional<KvType> KvTypeOfName(std::string_view name);

// Tokens of a page. The cache is a pool of pages. A page holds kPageTokens consecutive positions of one
// sequence, for all layers and KV heads; extra_pages and staging_pages are the exceptions. Position p of a
// sequence is in its page p / kPageTokens, at slot p % kPageTokens.
inline constexpr int kPageTokens = 64;

// Number of pages that hold `positions` positions.
constexpr int PagesFor(int64_t positions) {
  return static_cast<int>((positions + kPageTokens - 1) / kPageTokens);
}

struct KvCacheShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int pages = 0;
  KvType type = KvType::kF16;
  // [layers]: 1 where attention will read single tokens (SparseSelection with entry_tokens 1). Empty: no such
  // layer. A device may keep a second copy of such a layer's keys in a form that is fast to read token by
  // token. Without it, results are the same but slower.
  std::vector<uint8_t> gather_layers;
  // Additional pages that hold only the layers that are not gather layers, with ids [pages, pages +
  // extra_pages). They serve sequences whose keys and values of gather layers are stored elsewhere.
  int extra_pages = 0;
  // Pages [pages, pages + staging_pages) of gather layers. All gather layers share this memory: data copied
  // there for one layer is lost when the next layer's arrives. CopyIn writes it, only attention reads it.
  int staging_pages = 0;

  bool IsGather(int layer) const {
    return !gather_layers.empty() && gather_layers[static_cast<size_t>(layer)] != 0;
  }
  // One past the last page id of a layer.
  int64_t PagesEnd(int layer) const {
    return int64_t{pages} + (IsGather(layer) ? staging_pages : extra_pages);
  }
};

// Bytes of K and V of one page, including the second copy of keys where there is one (never with kF32).
int64_t KvPageBytes(const KvCacheShape& shape);
// Bytes of one extra page, and of one staging page.
int64_t KvExtraPageBytes(const KvCacheShape& shape);
int64_t KvStagingPageBytes(const KvCacheShape& shape);

// Format that CopyOut writes for one slot and KV head: K and V as stored, bit by bit.
enum class StoredKvForm : uint32_t {
  // float32 key[head_dim], value[head_dim].
  kFloat32 = 0,
  // float32 scale; int16 key[head_dim], to be multiplied by the scale; 16-bit value[head_dim].
  kScaledKeys = 1,
  // uint32 scales: the word as float32 is the key's scale, its low half as BF16 the value's scale. Then uint8
  // key[head_dim], offset by +128 from the integer to multiply, and int8 value[head_dim].
  kScaledBytes = 2,
};
// Returns the form of a cache of this type, the same on every device.
StoredKvForm StoredForm(KvType type);
// Returns the bytes of one slot and KV head in the form.
int64_t StoredKvBytes(StoredKvForm form, int head_dim);

// Made by Device::CreateKvCache; the layout within a page is the device's own. Memory starts zeroed, so a
// slot that was never written holds finite numbers.
//
// A read is a pure function of the stored bits. Several threads may read at once, also while other slots are
// written. `page` must be in [0, shape().pages).
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual const KvCacheShape& shape() const = 0;
  // Reads the keys of a page, after rotary embedding, into out [kPageTokens, head_dim].
  virtual void ReadKeys(int layer, int kv_head, int page, float* out) const = 0;
  // Reads key and value of one slot, [head_dim] each; either may be nullptr.
  virtual void ReadKv(int layer, int kv_head, int page, int slot, float* key, float* value) const = 0;

  // CopyOut and CopyIn move K and V out of the cache and back without loss. They transfer [count] items of
  // StoredKvBytes bytes in StoredForm, for consecutive slots of one page from `slot` on. CopyIn also writes
  // staging pages.
  virtual void CopyOut(int layer, int kv_head, int page, int slot, int count, uint8_t* out) const = 0;
  virtual void CopyIn(int layer, int kv_head, int page, int slot, int count, const uint8_t* in) = 0;
};

}  // namespace mnemo::devices
