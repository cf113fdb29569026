#include "tests/conformance/memory_bench.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "devices/memory/memory_device_registry.h"
#include "devices/memory/testing/late_device.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"
#include "proto/layout/ring.h"

namespace mnemo::conformance {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

std::vector<MemoryDeviceOptions> Devices() {
  memory_device::testing::AddLateKind();
  const std::vector<MemoryDeviceOptions> variants = {
      {.kind = "late", .device_options = {{"delay_us", "50"}}},
      {.kind = "late", .device_options = {{"delay_us", "50"}, {"burst_us", "100"}, {"event", "1"}}},
      {.kind = "late", .device_options = {{"without", "gather,kv,cascade,group,codes"}}},
  };
  std::vector<MemoryDeviceOptions> devices;
  const char* const image = std::getenv("MNEMO_XRT_IMAGE");
  for (const memory_device::MemoryDeviceKind& kind : memory_device::MemoryDeviceKinds()) {
    if (image != nullptr || kind.name == "xrt") continue;
    if (kind.name == "rtl") {
      // Seeds change latencies, and so what meets in the card.
      for (int seed = 1; seed <= std::min<int>(8, rtl_tests::Cases(1)); ++seed) {
        devices.push_back({.kind = kind.name, .device_options = {{"seed", std::to_string(seed)}}});
      }
      continue;
    }
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

std::vector<Query> ShareOf(const MemoryDeviceOptions& options, const std::vector<Query>& queries) {
  const bool emulated = options.kind == "xrt" && std::getenv("XCL_EMULATION_MODE") != nullptr;
  if (rtl_tests::Cases(1) > 1 || !(emulated || options.kind == "rtl")) return queries;
  std::vector<Query> share;
  for (size_t n = emulated ? 1 : 0; n < queries.size(); n += 2) share.push_back(queries[n]);
  return share;
}

std::string NameOf(const MemoryDeviceOptions& options) {
  std::string what = options.kind;
  for (const auto& [key, value] : options.device_options) what += " " + key + "=" + value;
  return what;
}

Bench::Bench(const MemoryDeviceOptions& options)
    : device(MakeMemoryDevice(options).value()),
      table(IndexTable::Create({}, &device->memory()).value()),
      owner(table->AddOwner({.quota_bytes = 64 << 20, .max_indexes = 8}).value()) {}

Completion Bench::Create(uint32_t id, const layout::IndexSpec& spec) {
  Descriptor d{};
  d.op = layout::kOpCreate;
  d.index_id = id;
  return table->Create(owner, d, spec);
}

Completion Bench::Append(uint32_t id, uint32_t begin, uint32_t end, const std::vector<float>& keys) {
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

Completion Bench::Simple(uint8_t op, uint32_t id, uint32_t end, uint32_t source) {
  Descriptor d{};
  d.op = op;
  d.index_id = id;
  d.end = end;
  d.k1 = source;
  return op == layout::kOpFork       ? table->Fork(owner, d)
         : op == layout::kOpTruncate ? table->Truncate(owner, d)
                                     : table->Free(owner, d);
}

layout::Verdict Bench::Check(Descriptor d) const {
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
  return layout::Validate(d, limits, table->Info(owner, d.index_id, d.layer_slot), {});
}

std::vector<Completion> Bench::Run(std::span<const Operation> operations) {
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

bool HasIndex(const layout::AttachHello& caps, uint32_t format, uint32_t dim) {
  return Has(caps.formats, format) && Has(caps.dims, static_cast<uint32_t>(std::bit_width(dim)) - 1);
}

size_t LackingField(const Descriptor& d, const layout::AttachHello& caps) {
  if (d.queries > caps.max_queries) return offsetof(Descriptor, queries);
  if (!Has(caps.select_ops, d.select_op)) return offsetof(Descriptor, select_op);
  if (d.select_op != layout::kSelectLatest) {
    if (!Has(caps.score_ops, d.score_op)) return offsetof(Descriptor, score_op);
    if (!Has(caps.group_ops, d.group_op)) return offsetof(Descriptor, group_op);
    if (d.group > caps.max_group) return offsetof(Descriptor, group);
  }
  if (d.k > caps.max_k) return offsetof(Descriptor, k);
  if (d.k1 != 0 && caps.cascade == 0) return offsetof(Descriptor, k1);
  return SIZE_MAX;
}

layout::IndexSpec SpecOf(uint32_t format, uint32_t dim, uint32_t kv_format) {
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

void Records::Append(const std::vector<float>& keys, uint32_t tokens) {
  for (size_t column = 0; column < columns_.size(); ++column) {
    for (uint32_t page = 0; page < tokens / kPageTokens; ++page) {
      auto record =
          std::make_shared<std::vector<uint8_t>>(layout::RecordBytes(spec_.record_format, spec_.dim));
      layout::MakeRecord({keys.data() + (column * tokens + size_t{page} * kPageTokens) * spec_.dim,
                          spec_.dim * sizeof(float), layout::kFormatF32},
                         spec_.dim, spec_.record_format, *record);
      columns_[column].push_back(std::move(record));
    }
  }
}

std::vector<const uint8_t*> Records::Of(uint32_t slot, uint32_t head) const {
  std::vector<const uint8_t*> pages;
  for (const auto& record : columns_[size_t{slot} * kHeads + head]) pages.push_back(record->data());
  return pages;
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
      for (int16_t& weight : weights) weight = static_cast<int16_t>(random() % 2000 - 500);
      layout::MakeQueryBlock(RandomKeys(random, size_t{d.group} * dim), d.group, dim, d.format, 0.125F,
                             weights, std::span(query.payload).subspan(n * payload, payload));
    }
    const std::vector<const uint8_t*> pages = records.Of(d.layer_slot, d.first_head + n % d.heads);
    layout::ScoreSelect(d, {d.format, dim, pages}, query.payload.data() + n * payload,
                        std::span(query.expected).subspan(n * result, result));
  }
  return query;
}

void CheckQueries(Bench& bench, std::vector<Query>& queries) {
  std::vector<Operation> operations;
  for (uint32_t n = 0; n < queries.size(); ++n) {
    queries[n].d.seq = n;
    operations.push_back({queries[n].d, bench.owner, queries[n].payload.data(), queries[n].result.data()});
  }
  const std::vector<Completion> done = bench.Run(operations);
  for (uint32_t n = 0; n < queries.size(); ++n) {
    const Query& query = queries[n];
    const Descriptor& d = query.d;
    uint32_t count = 0;
    for (size_t at = 0; at < query.expected.size(); at += query.expected.size() / d.heads / d.queries) {
      uint32_t of_block;
      std::memcpy(&of_block, query.expected.data() + at, sizeof of_block);
      count += of_block;
    }
    INFO("query " << n << ": format " << int{d.format} << ", dim " << query.dim << ", heads "
                  << int{d.first_head} << " + " << int{d.heads} << ", positions " << int{d.queries}
                  << ", group " << int{d.group} << ", score " << int{d.score_op} << ", group op "
                  << int{d.group_op} << ", select " << int{d.select_op} << ", flags " << int{d.flags} << ", ["
                  << d.begin << ", " << d.end << ") of " << query.tokens << ", k " << d.k << ", k1 " << d.k1
                  << ", threshold " << d.threshold);
    REQUIRE(done[n].seq == n);  // in the order of submission
    REQUIRE(done[n].status == layout::kStatusOk);
    REQUIRE(done[n].detail == layout::kNoDetail);
    REQUIRE(done[n].index_id == d.index_id);
    REQUIRE(done[n].watermark == query.tokens);
    REQUIRE(done[n].count == count);
    REQUIRE(query.Answered());
  }
}

}  // namespace mnemo::conformance
