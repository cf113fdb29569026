#pragma once

// Memories behind the ports of a simulated card, a beat of 64 bytes at a time, and what is recorded when a
// master does what it must not.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mnemo::sim {

inline constexpr uint64_t kBeatBytes = 64;
inline constexpr uint64_t kBoundaryBytes = 4096;  // that no burst crosses

struct Range {
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool Contains(uint64_t at, uint64_t size) const {
    return at >= address && size <= bytes && at - address <= bytes - size;
  }
};

class Memory {
 public:
  virtual ~Memory() = default;
  // The beat at an address that is a multiple of 64; nullptr: there is nothing. Valid until the memory
  // changes.
  virtual const uint8_t* BeatForRead(uint64_t address) = 0;
  virtual uint8_t* BeatForWrite(uint64_t address) = 0;
};

// Up to 16 GB of which only the written part takes memory of this machine. Bytes that were never written have
// a pattern by the seed, so that a master that uses them shows.
class SparseMemory final : public Memory {
 public:
  // Multiples of kPageBytes.
  SparseMemory(Range range, uint64_t seed);
  ~SparseMemory() override;

  const uint8_t* BeatForRead(uint64_t address) override;
  uint8_t* BeatForWrite(uint64_t address) override;
  // Within the range.
  void Write(uint64_t address, std::span<const uint8_t> bytes);
  void Read(uint64_t address, std::span<uint8_t> bytes) const;

  const Range& range() const { return range_; }
  static constexpr uint64_t kPageBytes = 64 << 10;

 private:
  struct Page;
  const uint8_t* PageForRead(uint64_t address) const;
  uint8_t* PageForWrite(uint64_t address);

  const Range range_;
  const std::unique_ptr<Page> unwritten_;
  std::vector<std::unique_ptr<Page>> pages_;
};

// Pieces of this program's memory, each at an address of the card's. Addresses and sizes are multiples of 64.
class MappedMemory final : public Memory {
 public:
  MappedMemory() = default;
  // With one piece.
  MappedMemory(uint64_t address, std::span<uint8_t> bytes) { Map(address, bytes); }
  void Map(uint64_t address, std::span<uint8_t> bytes);
  void Unmap(uint64_t address);

  const uint8_t* BeatForRead(uint64_t address) override { return BeatForWrite(address); }
  uint8_t* BeatForWrite(uint64_t address) override;

 private:
  struct Piece {
    Range range;
    uint8_t* bytes;
  };
  std::vector<Piece> pieces_;
};

// A request that a port must not get.
struct Violation {
  const char* rule = "";
  bool write = false;
  uint64_t address = 0;
  uint64_t bytes = 0;
};

std::string Describe(const Violation& violation);

// Rules of a port: shapes of bursts, and the ranges that a test allows. Without ranges of a kind all is
// allowed that is there.
class PortRules {
 public:
  void Allow(const std::vector<Range>& ranges) { allowed_[0] = allowed_[1] = ranges; }
  // One more range, of one kind.
  void AllowReads(Range range) { allowed_[0].push_back(range); }
  void AllowWrites(Range range) { allowed_[1].push_back(range); }

  // A burst as asked for; false: it is outside of what is allowed. Ranges are rounded out to beats.
  bool CheckBurst(bool write, uint64_t address, uint32_t beats);
  // The bytes of one beat that are written.
  bool CheckStrobes(uint64_t address, uint64_t strobes);
  void Record(const char* rule, bool write, uint64_t address, uint64_t bytes);

  uint64_t violations() const { return violations_; }
  // The first of them.
  const std::vector<Violation>& recorded() const { return recorded_; }

 private:
  std::array<std::vector<Range>, 2> allowed_;  // of reads, of writes
  std::vector<Violation> recorded_;
  uint64_t violations_ = 0;
};

}  // namespace mnemo::sim
