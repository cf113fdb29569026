// The card's own memory as a bound on indexes: what does not fit is refused before it starts.
#include "devices/memory/card_model/card_model_memory_device.h"

#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "proto/layout/card.h"

namespace mnemo::memory_device::card_model {
namespace {

using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kDim = 64;
constexpr uint32_t kChannels = 2;
constexpr uint32_t kPages = 8;
constexpr uint32_t kOwners = 2;
constexpr uint64_t kHbmBytes = 1 << 18;

struct Card {
  std::unique_ptr<MemoryDevice> device;
  std::unique_ptr<IndexTable> table;
  uint32_t owner[kOwners];
};

Card MakeCard() {
  MemoryDeviceOptions options{
      .kind = "card-model",
      .name = "one",
      .device_options = {{"channels", std::to_string(kChannels)}, {"hbm_bytes", std::to_string(kHbmBytes)}}};
  Card card;
  card.device = Kind().create(options).value();
  card.table = IndexTable::Create({}, &card.device->memory()).value();
  for (uint32_t& owner : card.owner) {
    owner = card.table->AddOwner({.quota_bytes = 16 << 20, .max_indexes = 64}).value();
  }
  return card;
}

// Metrics of the memory for records, by state.
std::map<std::string, double> RecordBytes(MemoryDevice* device) {
  std::map<std::string, double> bytes;
  for (const DeviceCounter& counter : device->Counters()) {
    if (counter.name == "device_record_bytes") bytes[std::string(counter.label_value)] = counter.value;
  }
  return bytes;
}

layout::IndexSpec Spec() {
  layout::IndexSpec spec{};
  spec.max_tokens = kPages * kPageTokens;
  spec.layer_slots = spec.heads = 1;
  spec.dim = kDim;
  spec.record_format = layout::kFormatCodes2;
  return spec;
}

TEST_CASE("indexes are refused when the card's memory cannot hold what they may still append") {
  const Card card = MakeCard();
  const uint64_t capacity = card.device->memory().record_capacity_bytes();
  CHECK(capacity < kHbmBytes);  // page lists take a part
  const uint64_t page_bytes =
      uint64_t{layout::CardBlockOf(layout::kFormatCodes2, kDim).beats} * layout::kCardBeatBytes;
  const auto room = static_cast<uint32_t>(capacity / (kPages * page_bytes));
  REQUIRE(room > 10);
  REQUIRE(room < 64);
  CHECK(RecordBytes(card.device.get()) ==
        std::map<std::string, double>{{"used", 0}, {"total", static_cast<double>(capacity)}});

  // The owners' quotas have room for more, and both count against the same memory.
  Descriptor d{};
  d.op = layout::kOpCreate;
  for (uint32_t n = 0; n < room; ++n) {
    d.index_id = n / kOwners;
    REQUIRE(card.table->Create(card.owner[n % kOwners], d, Spec()).status == layout::kStatusOk);
  }
  d.index_id = 63;
  for (const uint32_t owner : card.owner) {
    CHECK(card.table->Create(owner, d, Spec()).status == layout::kStatusFull);
  }

  // Every index gets all that it was promised.
  const std::vector<float> keys(size_t{kPages} * kPageTokens * kDim, 0.5F);
  Descriptor append{};
  append.op = layout::kOpAppend;
  append.heads = 1;
  append.format = layout::kFormatF32;
  append.end = kPages * kPageTokens;
  for (uint32_t n = 0; n < room; ++n) {
    append.index_id = n / kOwners;
    REQUIRE(card.table->Append(card.owner[n % kOwners], append, reinterpret_cast<const uint8_t*>(keys.data()))
                .status == layout::kStatusOk);
  }
  CHECK(RecordBytes(card.device.get()).at("used") == static_cast<double>(room * kPages * page_bytes));

  // A fork shares its pages, so that it needs none where all are shared.
  Descriptor fork{};
  fork.op = layout::kOpFork;
  fork.index_id = 62;
  fork.k1 = 0;
  fork.end = kPages * kPageTokens;
  CHECK(card.table->Fork(card.owner[0], fork).status == layout::kStatusOk);
  fork.index_id = 61;
  fork.end = kPageTokens;
  CHECK(card.table->Fork(card.owner[0], fork).status == layout::kStatusFull);

  // The other owner may take what one gives back.
  card.table->RemoveOwner(card.owner[0]);
  CHECK(card.table->Create(card.owner[1], d, Spec()).status == layout::kStatusOk);
  card.table->RemoveOwner(card.owner[1]);
  CHECK(RecordBytes(card.device.get()).at("used") == 0);
}

}  // namespace
}  // namespace mnemo::memory_device::card_model
