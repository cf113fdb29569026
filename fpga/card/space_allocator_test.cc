// Allocators against a map of all numbers, banks of neighbouring extents, and the parts of host memory.
#include "fpga/card/space_allocator.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fpga/card/host_parts.h"
#include "proto/layout/card.h"
#include "proto/layout/ring.h"

namespace mnemo::card {
namespace {

// One flag a number.
class Taken {
 public:
  explicit Taken(uint64_t end) : taken_(end) {}
  // First start of `count` free numbers from `begin` on; the end when there is none.
  uint64_t FirstFit(uint64_t begin, uint64_t count) const {
    uint64_t free = 0;
    for (uint64_t at = begin; at < taken_.size(); ++at) {
      free = taken_[at] ? 0 : free + 1;
      if (free == count) return at + 1 - count;
    }
    return taken_.size();
  }
  // Whether all of them were the other way before.
  bool Set(uint64_t at, uint64_t count, bool taken) {
    if (at + count > taken_.size()) return false;
    for (uint64_t n = at; n < at + count; ++n) {
      if (taken_[n] == taken) return false;
      taken_[n] = taken;
    }
    return true;
  }
  uint64_t count() const { return static_cast<uint64_t>(std::count(taken_.begin(), taken_.end(), true)); }

 private:
  std::vector<bool> taken_;
};

TEST_CASE("ranges are the first that fit, and free neighbours become one") {
  constexpr uint64_t kBegin = 100;
  constexpr uint64_t kEnd = 400;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    SpaceAllocator space(kBegin, kEnd);
    Taken taken(kEnd);
    std::vector<std::pair<uint64_t, uint64_t>> held;
    for (int step = 0; step < 400; ++step) {
      if (random() % 2 == 0 || held.empty()) {
        const uint64_t count = 1 + random() % (random() % 8 == 0 ? 300 : 20);
        const auto at = space.Allocate(count);
        const uint64_t wanted = taken.FirstFit(kBegin, count);
        REQUIRE(at.value_or(kEnd) == wanted);
        if (!at.has_value()) continue;
        REQUIRE(taken.Set(*at, count, true));
        held.emplace_back(*at, count);
      } else {
        std::swap(held[random() % held.size()], held.back());
        space.Release(held.back().first, held.back().second);
        REQUIRE(taken.Set(held.back().first, held.back().second, false));
        held.pop_back();
      }
      REQUIRE(space.free() == kEnd - kBegin - taken.count());
    }
    for (const auto& [at, count] : held) space.Release(at, count);
    CHECK(space.Allocate(kEnd - kBegin) == kBegin);
    CHECK_FALSE(space.Allocate(1).has_value());
  }
  SpaceAllocator nothing(7, 7);
  CHECK_FALSE(nothing.Allocate(1).has_value());
}

TEST_CASE("extents of several sizes fill a channel and leave nothing behind") {
  constexpr uint64_t kBegin = 16;
  constexpr uint64_t kEnd = 20'000;
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    ChannelExtents extents(kBegin, kEnd);
    Taken taken(kEnd);
    const uint64_t sizes[] = {19, 36, 132 * 2, 1 + random() % 3000};
    std::vector<std::pair<uint64_t, uint64_t>> held;
    uint64_t refused = 0;
    for (int step = 0; step < 2000; ++step) {
      // Phases in which the channel becomes full, and empty again.
      if (random() % 100 < (step / 500 % 2 == 0 ? 90U : 20U)) {
        const uint64_t beats = sizes[random() % 4];
        const auto at = extents.Allocate(beats);
        if (!at.has_value()) {
          // A slab of one needs a run of its own beats.
          REQUIRE(extents.free() < kEnd - kBegin);
          ++refused;
          continue;
        }
        REQUIRE(*at >= kBegin);
        REQUIRE(taken.Set(*at, beats, true));
        held.emplace_back(*at, beats);
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        extents.Release(held.back().first);
        REQUIRE(taken.Set(held.back().first, held.back().second, false));
        held.pop_back();
      }
      REQUIRE(extents.used() == taken.count());
    }
    CHECK(refused > 0);
    for (const auto& [at, beats] : held) extents.Release(at);
    CHECK(extents.used() == 0);
    CHECK(extents.free() == kEnd - kBegin);
    CHECK(extents.Allocate(kEnd - kBegin) == kBegin);  // in one piece
  }
}

TEST_CASE("extents of one size fill a channel to its last piece") {
  for (const uint64_t beats : {1UL, 7UL, 36UL, 1000UL, 16'384UL, 40'000UL}) {
    CAPTURE(beats);
    constexpr uint64_t kBeats = 100'000;
    ChannelExtents extents(0, kBeats);
    uint64_t count = 0;
    while (extents.Allocate(beats).has_value()) ++count;
    CHECK(count == kBeats / beats);
  }
}

TEST_CASE("pieces of a circular area never overlap, and are given back in order") {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    constexpr uint64_t kBytes = 500;
    FifoSpace space(kBytes);
    Taken taken(kBytes);
    std::deque<std::pair<uint64_t, uint64_t>> held;
    int refused = 0;
    for (int step = 0; step < 1000; ++step) {
      const uint64_t bytes = random() % 8 == 0 ? random() % 501 : random() % 120;
      if (random() % 2 == 0) {
        if (!space.HasRoom(bytes)) {
          REQUIRE_FALSE(held.empty());
          ++refused;
          continue;
        }
        const uint64_t at = space.Allocate(bytes);
        if (bytes == 0) continue;
        REQUIRE(taken.Set(at, bytes, true));
        held.emplace_back(at, bytes);
      } else if (!held.empty()) {
        space.Release(held.front().second);
        space.Release(0);
        REQUIRE(taken.Set(held.front().first, held.front().second, false));
        held.pop_front();
      }
    }
    CHECK(refused > 0);
    while (!held.empty()) {
      space.Release(held.front().second);
      held.pop_front();
    }
    CHECK(space.HasRoom(kBytes));
    CHECK_FALSE(space.HasRoom(kBytes + 1));
    CHECK(FifoSpace(0).HasRoom(0));
    CHECK_FALSE(FifoSpace(0).HasRoom(1));
  }
}

TEST_CASE("parts of host memory lie apart, and too little of it is refused with what is needed") {
  const auto message = [](uint64_t bytes, uint32_t operations) {
    const auto parts =
        PartHostMemory(bytes, {.operations = operations, .payload_block = 576, .result_block = 4160});
    CHECK(parts.status().code() == absl::StatusCode::kInvalidArgument);
    return std::string(parts.status().message());
  };
  CHECK(message(1 << 20, 0) == "max_operations: 0; allowed are 1 to 65536");
  CHECK(message(1 << 20, 65537) == "max_operations: 65537; allowed are 1 to 65536");
  const std::string least = message(10'000, 5);
  REQUIRE(least.find("host memory of the card: 10000 bytes; 5 operations under way need ") == 0);
  const uint64_t bytes = std::stoull(least.substr(least.rfind(' ')));
  CHECK(message(bytes - 1, 5).find(std::to_string(bytes)) != std::string::npos);
  for (const uint64_t size : {bytes, bytes + 1, bytes + 100, uint64_t{1} << 20, uint64_t{64} << 20}) {
    for (const uint32_t operations : {1U, 5U}) {
      CAPTURE(size, operations);
      const auto made =
          PartHostMemory(size, {.operations = operations, .payload_block = 576, .result_block = 4160});
      REQUIRE(made.ok());
      CHECK(made->slots == (operations == 1 ? 1 : 8));
      CHECK(made->payload_bytes >= 576);
      CHECK(made->result_bytes >= 4160);
      const uint64_t ring = sizeof(layout::RingHeader) + uint64_t{made->slots} * layout::kUnitBytes;
      const std::pair<uint64_t, uint64_t> pieces[] = {
          {made->ring, ring},
          {made->completions, ring},
          {made->table, made->indexes * sizeof(layout::CardIndex)},
          {made->tokens, made->tokens_bytes},
          {made->payloads, made->payload_bytes},
          {made->results, made->result_bytes}};
      uint64_t end = 0;
      for (const auto& [at, length] : pieces) {
        CHECK(at >= end);
        CHECK(at % layout::kUnitBytes == 0);
        CHECK(length % layout::kUnitBytes == 0);
        end = at + length;
      }
      CHECK(end <= size);
    }
  }
}

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
