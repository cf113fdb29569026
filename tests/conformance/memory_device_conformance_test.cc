// Every kind of memory device, over the calls of devices/memory/memory_device.h and record_memory.h alone:
// bulk operations by the index table, queries against the scalar reference of proto/layout, bit by bit.
// Operations that a device lacks by its caps are left out.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "devices/memory/codes.h"
#include "devices/memory/index_table.h"
#include "devices/memory/memory_device_registry.h"
#include "devices/memory/testing/late_device.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"
#include "proto/layout/ring.h"
#include "proto/layout/validate.h"

namespace mnemo::memory_device {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kSlots = 2;
constexpr uint32_t kHeads = 3;
constexpr uint32_t kOperations = 32;

// Every kind of the build that needs no card, and the test kind as several devices. MNEMO_XRT_IMAGE: the path
// of a card's image; then the kind xrt alone, on that card or its emulation.
std::vector<MemoryDeviceOptions> Devices() {
  testing::AddLateKind();
  const std::vector<MemoryDeviceOptions> variants = {
      {.kind = "late", .device_options = {{"delay_us", "50"}}},
      {.kind = "late", .device_options = {{"delay_us", "50"}, {"burst_us", "100"}, {"event", "1"}}},
      {.kind = "late", .device_options = {{"without", "gather,kv,cascade,group,codes"}}},
  };
  std::vector<MemoryDeviceOptions> devices;
  const char* const image = std::getenv("MNEMO_XRT_IMAGE");
  for (const MemoryDeviceKind& kind : MemoryDeviceKinds()) {
    if (image != nullptr || kind.name == "xrt") continue;
    if (kind.name != "card-model") {
      devices.push_back({.kind = kind.name});
      continue;
    }
    for (const char* channels : {"2", "8", "32"}) {
      devices.push_back({.kind = kind.name, .device_options = {{"channels", channels}}});
    }
  }
  if (image == nullptr) {
    devices.insert(devices.end(), variants.begin(), variants.end());
  } else {
    devices.push_back({.kind = "xrt", .device_options = {{"xclbin", image}, {"hbm_bytes", "67108864"}}});
  }
  for (MemoryDeviceOptions& options : devices) {
    options.name = "one";
    options.max_operations = kOperations;
    options.max_tokens = 1 << 14;
  }
  return devices;
}

bool Has(uint32_t mask, uint32_t bit) { return (mask >> bit & 1) != 0; }

// A device, its table, and one owner.
class Bench {
 public:
  explicit Bench(const MemoryDeviceOptions& options)
      : device(MakeMemoryDevice(options).value()),
        table(IndexTable::Create({}, &device->memory()).value()),
        owner(table->AddOwner({.quota_bytes = 64 << 20, .max_indexes = 8}).value()) {}

  const layout::AttachHello& caps() const { return device->caps(); }

  Completion Create(uint32_t id, const layout::IndexSpec& spec) {
    Descriptor d{};
    d.op = layout::kOpCreate;
    d.index_id = id;
    return table->Create(owner, d, spec);
  }
  // keys: f32 [slots][heads][tokens][dim].
  Completion Append(uint32_t id, uint32_t begin, uint32_t end, const std::vector<float>& keys) {
    Descriptor d{};
    d.op = layout::kOpAppend;
    d.index_id = id;
    d.layer_slot = layout::kAllLayerSlots;
    d.heads = kHeads;
    d.format = layout::kFormatF32;
    d.begin = begin;
    d.end = end;
    return table->Append(owner, d, reinterpret_cast<const uint8_t*>(keys.data()));
  }
  Completion Simple(uint8_t op, uint32_t id, uint32_t end, uint32_t source = 0) {
    Descriptor d{};
    d.op = op;
    d.index_id = id;
    d.end = end;
    d.k1 = source;
    return op == layout::kOpFork       ? table->Fork(owner, d)
           : op == layout::kOpTruncate ? table->Truncate(owner, d)
                                       : table->Free(owner, d);
  }
  // Whether what was agreed allows it.
  bool Allowed(Descriptor d) const {
    layout::Limits limits;
    limits.granted = caps();
    limits.granted.max_indexes = 8;
    limits.ring_kind = layout::kRingQuery;
    const uint64_t regions[] = {uint64_t{1} << 30};
    limits.region_bytes = regions;
    limits.next_seq = d.seq;
    d.payload_length = d.result_length = 1 << 20;
    d.result_offset = 1 << 20;
    if (d.select_op == layout::kSelectLatest) d.payload_length = 0;
    return layout::Validate(d, limits, table->Info(owner, d.index_id, d.layer_slot), {}).status ==
           layout::kStatusOk;
  }
  std::vector<Completion> Run(std::span<const Operation> operations) {
    std::vector<Completion> done(operations.size());
    size_t submitted = 0;
    for (size_t count = 0; count < done.size();) {
      submitted += device->Submit(operations.subspan(submitted));
      const size_t came = device->Poll(std::span(done).subspan(count));
      if (came == 0) std::this_thread::yield();
      count += came;
    }
    return done;
  }

  std::unique_ptr<MemoryDevice> device;
  std::unique_ptr<IndexTable> table;
  uint32_t owner;
};

layout::IndexSpec SpecOf(uint32_t format, uint32_t dim, uint32_t kv_format = 0) {
  layout::IndexSpec spec{};
  spec.max_tokens = 16 * kPageTokens;
  spec.layer_slots = kSlots;
  spec.heads = kHeads;
  spec.dim = static_cast<uint16_t>(dim);
  spec.record_format = static_cast<uint8_t>(format);
  spec.kv_format = static_cast<uint8_t>(kv_format);
  return spec;
}

std::vector<float> RandomKeys(std::mt19937& random, size_t count) {
  std::normal_distribution<float> bell;
  std::vector<float> keys(count);
  for (float& key : keys) key = bell(random);
  return keys;
}

// Wire records of an index, by slot and head, then page.
class Records {
 public:
  explicit Records(const layout::IndexSpec& spec) : spec_(spec), columns_(size_t{kSlots} * kHeads) {}
  void Append(const std::vector<float>& keys, uint32_t tokens) {
    for (size_t column = 0; column < columns_.size(); ++column) {
      for (uint32_t page = 0; page < tokens / kPageTokens; ++page) {
        std::vector<uint8_t> record(layout::RecordBytes(spec_.record_format, spec_.dim));
        layout::MakeRecord({keys.data() + (column * tokens + size_t{page} * kPageTokens) * spec_.dim,
                            spec_.dim * sizeof(float), layout::kFormatF32},
                           spec_.dim, spec_.record_format, record);
        columns_[column].push_back(std::move(record));
      }
    }
  }
  void Truncate(uint32_t pages) {
    for (auto& column : columns_) column.resize(pages);
  }
  std::vector<const uint8_t*> Of(uint32_t slot, uint32_t head) const {
    std::vector<const uint8_t*> pages;
    for (const auto& record : columns_[size_t{slot} * kHeads + head]) pages.push_back(record.data());
    return pages;
  }
  uint32_t pages() const { return static_cast<uint32_t>(columns_[0].size()); }
  const layout::IndexSpec& spec() const { return spec_; }

 private:
  layout::IndexSpec spec_;
  std::vector<std::vector<std::vector<uint8_t>>> columns_;
};

// A query over an index, with what the reference says of it.
struct Query {
  Descriptor d{};
  uint32_t dim = 0;
  uint32_t tokens = 0;  // of the index
  std::vector<uint8_t> payload;
  std::vector<uint8_t> result;
  std::vector<uint8_t> expected;
};

Descriptor RandomDescriptor(uint32_t id, const Records& records, std::mt19937& random) {
  const layout::IndexSpec& spec = records.spec();
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
  Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.index_id = id;
  d.format = spec.record_format;
  d.layer_slot = static_cast<uint16_t>(below(kSlots));
  d.first_head = static_cast<uint8_t>(below(kHeads));
  d.heads = static_cast<uint8_t>(1 + below(kHeads - d.first_head));
  d.queries = static_cast<uint8_t>(1 + below(2));
  d.group = static_cast<uint8_t>(1 + below(4));
  d.flags = static_cast<uint8_t>(below(4));
  d.begin = below(2) * std::min(records.pages(), 1U) * kPageTokens;
  d.end = records.pages() * kPageTokens;
  d.k = 1 + below(100);
  const bool codes = layout::IsCodeFormat(spec.record_format);
  d.score_op = static_cast<uint8_t>(spec.record_format == layout::kFormatBounds  ? layout::kScorePageBound
                                    : spec.record_format == layout::kFormatMeans ? layout::kScoreBlockMean
                                                                                 : layout::kScoreDot);
  const uint8_t groups[] = {layout::kGroupMax, layout::kGroupExp2Sum, layout::kGroupPlainMax};
  d.group_op = groups[below(3)];
  d.select_op = layout::kSelectTopK;
  if (codes && below(8) == 0) {
    d.score_op = layout::kScoreReluDot;
    d.group_op = layout::kGroupNone;
  } else if (below(6) == 0) {
    d.select_op = layout::kSelectThreshold;
    d.threshold = d.group_op == layout::kGroupExp2Sum ? 1000 : -static_cast<int32_t>(below(4096));
  } else if (spec.record_format == layout::kFormatCodes2 && below(2) == 0) {
    d.k1 = d.k + below(100);
  } else if (below(10) == 0) {
    d.select_op = layout::kSelectLatest;
    d.score_op = d.group_op = d.group = 0;
  } else if (spec.record_format == layout::kFormatCodes8 && below(6) == 0) {
    d.select_op = layout::kSelectWeightedSum;
    d.group_op = layout::kGroupExp2Sum;
    d.group = 1;
    d.flags = 0;
    d.k = 0;
  }
  return d;
}

Query MakeQuery(const Descriptor& d, const Records& records, std::mt19937& random) {
  const uint32_t dim = records.spec().dim;
  Query query;
  query.d = d;
  query.dim = dim;
  query.tokens = records.pages() * kPageTokens;
  const uint32_t blocks = uint32_t{d.heads} * d.queries;
  const size_t payload = d.group == 0 ? 0 : layout::QueryBlockBytes(d.group, dim);
  const size_t result = layout::ResultBlockBytes(d.select_op, d.flags, d.k, dim);
  query.payload.resize(blocks * payload);
  query.result.resize(blocks * result);
  query.expected.resize(blocks * result);
  for (uint32_t n = 0; n < blocks; ++n) {
    if (payload != 0) {
      std::vector<int16_t> weights(d.score_op == layout::kScoreReluDot ? d.group : 0);
      for (int16_t& weight : weights) weight = static_cast<int16_t>(random() % 1000);
      layout::MakeQueryBlock(RandomKeys(random, size_t{d.group} * dim), d.group, dim, d.format, 0.125F,
                             weights, std::span(query.payload).subspan(n * payload, payload));
    }
    const std::vector<const uint8_t*> pages = records.Of(d.layer_slot, d.first_head + n % d.heads);
    layout::ScoreSelect(d, {d.format, dim, pages}, query.payload.data() + n * payload,
                        std::span(query.expected).subspan(n * result, result));
  }
  return query;
}

// Bytes behind the last id and the last rank are nobody's.
bool SameResults(const Descriptor& d, uint32_t dim, const std::vector<uint8_t>& got,
                 const std::vector<uint8_t>& wanted) {
  if (d.select_op == layout::kSelectWeightedSum) return got == wanted;
  const size_t block = layout::ResultBlockBytes(d.select_op, d.flags, d.k, dim);
  for (size_t at = 0; at < wanted.size(); at += block) {
    layout::ResultHeader header;
    std::memcpy(&header, wanted.data() + at, sizeof header);
    const size_t ids = size_t{header.count} * sizeof(uint32_t);
    if (std::memcmp(got.data() + at, wanted.data() + at, sizeof header + ids) != 0) return false;
    const size_t ranks = at + layout::RanksOffset(d.k);
    if ((d.flags & layout::kFlagRanks) != 0 && d.select_op != layout::kSelectLatest &&
        std::memcmp(got.data() + ranks, wanted.data() + ranks, ids) != 0) {
      return false;
    }
  }
  return true;
}

void CheckQueries(Bench& bench, std::vector<Query>& queries) {
  std::vector<Operation> operations;
  for (uint32_t n = 0; n < queries.size(); ++n) {
    queries[n].d.seq = n;
    operations.push_back({queries[n].d, bench.owner, queries[n].payload.data(), queries[n].result.data()});
  }
  const std::vector<Completion> done = bench.Run(operations);
  for (uint32_t n = 0; n < queries.size(); ++n) {
    CAPTURE(n);
    REQUIRE(done[n].seq == n);  // in the order of submission
    REQUIRE(done[n].status == layout::kStatusOk);
    REQUIRE(done[n].detail == layout::kNoDetail);
    REQUIRE(done[n].index_id == queries[n].d.index_id);
    REQUIRE(done[n].watermark == queries[n].tokens);
    REQUIRE(SameResults(queries[n].d, queries[n].dim, queries[n].result, queries[n].expected));
  }
}

template <typename Body>
void ForEachDevice(const Body& body) {
  for (const MemoryDeviceOptions& options : Devices()) {
    std::string what = options.kind;
    for (const auto& [key, value] : options.device_options) what += " " + key + "=" + value;
    CAPTURE(what);
    Bench bench(options);
    body(bench, options);
  }
}

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

TEST_CASE("memory devices select what the reference selects, through appends, forks and ends") {
  ForEachDevice([](Bench& bench, const MemoryDeviceOptions&) {
    for (uint32_t format = layout::kFormatCodes2; format <= layout::kFormatMeans; ++format) {
      if (!Has(bench.caps().formats, format)) continue;
      for (const uint32_t dim : {32U, 128U}) {
        if (!Has(bench.caps().dims, dim == 32 ? 5 : 7)) continue;
        CAPTURE(format, dim);
        std::mt19937 random(format * 1000 + dim);
        const layout::IndexSpec spec = SpecOf(format, dim);
        std::vector<Records> models(2, Records(spec));
        REQUIRE(bench.Create(0, spec).status == layout::kStatusOk);
        const auto append = [&](uint32_t id, uint32_t pages) {
          const uint32_t begin = models[id].pages() * kPageTokens;
          const uint32_t tokens = pages * kPageTokens;
          const std::vector<float> keys = RandomKeys(random, size_t{kSlots} * kHeads * tokens * dim);
          REQUIRE(bench.Append(id, begin, begin + tokens, keys).watermark == begin + tokens);
          models[id].Append(keys, tokens);
        };
        const auto check = [&](uint32_t ids) {
          std::vector<Query> queries;
          for (int tries = 0; tries < 40; ++tries) {
            const uint32_t id = static_cast<uint32_t>(random() % ids);
            const Descriptor d = RandomDescriptor(id, models[id], random);
            if (bench.Allowed(d)) queries.push_back(MakeQuery(d, models[id], random));
          }
          REQUIRE(queries.size() >= 4);
          CheckQueries(bench, queries);
        };
        append(0, 3);
        check(1);
        append(0, 2);
        REQUIRE(bench.Simple(layout::kOpFork, 1, 4 * kPageTokens, 0).status == layout::kStatusOk);
        models[1] = Records(models[0]);
        models[1].Truncate(4);
        append(1, 3);
        check(2);
        REQUIRE(bench.Simple(layout::kOpTruncate, 0, 2 * kPageTokens).status == layout::kStatusOk);
        models[0].Truncate(2);
        append(0, 1);
        check(2);
        REQUIRE(bench.Simple(layout::kOpFree, 0, 0).status == layout::kStatusOk);
        std::swap(models[0], models[1]);
        REQUIRE(bench.Simple(layout::kOpFork, 0, 7 * kPageTokens, 1).status == layout::kStatusOk);
        models[1] = Records(models[0]);
        check(2);
        REQUIRE(bench.Simple(layout::kOpFree, 0, 0).status == layout::kStatusOk);
        REQUIRE(bench.Simple(layout::kOpFree, 1, 0).status == layout::kStatusOk);
      }
    }
    CHECK(bench.table->Stats(bench.owner).held_bytes == 0);
  });
}

// A card of two channels holds 64 pages of a group of 64: more are scanned by the largest scores of pages. 32
// entries are what it selects of them.
TEST_CASE("memory devices scan more tokens than a card has room for scores") {
  constexpr uint32_t kPages = 70;
  constexpr uint32_t kDim = 16;
  for (MemoryDeviceOptions options : Devices()) {
    if (options.kind == "late") continue;
    options.max_group = 64;
    options.max_k = 32;
    CAPTURE(options.kind);
    Bench bench(options);
    REQUIRE(bench.caps().max_tokens >= kPages * kPageTokens);
    for (const uint32_t format : {layout::kFormatCodes2, layout::kFormatCodes8}) {
      layout::IndexSpec spec = SpecOf(format, kDim);
      spec.max_tokens = kPages * kPageTokens;
      std::mt19937 random(format);
      Records records(spec);
      const std::vector<float> keys =
          RandomKeys(random, size_t{kSlots} * kHeads * kPages * kPageTokens * kDim);
      REQUIRE(bench.Create(0, spec).status == layout::kStatusOk);
      REQUIRE(bench.Append(0, 0, kPages * kPageTokens, keys).watermark == kPages * kPageTokens);
      records.Append(keys, kPages * kPageTokens);
      std::vector<Query> queries;
      for (uint32_t n = 0; n < 4; ++n) {
        Descriptor d = RandomDescriptor(0, records, random);
        d.score_op = layout::kScoreDot;
        d.group_op = n % 2 == 0 ? layout::kGroupMax : layout::kGroupPlainMax;
        d.select_op = layout::kSelectTopK;
        d.threshold = 0;
        d.heads = d.queries = 1;
        d.group = static_cast<uint8_t>(61 + n);
        d.k = n == 0 ? 32 : 1 + static_cast<uint32_t>(random() % 32);
        d.k1 = 0;
        d.flags = static_cast<uint8_t>(random() % 4);
        d.begin = static_cast<uint32_t>(random() % 100);
        d.end -= static_cast<uint32_t>(random() % 100);
        REQUIRE(bench.Allowed(d));
        queries.push_back(MakeQuery(d, records, random));
      }
      CheckQueries(bench, queries);
      REQUIRE(bench.Simple(layout::kOpFree, 0, 0).status == layout::kStatusOk);
    }
  }
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
    RecordMemory& memory = bench.device->memory();
    const Index& index = *bench.table->Find(bench.owner, 0);
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
}  // namespace mnemo::memory_device
