// Zeroed memory that the kernel allocates on first touch, in large pages where available.
#pragma once

#include <cstddef>

#include "devices/base/status.h"

namespace mnemo::devices::cpu {

// Page-aligned. Move-only; unmapped when destroyed.
class CpuMemory {
 public:
  CpuMemory() = default;
  CpuMemory(CpuMemory&& other) noexcept;
  CpuMemory& operator=(CpuMemory&& other) noexcept;
  CpuMemory(const CpuMemory&) = delete;
  CpuMemory& operator=(const CpuMemory&) = delete;
  ~CpuMemory();

  // RESOURCE_EXHAUSTED when the system refuses.
  static absl::StatusOr<CpuMemory> Create(size_t bytes);

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mnemo::devices::cpu
