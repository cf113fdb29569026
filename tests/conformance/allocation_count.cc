// Replaces operator new by one that counts. The file holds nothing else, so that the compiler does not warn
// of a replaced new paired with free.
#include "tests/conformance/allocation_count.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<uint64_t> count{0};

void* Count(size_t bytes, size_t alignment) noexcept {
  count.fetch_add(1, std::memory_order_relaxed);
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes);
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* CountOrThrow(size_t bytes, size_t alignment) {
  if (void* memory = Count(bytes, alignment)) return memory;
  throw std::bad_alloc();
}

}  // namespace

namespace mnemo::conformance {
uint64_t AllocationCount() { return count.load(std::memory_order_relaxed); }
}  // namespace mnemo::conformance

void* operator new(size_t bytes) { return CountOrThrow(bytes, 1); }
void* operator new[](size_t bytes) { return CountOrThrow(bytes, 1); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return Count(bytes, 1); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return Count(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t a) { return CountOrThrow(bytes, static_cast<size_t>(a)); }
void* operator new[](size_t bytes, std::align_val_t a) { return CountOrThrow(bytes, static_cast<size_t>(a)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
