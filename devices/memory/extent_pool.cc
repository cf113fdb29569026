#include "devices/memory/extent_pool.h"

#include <sys/mman.h>

#include <algorithm>

#include "devices/base/mapping.h"
#include "devices/base/status.h"

namespace mnemo::memory_device {
namespace {

constexpr uint64_t kLargePage = uint64_t{2} << 20;
constexpr uint64_t kSlabBytes = 2 * kLargePage;

uint64_t RoundUp(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

struct ExtentPool::Slab {
  uint8_t* memory = nullptr;  // at a multiple of the large page
  uint64_t bytes = 0;
  uint64_t piece_bytes = 0;
  uint32_t pieces = 0;
  std::vector<uint32_t> free;  // pieces not in use; the last one goes next

  ~Slab() { munmap(memory, bytes); }
  bool empty() const { return free.size() == pieces; }
};

// In front of every extent.
struct alignas(64) ExtentPool::Header {
  Slab* slab;
};

ExtentPool::ExtentPool() = default;

ExtentPool::~ExtentPool() {
  for (const auto& [size, slabs] : slabs_) {
    for (const std::unique_ptr<Slab>& slab : slabs) {
      MNEMO_CHECK(slab->empty());
    }
  }
}

ExtentPool::Header* ExtentPool::HeaderOf(const uint8_t* extent) {
  return reinterpret_cast<Header*>(const_cast<uint8_t*>(extent)) - 1;
}

std::unique_ptr<ExtentPool::Slab> ExtentPool::NewSlab(uint64_t piece_bytes) {
  const uint64_t bytes = RoundUp(std::max(piece_bytes, kSlabBytes), kLargePage);
  // Room to begin at a large page; what stands before and behind goes back.
  void* mapped =
      mmap(nullptr, bytes + kLargePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return nullptr;
  }
  auto* begin = static_cast<uint8_t*>(mapped);
  const uint64_t before =
      RoundUp(reinterpret_cast<uintptr_t>(begin), kLargePage) - reinterpret_cast<uintptr_t>(begin);
  if (before != 0) {
    munmap(begin, before);
  }
  if (before != kLargePage) {
    munmap(begin + before + bytes, kLargePage - before);
  }
  auto slab = std::make_unique<Slab>();
  slab->memory = begin + before;
  slab->bytes = bytes;
  slab->piece_bytes = piece_bytes;
  slab->pieces = static_cast<uint32_t>(bytes / piece_bytes);
  // A hint: small pages work as well.
  madvise(slab->memory, bytes, MADV_HUGEPAGE);
  KeepOutOfCores(slab->memory, bytes);
  slab->free.resize(slab->pieces);
  for (uint32_t n = 0; n < slab->pieces; ++n) {
    slab->free[n] = slab->pieces - 1 - n;
  }
  return slab;
}

uint8_t* ExtentPool::Allocate(uint64_t bytes) {
  const uint64_t piece_bytes = sizeof(Header) + RoundUp(bytes, alignof(Header));
  std::vector<std::unique_ptr<Slab>>& slabs = slabs_[piece_bytes];
  // The newest slabs are the likeliest to have room.
  auto slab = std::find_if(slabs.rbegin(), slabs.rend(), [](const auto& one) { return !one->free.empty(); });
  if (slab == slabs.rend()) {
    auto fresh = NewSlab(piece_bytes);
    if (fresh == nullptr) {
      return nullptr;
    }
    slabs.push_back(std::move(fresh));
    slab = slabs.rbegin();
  }
  uint8_t* piece = (*slab)->memory + (*slab)->free.back() * piece_bytes;
  (*slab)->free.pop_back();
  new (piece) Header{slab->get()};
  return piece + sizeof(Header);
}

void ExtentPool::ForEachSlab(const std::function<void(uint8_t* memory, uint64_t bytes)>& visit) const {
  for (const auto& [size, slabs] : slabs_) {
    for (const std::unique_ptr<Slab>& slab : slabs) {
      visit(slab->memory, slab->bytes);
    }
  }
}

void ExtentPool::Release(uint8_t* extent) {
  Header* header = HeaderOf(extent);
  Slab* slab = header->slab;
  const auto place = static_cast<uint64_t>(reinterpret_cast<uint8_t*>(header) - slab->memory);
  slab->free.push_back(static_cast<uint32_t>(place / slab->piece_bytes));
  if (slab->empty()) {
    std::vector<std::unique_ptr<Slab>>& slabs = slabs_[slab->piece_bytes];
    const auto empties =
        std::count_if(slabs.begin(), slabs.end(), [](const auto& one) { return one->empty(); });
    if (empties > 1) {
      std::erase_if(slabs, [slab](const auto& one) { return one.get() == slab; });
    }
  }
}

}  // namespace mnemo::memory_device
