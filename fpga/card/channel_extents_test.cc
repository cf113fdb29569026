// Where extents of a channel lie: none overlaps another, and blocks that a scan reads one after another lie
// in other banks of the memory.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <set>
#include <vector>

#include "fpga/card/space_allocator.h"

namespace mnemo::card {
namespace {

constexpr uint64_t kRowBeats = 16;
constexpr uint64_t kBanks = 16;

// Banks of the rows that a block touches.
std::set<uint64_t> BanksOf(uint64_t at, uint64_t block_beats) {
  std::set<uint64_t> banks;
  for (uint64_t row = at / kRowBeats; row <= (at + block_beats - 1) / kRowBeats; ++row)
    banks.insert(row % kBanks);
  return banks;
}

bool ShareBank(uint64_t a, uint64_t b, uint64_t block_beats) {
  const std::set<uint64_t> of_a = BanksOf(a, block_beats);
  const std::set<uint64_t> of_b = BanksOf(b, block_beats);
  return std::any_of(of_a.begin(), of_a.end(), [&](uint64_t bank) { return of_b.contains(bank); });
}

struct Shape {
  uint64_t block_beats;
  uint64_t blocks;
};

TEST_CASE("blocks of extents that follow each other lie in other banks") {
  // Blocks of 2 bits and dims 64, 128, 256; 4 bits; the counts of slots times heads of real models.
  for (const Shape& shape :
       {Shape{36, 8}, Shape{36, 256}, Shape{19, 90}, Shape{70, 18}, Shape{68, 8}, Shape{19, 32}}) {
    CAPTURE(shape.block_beats, shape.blocks);
    const uint64_t beats = shape.block_beats * shape.blocks;
    ChannelExtents extents(7 * 64, 40'000'000);
    std::vector<uint64_t> at;
    for (int n = 0; n < 200; ++n) at.push_back(extents.Allocate(beats, shape.block_beats).value());
    for (uint64_t block = 0; block < shape.blocks; block += std::max<uint64_t>(1, shape.blocks / 8)) {
      int shared = 0;
      for (size_t n = 1; n < at.size(); ++n) {
        shared += ShareBank(at[n - 1] + block * shape.block_beats, at[n] + block * shape.block_beats,
                            shape.block_beats);
      }
      CHECK(shared <= 60);  // where a slab ends, or begins another turn
    }
  }
}

TEST_CASE("extents that are read whole follow each other") {
  ChannelExtents extents(0, 1 << 20);
  uint64_t last = extents.Allocate(36, 36).value();
  for (int n = 1; n < 60; ++n) {
    const uint64_t at = extents.Allocate(36, 36).value();
    CHECK(at == last + 36);
    last = at;
  }
}

TEST_CASE("extents do not overlap, and all that is given back is free again") {
  for (const uint64_t block_beats : {0, 19, 36, 262}) {
    CAPTURE(block_beats);
    constexpr uint64_t kBeats = 5000;
    ChannelExtents extents(64, 64 + 9 * kBeats + 17);
    std::vector<uint64_t> at;
    while (const auto one = extents.Allocate(kBeats, block_beats)) at.push_back(*one);
    REQUIRE(at.size() == 9);
    CHECK(extents.used() == 9 * kBeats);
    std::sort(at.begin(), at.end());
    CHECK(at.front() >= 64);
    for (size_t n = 1; n < at.size(); ++n) CHECK(at[n] >= at[n - 1] + kBeats);
    CHECK(at.back() + kBeats <= 64 + 9 * kBeats + 17);
    for (const uint64_t one : at) extents.Release(one);
    CHECK(extents.used() == 0);
    CHECK(extents.free() == 9 * kBeats + 17);
  }
}

}  // namespace
}  // namespace mnemo::card
