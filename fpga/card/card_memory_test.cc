// Record memory of a card: what lies in card memory and in the index table after any bulk operations.
#include "fpga/card/card_memory.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "fpga/card/testing_device.h"
#include "proto/layout/record.h"

namespace mnemo::card {
namespace {

using memory_device::Extent;

TEST_CASE("after any appends, forks, truncations and frees the card's memory holds what is stored") {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    model::ModelOptions model = TestDevice::SmallModel();
    model.shape.channels = 1U << seed % 4;
    TestDevice device(model);
    device.random.seed(seed);
    std::mt19937& random = device.random;
    uint32_t full = 0;
    for (int step = 0; step < 60; ++step) {
      const auto id = static_cast<uint32_t>(random() % 6);
      const auto found = device.stored().find(id);
      if (found == device.stored().end()) {
        const auto from = static_cast<uint32_t>(random() % 6);
        const auto source = device.stored().find(from);
        if (source != device.stored().end() && random() % 2 == 0) {
          REQUIRE(device.Fork(id, from, static_cast<uint32_t>(random() % (source->second.pages() + 1))) ==
                  layout::kStatusOk);
        } else {
          const uint32_t format = layout::kFormatCodes2 + static_cast<uint32_t>(random() % 5);
          REQUIRE(device.Create(id, SpecOf(format, 16U << random() % 4, 40, 1 + random() % 2,
                                           1 + random() % 3)) == layout::kStatusOk);
        }
      } else if (random() % 8 == 0) {
        REQUIRE(device.Free(id) == layout::kStatusOk);
      } else if (random() % 4 == 0) {
        REQUIRE(device.Truncate(id, static_cast<uint32_t>(random() % (found->second.pages() + 1))) ==
                layout::kStatusOk);
      } else {
        const uint32_t room = 40 - found->second.pages();
        const uint32_t pages = std::min(room, 1 + static_cast<uint32_t>(random() % 8));
        if (pages == 0) continue;
        const uint16_t status = device.Append(id, pages);
        REQUIRE((status == layout::kStatusOk || status == layout::kStatusFull));
        full += status == layout::kStatusFull ? 1 : 0;
      }
      device.CheckMemory();
    }
    if (seed % 4 == 0) CHECK(full > 0);  // one channel is small
    device.CheckNothingLeaks();
  }
}

TEST_CASE("forks share extents until one of them is released, and no longer than that") {
  TestDevice device;
  REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes4, 64, 16)) == layout::kStatusOk);
  REQUIRE(device.Append(0, 6) == layout::kStatusOk);
  const uint64_t used = device.driver().memory().used_beats(0) + device.driver().memory().used_beats(1);
  REQUIRE(device.Fork(1, 0, 4) == layout::kStatusOk);
  const auto pages = [&](uint32_t id) { return device.driver().memory().Find({device.owner(), id})->pages; };
  const std::vector<Extent> first = pages(0);
  CHECK(pages(1) == std::vector<Extent>(first.begin(), first.begin() + 4));
  CHECK(device.driver().memory().used_beats(0) + device.driver().memory().used_beats(1) == used);
  // Both go on by themselves from the same page.
  REQUIRE(device.Append(1, 2) == layout::kStatusOk);
  CHECK(pages(1)[4] != first[4]);
  REQUIRE(device.Truncate(0, 1) == layout::kStatusOk);
  device.CheckMemory();
  REQUIRE(device.Free(0) == layout::kStatusOk);
  CHECK(pages(1)[0] == first[0]);
  device.CheckMemory();
  std::vector<Question> questions;
  for (int n = 0; n < 8; ++n) questions.push_back(device.NewQuestion(1));
  device.CheckAnswers(&questions);
  device.CheckNothingLeaks();
}

TEST_CASE("a full card says so, keeps what it has, and has room again after a free") {
  TestDevice device;
  uint32_t pages[2] = {0, 0};
  for (uint32_t round = 0; round < 2; ++round) {
    REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes8, 128, 200, 1, 1)) == layout::kStatusOk);
    REQUIRE(device.Create(1, SpecOf(layout::kFormatCodes2, 64, 200)) == layout::kStatusOk);
    REQUIRE(device.Append(1, 3) == layout::kStatusOk);
    // An append of several pages of which only some have room leaves none behind.
    uint16_t status = layout::kStatusOk;
    for (const uint32_t size : {7U, 3U, 1U}) {
      while ((status = device.Append(0, size)) == layout::kStatusOk) pages[round] += size;
      REQUIRE(status == layout::kStatusFull);
      device.CheckMemory();
    }
    // A channel less its lists and the slab of 64 extents of the other index, in extents of 132 beats.
    const uint64_t rest =
        device.driver().shape().channels[0].length - device.driver().memory().list_space_beats() - 64 * 38;
    CHECK(pages[round] == 2 * (rest / 132));
    std::vector<Question> questions;
    for (int n = 0; n < 4; ++n) questions.push_back(device.NewQuestion(n % 2));
    device.CheckAnswers(&questions);
    device.CheckNothingLeaks();
  }
  CHECK(pages[0] == pages[1]);
}

TEST_CASE("an index that the table or the lists have no room for is served as soon as there is some") {
  model::ModelOptions model = TestDevice::SmallModel();
  model.host_bytes = 256 << 10;  // 16 indexes
  TestDevice device(model);
  const uint64_t numbers = device.driver().memory().free_numbers();
  REQUIRE(numbers == 16);
  for (uint32_t id = 0; id < numbers; ++id) {
    REQUIRE(device.Create(id, SpecOf(layout::kFormatCodes2, 64, 4, 1, 1)) == layout::kStatusOk);
  }
  const auto last = static_cast<uint32_t>(numbers);
  REQUIRE(device.Create(last, SpecOf(layout::kFormatCodes2, 64, 4, 1, 1)) == layout::kStatusOk);
  CHECK(device.Append(last, 1) == layout::kStatusFull);
  std::vector<Question> questions(1, device.NewQuestion(last));  // of no entries
  const std::vector<layout::Completion> done = device.Run(&questions);
  REQUIRE(done.size() == 1);
  CHECK(done[0].status == layout::kStatusFull);
  REQUIRE(device.Free(3) == layout::kStatusOk);
  REQUIRE(device.Append(last, 2) == layout::kStatusOk);
  device.CheckMemory();
  questions[0] = device.NewQuestion(last);
  device.CheckAnswers(&questions);
  device.CheckNothingLeaks();

  // Lists: every index reserves rows for its greatest length.
  const uint64_t rows = device.driver().memory().free_list_beats() * layout::kCardListRowsOfBeat;
  const auto half = static_cast<uint32_t>(rows);  // pages: half of the rows of two channels
  REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes2, 64, half, 1, 1)) == layout::kStatusOk);
  REQUIRE(device.Create(1, SpecOf(layout::kFormatCodes2, 64, 2 * half - 64, 1, 1)) == layout::kStatusOk);
  CHECK(device.Append(1, 1) == layout::kStatusFull);
  REQUIRE(device.Append(0, 1) == layout::kStatusOk);
  REQUIRE(device.Free(0) == layout::kStatusOk);
  REQUIRE(device.Append(1, 1) == layout::kStatusOk);
  device.CheckMemory();
  device.CheckNothingLeaks();
}

}  // namespace
}  // namespace mnemo::card
