#pragma once

#include <cstdint>

namespace mnemo::devices {

// What values are stored as. A device may keep keys in a form of its own that is as precise and about as
// large.
enum class KvType : uint32_t { kF32 = 0, kF16 = 1, kBF16 = 2 };

// A pool of pages; a page holds kv_page_tokens consecutive positions of one sequence, for all layers and KV
// heads. Position p of a sequence lives in its page p / kPageTokens at slot p % kPageTokens.
inline constexpr int kPageTokens = 64;

struct KvCacheShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int pages = 0;
  KvType type = KvType::kF16;
};

// Bytes of K and V of one page.
int64_t KvPageBytes(const KvCacheShape& shape);

// Made by Device::CreateKvCache; the layout within a page is the device's own. Memory starts zeroed: a slot
// that was never written holds finite numbers.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual const KvCacheShape& shape() const = 0;
};

}  // namespace mnemo::devices
