#include "fpga/card/space_allocator.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

namespace mnemo::card {
namespace {

constexpr uint64_t kBegin = 1024;
constexpr uint64_t kEnd = 1 << 18;
constexpr uint64_t kTurnBeats = 256;  // banks of a channel repeat

TEST_CASE("extents lie in their space, do not overlap, and all of them come back") {
  std::mt19937 random(5);
  ChannelExtents extents(kBegin, kEnd);
  const uint64_t sizes[] = {9, 36, 57, 252, 288, 576, 2304, 9216};
  struct Piece {
    uint64_t at;
    uint64_t beats;
  };
  std::vector<Piece> held;
  bool full = false;
  for (int n = 0; n < 3000; ++n) {
    if (!held.empty() && random() % 3 == 0) {
      std::swap(held[random() % held.size()], held.back());
      extents.Release(held.back().at);
      held.pop_back();
      continue;
    }
    const uint64_t beats = sizes[random() % std::size(sizes)];
    const std::optional<uint64_t> at = extents.Allocate(beats);
    full = full || !at.has_value();
    if (at.has_value()) held.push_back({*at, beats});
  }
  CHECK(full);
  std::sort(held.begin(), held.end(), [](const Piece& a, const Piece& b) { return a.at < b.at; });
  uint64_t used = 0;
  uint64_t end = kBegin;
  for (const Piece& piece : held) {
    CHECK(piece.at >= end);
    end = piece.at + piece.beats;
    used += piece.beats;
  }
  CHECK(end <= kEnd);
  CHECK(extents.used() == used);
  for (const Piece& piece : held) extents.Release(piece.at);
  CHECK(extents.used() == 0);
  CHECK(extents.free() == kEnd - kBegin);
}

// A scan reads a short block of each page: pages whose extents follow one another must not begin where the
// block before them ends, in another row of its bank.
TEST_CASE("extents of consecutive pages are half a turn of the banks apart, and little is lost") {
  for (const uint64_t beats : {252, 272, 288, 304, 512, 576, 1152, 2304, 4608, 9216, 16384}) {
    CAPTURE(beats);
    ChannelExtents extents(kBegin, kEnd);
    const uint64_t pages = std::min<uint64_t>(64, 16384 / beats);
    uint64_t before = extents.Allocate(beats).value();
    uint64_t end = before + beats;
    for (uint64_t page = 1; page < pages; ++page) {
      const uint64_t at = extents.Allocate(beats).value();
      CHECK((at + kTurnBeats * kEnd - before) % kTurnBeats >= kTurnBeats / 2);
      before = at;
      end = std::max(end, at + beats);
    }
    CHECK(end - kBegin <= pages * (beats + beats / 32));
  }
}

TEST_CASE("extents of one short block are read in a row") {
  ChannelExtents extents(kBegin, kEnd);
  for (uint64_t page = 0; page < 64; ++page) CHECK(extents.Allocate(36).value() == kBegin + page * 36);
}

}  // namespace
}  // namespace mnemo::card
