// One sequence's pages as a client reads them: keys for records, K and V for the memory service to keep.
#pragma once

#include <cstdint>
#include <span>

#include "devices/kv_cache.h"
#include "server/memory/memory_client.h"

namespace mnemo::memory {

// One sequence's pages, read from the cache: its keys in float32, or K and V as they are stored.
class CacheSource final : public KeySource, public KvSource {
 public:
  CacheSource(const devices::KvCache* cache, std::span<const int> layers, std::span<const int32_t> pages)
      : cache_(cache), layers_(layers), pages_(pages) {}
  void Read(int page, int slot, int kv_head, float* keys) const override {
    cache_->ReadKeys(layers_[static_cast<size_t>(slot)], kv_head, pages_[static_cast<size_t>(page)], keys);
  }
  void Read(int page, int slot, int kv_head, uint8_t* kv) const override {
    cache_->CopyOut(layers_[static_cast<size_t>(slot)], kv_head, pages_[static_cast<size_t>(page)], 0,
                    devices::kPageTokens, kv);
  }

 private:
  const devices::KvCache* cache_;
  std::span<const int> layers_;
  std::span<const int32_t> pages_;
};

}  // namespace mnemo::memory
