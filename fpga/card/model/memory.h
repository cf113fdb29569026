#pragma once

// The memories that the model reads and writes: card memory, of which only touched pieces exist, and one
// piece of host memory at an address of its own.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>

namespace mnemo::card::model {

// Memory of up to 2^64 bytes. Bytes that were never written read as 0xA5, so that a use of them shows.
class SparseMemory {
 public:
  void Write(uint64_t address, std::span<const uint8_t> bytes);
  void Read(uint64_t address, std::span<uint8_t> bytes) const;

 private:
  static constexpr uint64_t kPieceBytes = 1 << 16;
  using Piece = std::array<uint8_t, kPieceBytes>;

  std::unordered_map<uint64_t, std::unique_ptr<Piece>> pieces_;
};

// Host memory, and `direct_bytes` of card memory, as the command processor reaches them. Calls return false
// for bytes outside of both; then nothing is read or written.
class HostMemory {
 public:
  HostMemory(std::span<uint8_t> bytes, uint64_t address, SparseMemory* card = nullptr,
             uint64_t direct_address = 0, uint64_t direct_bytes = 0)
      : bytes_(bytes),
        address_(address),
        card_(card),
        direct_address_(direct_address),
        direct_bytes_(direct_bytes) {}

  bool Read(uint64_t address, std::span<uint8_t> to) const;
  bool Write(uint64_t address, std::span<const uint8_t> from);

 private:
  bool Holds(uint64_t address, uint64_t size) const;
  bool IsDirect(uint64_t address, uint64_t size) const;

  std::span<uint8_t> bytes_;
  uint64_t address_;
  SparseMemory* card_;
  uint64_t direct_address_;
  uint64_t direct_bytes_;
};

}  // namespace mnemo::card::model
