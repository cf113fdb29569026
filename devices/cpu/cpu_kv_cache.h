// The paged key and value cache of the CPU device (see CacheView in kernels.h for the layout of a page).
#pragma once

#include <memory>

#include "devices/cpu/cpu_memory.h"
#include "devices/cpu/kernels.h"
#include "devices/kv_cache.h"

namespace mnemo::devices::cpu {

class CpuKvCache final : public KvCache {
 public:
  // INVALID_ARGUMENT names the figure that is out of range; RESOURCE_EXHAUSTED when memory is not there.
  static absl::StatusOr<std::unique_ptr<CpuKvCache>> Create(const KvCacheShape& shape);

  const KvCacheShape& shape() const override { return shape_; }
  CacheView View(int layer) const;

 private:
  CpuKvCache(const KvCacheShape& shape, CpuMemory memory);

  KvCacheShape shape_;
  CpuMemory memory_;
  CacheView first_layer_;
};

}  // namespace mnemo::devices::cpu
