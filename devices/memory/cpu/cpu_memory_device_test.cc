#include "devices/memory/cpu/cpu_memory_device.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "devices/memory/codes.h"
#include "devices/memory/memory_device.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/ring.h"
#include "proto/layout/validate.h"

namespace mnemo::memory_device::cpu {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kDim = 64;
constexpr uint32_t kHeads = 2;
constexpr uint32_t kTokens = 20 * kPageTokens;

// One index of 2-bit codes with K and V of all its tokens.
struct Setup {
  std::unique_ptr<IndexStore> store = IndexStore::Create({.threads = 3}).value();
  uint32_t owner = store->AddOwner({.quota_bytes = 64 << 20, .max_indexes = 2}).value();
  std::unique_ptr<MemoryDevice> device =
      MakeMemoryDevice({.name = "cpu7", .threads = 3, .max_operations = 8, .max_tokens = kTokens},
                       store.get())
          .value();
  std::vector<float> keys = std::vector<float>(size_t{kHeads} * kTokens * kDim);
  std::vector<uint8_t> values;  // [heads][tokens] of K and V
  const uint8_t kv_format;
  std::vector<uint8_t> payload = std::vector<uint8_t>(kHeads * layout::QueryBlockBytes(3, kDim));

  explicit Setup(uint8_t format = layout::kFormatF32) : kv_format(format) {
    values.resize(size_t{kHeads} * kTokens * TokenBytes());
    std::mt19937 random(3);
    std::normal_distribution<float> bell;
    for (float& key : keys) key = bell(random);
    for (uint8_t& value : values) value = static_cast<uint8_t>(random());
    Descriptor d{};
    d.op = layout::kOpCreate;
    layout::IndexSpec spec{};
    spec.max_tokens = kTokens;
    spec.layer_slots = 1;
    spec.heads = kHeads;
    spec.dim = kDim;
    spec.record_format = layout::kFormatCodes2;
    spec.kv_format = kv_format;
    REQUIRE(store->Create(owner, d, spec).status == layout::kStatusOk);
    d.op = layout::kOpAppend;
    d.heads = kHeads;
    d.format = layout::kFormatF32;
    d.end = kTokens;
    AppendJob job;
    REQUIRE(store->BeginAppend(owner, d, reinterpret_cast<const uint8_t*>(keys.data()), &job) ==
            layout::kStatusOk);
    static_cast<CpuMemoryDevice*>(device.get())->RunAppend(&job);
    const Completion appended = store->EndAppend(&job);
    REQUIRE(appended.watermark == kTokens);
    REQUIRE(appended.prepare_ns > 0);
    d.op = layout::kOpKvStore;
    d.format = kv_format;
    REQUIRE(store->KvStore(owner, d, values.data()).watermark == kTokens);
    for (uint32_t h = 0; h < kHeads; ++h) {
      std::vector<float> query(3 * kDim);
      for (float& value : query) value = bell(random) * 4;
      const size_t block = payload.size() / kHeads;
      MakeQueryBlockFast(query, 3, kDim, layout::kFormatCodes2, 0.125F, {},
                         std::span(payload).subspan(h * block, block));
    }
  }

  Descriptor Query(uint8_t op) const {
    Descriptor d{};
    d.op = op;
    d.format = layout::kFormatCodes2;
    d.heads = kHeads;
    d.queries = 1;
    d.group = 3;
    d.score_op = layout::kScoreDot;
    d.group_op = layout::kGroupMax;
    d.select_op = layout::kSelectTopK;
    d.begin = 4;
    d.end = kTokens;
    d.k = 50;
    return d;
  }

  size_t TokenBytes() const { return layout::KvTokenBytes(kv_format, kDim); }
  const uint8_t* Value(uint32_t head, uint32_t token) const {
    return values.data() + (size_t{head} * kTokens + token) * TokenBytes();
  }
};

TEST_CASE("options that the processor cannot follow are refused") {
  CHECK_FALSE(MakeMemoryDevice({.isa = "abacus"}, nullptr).ok());
  CHECK_FALSE(MakeMemoryDevice({.threads = 0}, nullptr).ok());
}

TEST_CASE("what the device says of itself lets its operations pass validation") {
  Setup setup;
  CHECK(setup.device->name() == "cpu7");
  CHECK(setup.device->kind() == "cpu");
  const layout::AttachHello& caps = setup.device->caps();
  CHECK(layout::CompareHello(layout::NewHello(), caps).empty());
  CHECK(caps.max_k >= 8192);
  layout::Limits limits;
  limits.granted = caps;
  limits.granted.max_indexes = 2;
  limits.ring_kind = layout::kRingQuery;
  const uint64_t regions[] = {1 << 20};
  limits.region_bytes = regions;
  Descriptor d = setup.Query(layout::kOpScoreSelect);
  d.payload_length = 100;
  d.result_offset = 100;
  d.result_length = 1000;
  const layout::IndexInfo info = setup.store->Info(setup.owner, 0, 0);
  CHECK(layout::Validate(d, limits, info, {}) == layout::Verdict{});
}

TEST_CASE("a gather brings the listed tokens, a selection with it those that it selects") {
  const uint8_t kv_format =
      GENERATE(uint8_t{layout::kFormatF32}, uint8_t{layout::kFormatBf16}, uint8_t{layout::kFormatScaledKeys});
  Setup setup(kv_format);
  const Descriptor select = setup.Query(layout::kOpScoreSelect);
  Descriptor both = setup.Query(layout::kOpScoreGather);
  const size_t block = layout::ResultBlockBytes(select.select_op, 0, select.k, kDim);
  const size_t token_bytes = setup.TokenBytes();
  std::vector<uint8_t> ids(kHeads * block);
  std::vector<uint8_t> with_values(kHeads * (block + select.k * token_bytes));
  std::vector<uint32_t> list = {7, 0, kTokens - 1, 7, 100, 64};
  Descriptor gather{};
  gather.op = layout::kOpGather;
  gather.format = kv_format;
  gather.heads = kHeads;
  gather.k = 3;
  std::vector<uint8_t> gathered(kHeads * gather.k * token_bytes);
  const Operation operations[] = {
      {select, setup.owner, setup.payload.data(), ids.data()},
      {both, setup.owner, setup.payload.data(), with_values.data()},
      {gather, setup.owner, reinterpret_cast<const uint8_t*>(list.data()), gathered.data()}};
  REQUIRE(setup.device->Submit(operations) == 3);
  Completion completions[3];
  REQUIRE(setup.device->Poll(std::span(completions).first(2)) == 2);
  REQUIRE(setup.device->Poll(std::span(completions).subspan(2)) == 1);
  REQUIRE(setup.device->Poll(completions) == 0);
  CHECK(completions[0].count == kHeads * select.k);
  CHECK(completions[2].count == kHeads * gather.k);
  for (const Completion& completion : completions) {
    CHECK(completion.status == layout::kStatusOk);
  }
  REQUIRE(std::memcmp(ids.data(), with_values.data(), ids.size()) == 0);
  for (uint32_t h = 0; h < kHeads; ++h) {
    for (uint32_t n = 0; n < select.k; ++n) {
      uint32_t id;
      std::memcpy(&id, ids.data() + h * block + sizeof(layout::ResultHeader) + n * 4, 4);
      REQUIRE(id >= select.begin);
      REQUIRE(std::memcmp(with_values.data() + kHeads * block + (h * select.k + n) * token_bytes,
                          setup.Value(h, id), token_bytes) == 0);
    }
    for (uint32_t n = 0; n < gather.k; ++n) {
      REQUIRE(std::memcmp(gathered.data() + (h * gather.k + n) * token_bytes,
                          setup.Value(h, list[h * gather.k + n]), token_bytes) == 0);
    }
  }
}

TEST_CASE("an id past the end is refused with its place, its neighbours are not") {
  Setup setup;
  const std::vector<uint32_t> list = {1, 2, 3, 4, kTokens, 6};
  Descriptor gather{};
  gather.op = layout::kOpGather;
  gather.format = layout::kFormatF32;
  gather.heads = kHeads;
  gather.k = 3;
  std::vector<uint8_t> gathered(kHeads * gather.k * size_t{2} * kDim * 4);
  Descriptor stale = setup.Query(layout::kOpScoreSelect);
  stale.index_generation = 5;
  Descriptor unknown = setup.Query(layout::kOpScoreSelect);
  unknown.index_id = 1;
  Descriptor latest{};
  latest.op = layout::kOpScoreSelect;
  latest.format = layout::kFormatCodes2;
  latest.heads = latest.queries = 1;
  latest.select_op = layout::kSelectLatest;
  latest.end = 640;
  latest.k = 2;
  std::vector<uint8_t> last(64);
  const Operation operations[] = {
      {gather, setup.owner, reinterpret_cast<const uint8_t*>(list.data()), gathered.data()},
      {stale, setup.owner, setup.payload.data(), nullptr},
      {unknown, setup.owner, setup.payload.data(), nullptr},
      {latest, setup.owner, nullptr, last.data()}};
  REQUIRE(setup.device->Submit(operations) == 4);
  REQUIRE(setup.device->Quiesce().ok());
  Completion completions[4];
  REQUIRE(setup.device->Poll(completions) == 4);
  CHECK(completions[0].status == layout::kStatusBadPayload);
  CHECK(completions[0].detail == 16);
  CHECK(completions[1].status == layout::kStatusStaleGeneration);
  CHECK(completions[2].status == layout::kStatusUnknownIndex);
  CHECK(completions[3].status == layout::kStatusOk);
  uint32_t ids[2];
  std::memcpy(ids, last.data() + sizeof(layout::ResultHeader), sizeof(ids));
  CHECK(ids[0] == 638);
  CHECK(ids[1] == 639);
}

TEST_CASE("no more is taken than there is room for, and a reset forgets") {
  Setup setup;
  std::vector<uint8_t> results(11 * kHeads * 1024);
  std::vector<Operation> many;
  for (size_t i = 0; i < 11; ++i) {
    many.push_back({setup.Query(layout::kOpScoreSelect), setup.owner, setup.payload.data(),
                    results.data() + i * kHeads * 1024});
  }
  CHECK(setup.device->Submit(many) == 8);
  CHECK(setup.device->Submit(many) == 0);
  Completion completions[11];
  CHECK(setup.device->Poll(std::span(completions).first(5)) == 5);
  CHECK(setup.device->Submit(many) == 5);
  CHECK(setup.device->Poll(completions) == 3);
  CHECK(setup.device->Poll(completions) == 5);
  CHECK(setup.device->Submit(many) == 8);
  CHECK(setup.device->Reset().ok());
  CHECK(setup.device->Poll(completions) == 0);
}

}  // namespace
}  // namespace mnemo::memory_device::cpu
