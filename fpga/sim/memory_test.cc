#include "fpga/sim/memory.h"

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>

namespace mnemo::sim {
namespace {

TEST_CASE("a sparse memory of 16 GB keeps what is written, across its pages") {
  constexpr uint64_t kBase = uint64_t{1} << 34;
  SparseMemory memory({kBase, uint64_t{16} << 30}, 1);
  std::mt19937_64 rng(1);
  std::vector<uint8_t> bytes(200'000);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng());
  const uint64_t at = memory.range().address + memory.range().bytes - 300'001;
  memory.Write(at, bytes);
  std::vector<uint8_t> back(bytes.size());
  memory.Read(at, back);
  CHECK(back == bytes);
  const uint64_t beat = (at + 63) / 64 * 64;
  CHECK(std::memcmp(memory.BeatForRead(beat), &bytes[beat - at], kBeatBytes) == 0);
  CHECK(memory.BeatForRead(kBase - 64) == nullptr);
  CHECK(memory.BeatForRead(kBase + memory.range().bytes) == nullptr);
}

TEST_CASE("bytes that were never written differ by the seed and are not all zero") {
  std::array<uint8_t, 64> first{}, second{}, again{};
  SparseMemory(Range{0, 1 << 20}, 1).Read(4096, first);
  SparseMemory(Range{0, 1 << 20}, 2).Read(4096, second);
  SparseMemory memory(Range{0, 1 << 20}, 1);
  memory.Write(4000, std::array<uint8_t, 8>{});  // its page exists now
  memory.Read(4096, again);
  CHECK(first != second);
  CHECK(first == again);
}

TEST_CASE("a mapped memory finds the piece of an address") {
  alignas(64) std::array<uint8_t, 256> a{}, b{};
  MappedMemory memory;
  memory.Map(4096, a);
  memory.Map(1 << 20, b);
  CHECK(memory.BeatForRead(4096 + 192) == &a[192]);
  CHECK(memory.BeatForWrite(1 << 20) == b.data());
  CHECK(memory.BeatForRead(4096 + 256) == nullptr);
  memory.Unmap(4096);
  CHECK(memory.BeatForRead(4096) == nullptr);
}

TEST_CASE("rules record bursts of a wrong shape and what is outside of the allowed ranges") {
  PortRules rules;
  CHECK(rules.CheckBurst(false, 4096 - 64, 1));
  CHECK(rules.violations() == 0);
  rules.CheckBurst(false, 4096 - 64, 2);
  rules.CheckBurst(false, 32, 1);
  rules.CheckBurst(false, 0, 65);
  CHECK(rules.violations() == 4);  // 65 beats cross 4 KiB too
  CHECK(Describe(rules.recorded()[0]) == "read of 128 bytes at 0xfc0: crosses 4 KiB");

  PortRules ranges;
  ranges.Allow({{100, 100}, {256, 64}});
  CHECK(ranges.CheckBurst(false, 64, 4));  // beats 64 to 319: both ranges, rounded out
  CHECK_FALSE(ranges.CheckBurst(false, 0, 2));
  CHECK_FALSE(ranges.CheckBurst(false, 256, 2));
  CHECK(ranges.CheckStrobes(64, uint64_t{0xF} << 36));  // bytes 100 to 103
  CHECK(ranges.CheckStrobes(256, ~uint64_t{0}));
  CHECK(ranges.CheckStrobes(192, 0xFF));
  CHECK_FALSE(ranges.CheckStrobes(192, 0x1FF));
  CHECK_FALSE(ranges.CheckStrobes(64, uint64_t{1} << 35));
  CHECK_FALSE(ranges.CheckStrobes(64, ~uint64_t{0}));
  CHECK(ranges.violations() == 5);
  CHECK(Describe(ranges.recorded()[2]) == "write of 9 bytes at 0xc0: outside of what is allowed");
}

}  // namespace
}  // namespace mnemo::sim
