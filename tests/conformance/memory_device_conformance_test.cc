// Every kind of memory device, over the calls of devices/memory/memory_device.h and record_memory.h alone:
// what it says of itself, K and V, bounds, resets, and its resident form. Its queries:
// memory_queries_test.cc.
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "tests/conformance/memory_bench.h"

namespace mnemo::conformance {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

TEST_CASE("memory devices say who they are and what they can") {
  ForEachDevice([](Bench& bench, const MemoryDeviceOptions& options) {
    CHECK(bench.device->kind() == options.kind);
    CHECK(bench.device->name() == "one");
    CHECK(layout::CompareHello(layout::NewHello(), bench.caps()).empty());
    for (const uint32_t op : {layout::kOpCreate, layout::kOpAppend, layout::kOpFork, layout::kOpTruncate,
                              layout::kOpFree, layout::kOpScoreSelect}) {
      CHECK(Has(bench.caps().ops, op));
    }
    CHECK(Has(bench.caps().ops, layout::kOpKvStore) == Has(bench.caps().ops, layout::kOpGather));
    CHECK(bench.caps().max_k >= 8192);
    CHECK(bench.caps().max_tokens >= 1);
    CHECK(bench.caps().quota_bytes == 0);
    CHECK(bench.caps().epoch == 0);
  });
}

TEST_CASE("memory devices give back the K and V that were stored, also after a fork was written over") {
  ForEachDevice([](Bench& bench, const MemoryDeviceOptions&) {
    if (!Has(bench.caps().ops, layout::kOpGather)) return;
    constexpr uint32_t kDim = 32;
    constexpr uint32_t kTokens = 3 * kPageTokens;
    std::mt19937 random(4);
    const layout::IndexSpec spec = SpecOf(layout::kFormatCodes2, kDim, layout::kFormatF16);
    const size_t token_bytes = layout::KvTokenBytes(spec.kv_format, kDim);
    REQUIRE(bench.Create(0, spec).status == layout::kStatusOk);
    REQUIRE(
        bench.Append(0, 0, kTokens, RandomKeys(random, size_t{kSlots} * kHeads * kTokens * kDim)).status ==
        layout::kStatusOk);
    // By index: [slots][heads][tokens] of K and V.
    std::vector<std::vector<uint8_t>> values(2);
    values[0].resize(size_t{kSlots} * kHeads * kTokens * token_bytes);
    const auto store = [&](uint32_t id, uint32_t begin, uint32_t end) {
      std::vector<uint8_t> payload;
      for (uint32_t column = 0; column < kSlots * kHeads; ++column) {
        for (size_t i = begin * token_bytes; i < end * token_bytes; ++i) {
          payload.push_back(static_cast<uint8_t>(random()));
          values[id][column * kTokens * token_bytes + i] = payload.back();
        }
      }
      Descriptor d{};
      d.op = layout::kOpKvStore;
      d.index_id = id;
      d.layer_slot = layout::kAllLayerSlots;
      d.heads = kHeads;
      d.format = spec.kv_format;
      d.begin = begin;
      d.end = end;
      REQUIRE(bench.table->KvStore(bench.owner, d, payload.data()).status == layout::kStatusOk);
    };
    const auto check = [&](uint32_t id, uint32_t tokens) {
      Descriptor d{};
      d.op = layout::kOpGather;
      d.index_id = id;
      d.layer_slot = static_cast<uint16_t>(random() % kSlots);
      d.heads = kHeads;
      d.format = spec.kv_format;
      d.k = 40;
      std::vector<uint32_t> ids(size_t{kHeads} * d.k);
      for (uint32_t& one : ids) one = static_cast<uint32_t>(random() % tokens);
      std::vector<uint8_t> result(ids.size() * token_bytes);
      const Operation operation{d, bench.owner, reinterpret_cast<const uint8_t*>(ids.data()), result.data()};
      REQUIRE(bench.Run({&operation, 1})[0].status == layout::kStatusOk);
      for (size_t n = 0; n < ids.size(); ++n) {
        const size_t column = size_t{d.layer_slot} * kHeads + n / d.k;
        REQUIRE(std::memcmp(result.data() + n * token_bytes,
                            values[id].data() + (column * kTokens + ids[n]) * token_bytes, token_bytes) == 0);
      }
      // Past the end: refused by its place, and the next one goes on.
      ids[1] = kTokens + 5;
      const Completion refused = bench.Run({&operation, 1})[0];
      CHECK(refused.status == layout::kStatusBadPayload);
      CHECK(refused.detail == 4);
    };
    store(0, 0, 100);
    check(0, 100);
    store(0, 100, kTokens);
    check(0, kTokens);
    REQUIRE(bench.Simple(layout::kOpFork, 1, 2 * kPageTokens, 0).status == layout::kStatusOk);
    values[1] = values[0];
    check(1, 2 * kPageTokens);
    store(1, 70, 90);
    store(0, 10, 80);
    check(0, kTokens);
    check(1, 2 * kPageTokens);
  });
}

TEST_CASE("memory devices take no more than they have room for, and a reset forgets what was submitted") {
  ForEachDevice([](Bench& bench, const MemoryDeviceOptions&) {
    std::mt19937 random(5);
    const layout::IndexSpec spec = SpecOf(layout::kFormatCodes2, 32);
    Records records(spec);
    const std::vector<float> keys = RandomKeys(random, size_t{kSlots} * kHeads * 2 * kPageTokens * 32);
    REQUIRE(bench.Create(0, spec).status == layout::kStatusOk);
    REQUIRE(bench.Append(0, 0, 2 * kPageTokens, keys).status == layout::kStatusOk);
    records.Append(keys, 2 * kPageTokens);
    Descriptor latest{};
    latest.op = layout::kOpScoreSelect;
    latest.heads = latest.queries = 1;
    latest.format = layout::kFormatCodes2;
    latest.select_op = layout::kSelectLatest;
    latest.end = 2 * kPageTokens;
    latest.k = 1;
    Query query = MakeQuery(latest, records, random);
    const std::vector<Operation> many(
        kOperations + 5, Operation{query.d, bench.owner, query.payload.data(), query.result.data()});
    const size_t room = bench.device->Submit(many);
    CHECK(room == kOperations);
    CHECK(bench.device->Submit(many) == 0);
    REQUIRE(bench.device->Quiesce().ok());
    std::vector<Completion> done(many.size());
    size_t count = 0;
    for (size_t came = 1; came > 0; count += came) came = bench.device->Poll(std::span(done).subspan(count));
    CHECK(count == kOperations);
    CHECK(bench.device->Submit(std::span(many).first(3)) == 3);
    const absl::Status reset = bench.device->Reset();
    REQUIRE((reset.ok() || absl::IsDataLoss(reset)));
    CHECK(bench.device->Poll(done) == 0);
    if (!reset.ok()) {
      bench.table->Forget();
      return;
    }
    std::vector<Query> again(1, query);
    CheckQueries(bench, again);
  });
}

TEST_CASE("memory that can be read back holds the resident form of the records") {
  ForEachDevice([](Bench& bench, const MemoryDeviceOptions&) {
    std::mt19937 random(6);
    const layout::IndexSpec spec = SpecOf(layout::kFormatCodes2, 64);
    Records records(spec);
    const std::vector<float> keys = RandomKeys(random, size_t{kSlots} * kHeads * 2 * kPageTokens * 64);
    REQUIRE(bench.Create(0, spec).status == layout::kStatusOk);
    REQUIRE(bench.Append(0, 0, 2 * kPageTokens, keys).status == layout::kStatusOk);
    records.Append(keys, 2 * kPageTokens);
    memory_device::RecordMemory& memory = bench.device->memory();
    const memory_device::Index& index = *bench.table->Find(bench.owner, 0);
    std::vector<uint8_t> block(index.at.block_bytes);
    std::vector<uint8_t> wanted(index.at.block_bytes);
    for (uint32_t n = 0; n < kSlots * kHeads * 2; ++n) {
      const uint32_t slot = n % kSlots;
      const uint32_t head = n / kSlots % kHeads;
      const uint32_t page = n / kSlots / kHeads;
      const absl::Status read = memory.Read(index.pages[page], index.at.BlockOffset(slot, head), block);
      if (absl::IsUnimplemented(read)) return;
      REQUIRE(read.ok());
      memory.layout().store_block(records.Of(slot, head)[page], spec.record_format, spec.dim, wanted.data());
      REQUIRE(block == wanted);
    }
  });
}

}  // namespace
}  // namespace mnemo::conformance
