// The paged key and value cache of the CPU device (see CacheView in kernels.h for the layout of a page).
#pragma once

#include <memory>
#include <vector>

#include "devices/cpu/cpu_memory.h"
#include "devices/cpu/kernels.h"
#include "devices/kv_cache.h"

namespace mnemo::devices::cpu {

class CpuKvCache final : public KvCache {
 public:
  // INVALID_ARGUMENT names the figure that is out of range; RESOURCE_EXHAUSTED when there is not enough
  // memory.
  static absl::StatusOr<std::unique_ptr<CpuKvCache>> Create(const KvCacheShape& shape);

  const KvCacheShape& shape() const override { return shape_; }
  void ReadKeys(int layer, int kv_head, int page, float* out) const override;
  void ReadKv(int layer, int kv_head, int page, int slot, float* key, float* value) const override;
  void CopyOut(int layer, int kv_head, int page, int slot, int count, uint8_t* out) const override;
  void CopyIn(int layer, int kv_head, int page, int slot, int count, const uint8_t* in) override;

  CacheView View(int layer) const { return layers_[static_cast<size_t>(layer)]; }

 private:
  struct KeyColumns;
  CpuKvCache(const KvCacheShape& shape, CpuMemory memory, std::vector<CacheView> layers);
  // Returns the first key of the KV head and page.
  uint16_t* PageOf(int layer, int kv_head, int page) const;

  KvCacheShape shape_;
  CpuMemory memory_;
  std::vector<CacheView> layers_;
};

}  // namespace mnemo::devices::cpu
