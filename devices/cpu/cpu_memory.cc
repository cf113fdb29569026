#include "devices/cpu/cpu_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "devices/base/mapping.h"

namespace mnemo::devices::cpu {

CpuMemory::CpuMemory(CpuMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

CpuMemory& CpuMemory::operator=(CpuMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

CpuMemory::~CpuMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

absl::StatusOr<CpuMemory> CpuMemory::Create(size_t bytes) {
  constexpr size_t kLargePage = size_t{2} << 20;
  CpuMemory memory;
  memory.bytes_ = std::max<size_t>(bytes, 1);
  // Large pages begin at multiples of their size, so the length is rounded up.
  if (memory.bytes_ >= kLargePage / 2 && memory.bytes_ <= SIZE_MAX - kLargePage) {
    memory.bytes_ = (memory.bytes_ + kLargePage - 1) / kLargePage * kLargePage;
  }
  void* data = mmap(nullptr, memory.bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return ResourceExhausted("{} bytes of memory are not to be had", bytes);
  memory.data_ = data;
  // The call is a hint; failure is harmless.
  madvise(data, memory.bytes_, MADV_HUGEPAGE);
  KeepOutOfCores(data, memory.bytes_);
  return memory;
}

}  // namespace mnemo::devices::cpu
