#include "fpga/sim/memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <random>

#include "devices/base/status.h"

namespace mnemo::sim {

struct SparseMemory::Page {
  alignas(64) std::array<uint8_t, kPageBytes> bytes;
};

SparseMemory::SparseMemory(Range range, uint64_t seed)
    : range_(range), unwritten_(std::make_unique<Page>()), pages_(range.bytes / kPageBytes) {
  MNEMO_CHECK(range.address % kPageBytes == 0 && range.bytes % kPageBytes == 0);
  std::mt19937_64 rng(seed);
  for (size_t i = 0; i < kPageBytes; i += 8) {
    const uint64_t word = rng();
    std::memcpy(&unwritten_->bytes[i], &word, 8);
  }
}

SparseMemory::~SparseMemory() = default;

const uint8_t* SparseMemory::PageForRead(uint64_t address) const {
  const Page* page = pages_[(address - range_.address) / kPageBytes].get();
  return (page == nullptr ? *unwritten_ : *page).bytes.data();
}

uint8_t* SparseMemory::PageForWrite(uint64_t address) {
  std::unique_ptr<Page>& page = pages_[(address - range_.address) / kPageBytes];
  if (page == nullptr) page = std::make_unique<Page>(*unwritten_);
  return page->bytes.data();
}

const uint8_t* SparseMemory::BeatForRead(uint64_t address) {
  if (!range_.Contains(address, kBeatBytes)) return nullptr;
  return PageForRead(address) + address % kPageBytes;
}

uint8_t* SparseMemory::BeatForWrite(uint64_t address) {
  if (!range_.Contains(address, kBeatBytes)) return nullptr;
  return PageForWrite(address) + address % kPageBytes;
}

void SparseMemory::Write(uint64_t address, std::span<const uint8_t> bytes) {
  MNEMO_CHECK(range_.Contains(address, bytes.size()));
  while (!bytes.empty()) {
    const uint64_t at = address % kPageBytes;
    const size_t size = std::min<size_t>(bytes.size(), kPageBytes - at);
    std::memcpy(PageForWrite(address) + at, bytes.data(), size);
    bytes = bytes.subspan(size);
    address += size;
  }
}

void SparseMemory::Read(uint64_t address, std::span<uint8_t> bytes) const {
  MNEMO_CHECK(range_.Contains(address, bytes.size()));
  while (!bytes.empty()) {
    const uint64_t at = address % kPageBytes;
    const size_t size = std::min<size_t>(bytes.size(), kPageBytes - at);
    std::memcpy(bytes.data(), PageForRead(address) + at, size);
    bytes = bytes.subspan(size);
    address += size;
  }
}

void MappedMemory::Map(uint64_t address, std::span<uint8_t> bytes) {
  MNEMO_CHECK(address % kBeatBytes == 0 && bytes.size() % kBeatBytes == 0);
  pieces_.push_back({{address, bytes.size()}, bytes.data()});
}

void MappedMemory::Unmap(uint64_t address) {
  std::erase_if(pieces_, [&](const Piece& piece) { return piece.range.address == address; });
}

uint8_t* MappedMemory::BeatForWrite(uint64_t address) {
  for (const Piece& piece : pieces_) {
    if (piece.range.Contains(address, kBeatBytes)) return piece.bytes + (address - piece.range.address);
  }
  return nullptr;
}

std::string Describe(const Violation& violation) {
  return fmt::format("{} of {} bytes at {:#x}: {}", violation.write ? "write" : "read", violation.bytes,
                     violation.address, violation.rule);
}

bool PortRules::CheckBurst(bool write, uint64_t address, uint32_t beats) {
  const uint64_t bytes = beats * kBeatBytes;
  if (address % kBeatBytes != 0) Record("begins within a beat", write, address, bytes);
  if (beats > 64) Record("more than 64 beats", write, address, bytes);
  if (address / kBoundaryBytes != (address + bytes - 1) / kBoundaryBytes) {
    Record("crosses 4 KiB", write, address, bytes);
  }
  const std::vector<Range>& allowed = allowed_[0];
  if (allowed.empty() || write) return true;  // of a write, each byte is checked
  const uint64_t end = address + bytes;
  for (uint64_t at = address; at < end;) {
    const uint64_t before = at;
    for (const Range& range : allowed) {
      const uint64_t first = range.address / kBeatBytes * kBeatBytes;
      const uint64_t last = (range.address + range.bytes + kBeatBytes - 1) / kBeatBytes * kBeatBytes;
      if (at >= first && at < last) at = last;
    }
    if (at == before) {
      Record("outside of what is allowed", write, at, end - at);
      return false;
    }
  }
  return true;
}

bool PortRules::CheckStrobes(uint64_t address, uint64_t strobes) {
  const std::vector<Range>& allowed = allowed_[1];
  if (allowed.empty()) return true;
  while (strobes != 0) {
    const int first = std::countr_zero(strobes);
    const int size = std::countr_one(strobes >> first);
    const uint64_t at = address + static_cast<uint64_t>(first);
    const auto bytes = static_cast<uint64_t>(size);
    const bool inside = std::any_of(allowed.begin(), allowed.end(),
                                    [&](const Range& range) { return range.Contains(at, bytes); });
    if (!inside) {
      Record("outside of what is allowed", true, at, bytes);
      return false;
    }
    if (size == 64) break;
    strobes &= ~(((uint64_t{1} << size) - 1) << first);
  }
  return true;
}

void PortRules::Record(const char* rule, bool write, uint64_t address, uint64_t bytes) {
  constexpr size_t kKept = 64;
  if (recorded_.size() < kKept) recorded_.push_back({rule, write, address, bytes});
  ++violations_;
}

}  // namespace mnemo::sim
