// Queue 0 beside a ring of completions that the test writes, as a card does or as none may.
#include "fpga/card/card_queue.h"

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace mnemo::card {
namespace {

using layout::Completion;
using layout::RingHeader;

constexpr uint32_t kSlots = 4;
constexpr uint32_t kFirst[] = {0, 0xFFFF'FFFD, 0x7FFF'FFFF};

// Host memory alone.
class MemoryPort final : public CardPort {
 public:
  absl::StatusOr<uint32_t> ReadRegister(uint32_t) override { return 0; }
  absl::Status WriteRegister(uint32_t, uint32_t) override { return absl::OkStatus(); }
  absl::Status Write(uint64_t, std::span<const uint8_t>) override { return absl::OkStatus(); }
  absl::Status Read(uint64_t, std::span<uint8_t>) override { return absl::OkStatus(); }
  std::span<uint8_t> host_memory() override { return {bytes_, sizeof bytes_}; }
  uint64_t host_address() const override { return 0; }

 private:
  alignas(64) uint8_t bytes_[4096] = {};
};

struct Rings {
  MemoryPort port;
  HostParts parts{.slots = kSlots, .completions = 2048};
  CardQueue queue;

  explicit Rings(uint32_t first) { Open(first); }
  void Open(uint32_t first) { queue.Open(&port, parts, 1, first); }

  RingHeader& header() {
    return *reinterpret_cast<RingHeader*>(port.host_memory().data() + parts.completions);
  }
  uint8_t* Slot(uint32_t index) {
    return reinterpret_cast<uint8_t*>(&header() + 1) + index % kSlots * sizeof(Completion);
  }
  void Write(uint32_t index, uint32_t seq, uint32_t count = 0) {
    Completion completion{};
    completion.count = count;
    completion.seq = seq;
    std::memcpy(Slot(index), &completion, sizeof completion);
  }
  void Push() {
    queue.Push({});
    REQUIRE(queue.Ring().ok());
  }
  // Whether the next completion was there.
  bool Take() {
    const absl::StatusOr<std::optional<Completion>> completion = queue.Take();
    INFO(completion.status());
    REQUIRE(completion.ok());
    return completion->has_value();
  }
  std::string Error() { return std::string(queue.Take().status().message()); }
};

TEST_CASE("a completion is taken when its slot has it, whether or not the head counts it") {
  std::mt19937 random(1);
  for (const uint32_t first : kFirst) {
    CAPTURE(first);
    Rings rings(first);
    uint32_t pushed = first;
    uint32_t written = first;
    uint32_t taken = first;
    while (taken - first < 200) {
      if (rings.queue.HasRoom() && random() % 2 != 0) {
        rings.Push();
        ++pushed;
      }
      // The card: a completion, then the head that counts it, before the next one.
      if (rings.header().head != written) {
        if (random() % 2 != 0) rings.header().head = written;
      } else if (written != pushed && random() % 2 != 0) {
        rings.Write(written, written, written - first + 7);
        ++written;
      }
      if (random() % 2 != 0) continue;
      const absl::StatusOr<std::optional<Completion>> completion = rings.queue.Take();
      INFO(completion.status());
      REQUIRE(completion.ok());
      REQUIRE(completion->has_value() == (taken != written));
      if (!completion->has_value()) continue;
      REQUIRE((*completion)->seq == taken);
      REQUIRE((*completion)->count == taken - first + 7);
      ++taken;
      REQUIRE(rings.queue.taken() == taken);
      REQUIRE(rings.header().tail == taken);
    }
  }
}

TEST_CASE("nothing that was in the slots before is taken for a completion") {
  for (const uint32_t first : kFirst) {
    CAPTURE(first);
    Rings rings(first);
    // Slots of another life, with the very seqs that are to come.
    for (uint32_t n = 0; n < kSlots; ++n) rings.Write(first + n, first + n);
    rings.Open(first);
    for (uint32_t n = 0; n < 3 * kSlots; ++n) {
      rings.Push();
      CHECK_FALSE(rings.Take());
      rings.Write(first + n, first + n);
      CHECK(rings.Take());
      CHECK_FALSE(rings.Take());
      rings.header().head = first + n + 1;
    }
    // A ring that is opened again where it began, as after a reset.
    rings.Open(first);
    for (uint32_t n = 0; n < kSlots; ++n) rings.Push();
    CHECK_FALSE(rings.Take());
  }
}

TEST_CASE("bytes of a completion that come before its last 8 are not taken") {
  Rings rings(5);
  rings.Push();
  std::memset(rings.Slot(5), 0x5A, offsetof(Completion, status));
  CHECK_FALSE(rings.Take());
  const uint64_t last = uint64_t{5} << 32;
  std::memcpy(rings.Slot(5) + offsetof(Completion, status), &last, sizeof last);
  const absl::StatusOr<std::optional<Completion>> completion = rings.queue.Take();
  REQUIRE(completion.ok());
  REQUIRE(completion->has_value());
  CHECK((*completion)->count == 0x5A5A5A5A);
  CHECK((*completion)->status == layout::kStatusOk);
}

TEST_CASE("a ring that says what cannot be is told, not waited for") {
  for (const uint32_t first : kFirst) {
    CAPTURE(first);
    const auto expected = [first](uint32_t seq, uint32_t after) {
      return "completion of the card: seq " + std::to_string(seq) + ", expected " +
             std::to_string(first + after);
    };
    {
      // Another seq: told once the head counts the completion.
      Rings rings(first);
      rings.Push();
      rings.Write(first, first + 1);
      CHECK_FALSE(rings.Take());
      rings.header().head = first + 1;
      CHECK(rings.Error() == expected(first + 1, 0));
    }
    {
      // A head without a completion.
      Rings rings(first);
      rings.Push();
      rings.header().head = first + 1;
      CHECK(rings.Error() == expected(first - kSlots, 0));
    }
    {
      // A head that runs away, before its completion and beside it.
      for (const bool there : {false, true}) {
        Rings rings(first);
        rings.Push();
        if (there) rings.Write(first, first);
        rings.header().head = first + 2;
        CHECK(rings.Error() == "the card has 2 completions for 1 descriptors");
      }
    }
    {
      // A head that runs away when all is taken.
      Rings rings(first);
      rings.header().head = first + 1000;
      CHECK(rings.Error() == "the card has 1000 completions for 0 descriptors");
    }
    {
      // A head that falls back, and one that stays where it was.
      Rings rings(first);
      rings.Push();
      rings.header().head = first - 1;
      CHECK(rings.Error() == "the card has -1 completions for 1 descriptors");
      rings.header().head = first;
      rings.Write(first, first);
      CHECK(rings.Take());
      CHECK_FALSE(rings.Take());
      rings.Push();
      CHECK_FALSE(rings.Take());
      rings.Write(first + 1, first + 1);
      CHECK(rings.Error() == "the card has -1 completions for 1 descriptors");
      rings.header().head = first - 1;
      CHECK(rings.Error() == "the card has -2 completions for 1 descriptors");
    }
  }
}

}  // namespace
}  // namespace mnemo::card
