#include "devices/memory/cpu/query_batch.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "devices/memory/codes.h"
#include "devices/memory/index_table.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"
#include "tests/conformance/allocation_count.h"

namespace mnemo::memory_device::cpu {
namespace {

using layout::Descriptor;
using layout::kPageTokens;

std::vector<std::string> Isas() {
  const devices::cpu::IndexKernels* kernels[8];
  const int count = devices::cpu::AvailableIndexKernels(kernels, 8);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(kernels[i]->isa);
  return names;
}

// Keys of an index, and the records that the reference makes of them.
struct Shape {
  uint32_t format;
  uint32_t dim;
  uint32_t slots;
  uint32_t heads;
  uint32_t pages;
};

class Fixture {
 public:
  // kind: 0 ordinary keys, 1 few distinct keys (ties), 2 keys that grow along a direction (ascending scores),
  // 3 zeros in some pages.
  Fixture(const Shape& shape, int kind, std::mt19937& random, uint32_t kv_format = 0) : shape_(shape) {
    table_ = IndexTable::Create({}, &memory_).value();
    owner_ = table_->AddOwner({.quota_bytes = 1 << 30, .max_indexes = 4}).value();
    Descriptor d{};
    d.op = layout::kOpCreate;
    d.index_id = 2;
    d.index_generation = 9;
    layout::IndexSpec spec{};
    spec.max_tokens = (shape.pages + 2) * kPageTokens;
    spec.layer_slots = static_cast<uint16_t>(shape.slots);
    spec.heads = static_cast<uint16_t>(shape.heads);
    spec.dim = static_cast<uint16_t>(shape.dim);
    spec.record_format = static_cast<uint8_t>(shape.format);
    spec.kv_format = static_cast<uint8_t>(kv_format);
    REQUIRE(table_->Create(owner_, d, spec).status == layout::kStatusOk);
    const uint32_t tokens = shape.pages * kPageTokens;
    keys_.resize(size_t{shape.slots} * shape.heads * tokens * shape.dim);
    std::normal_distribution<float> bell;
    for (size_t i = 0; i < keys_.size(); ++i) {
      const size_t token = i / shape.dim % tokens;
      const float growing = static_cast<float>(token) * 0.01F;
      keys_[i] = kind == 1                                   ? static_cast<float>(random() % 2)
                 : kind == 2                                 ? growing
                 : kind == 3 && token / kPageTokens % 2 == 0 ? 0.0F
                                                             : bell(random);
    }
    d = {};
    d.op = layout::kOpAppend;
    d.index_id = 2;
    d.index_generation = 9;
    d.layer_slot = layout::kAllLayerSlots;
    d.heads = static_cast<uint8_t>(shape.heads);
    d.format = layout::kFormatF32;
    d.end = tokens;
    REQUIRE(table_->Append(owner_, d, reinterpret_cast<const uint8_t*>(keys_.data())).status ==
            layout::kStatusOk);
    const size_t bytes = layout::RecordBytes(shape.format, shape.dim);
    records_.resize(size_t{shape.slots} * shape.heads * shape.pages * bytes);
    for (uint32_t column = 0; column < shape.slots * shape.heads; ++column) {
      for (uint32_t p = 0; p < shape.pages; ++p) {
        MakeRecordFast({keys_.data() + (size_t{column} * tokens + p * kPageTokens) * shape.dim,
                        shape.dim * 4UL, layout::kFormatF32},
                       shape.dim, shape.format, Record(column, p));
      }
    }
  }

  std::span<uint8_t> Record(uint32_t column, uint32_t page) {
    const size_t bytes = layout::RecordBytes(shape_.format, shape_.dim);
    return std::span(records_).subspan((size_t{column} * shape_.pages + page) * bytes, bytes);
  }

  std::vector<uint8_t> Payload(const Descriptor& d, std::mt19937& random) const {
    std::normal_distribution<float> bell;
    std::vector<uint8_t> payload;
    for (uint32_t n = 0; n < uint32_t{d.queries} * d.heads && d.group != 0; ++n) {
      std::vector<float> queries(size_t{d.group} * shape_.dim);
      const float size = std::exp2(static_cast<float>(random() % 8));
      for (float& value : queries) value = bell(random) * size;
      std::vector<int16_t> weights(d.group);
      for (int16_t& weight : weights) weight = static_cast<int16_t>(random() % 60000 - 20000);
      std::vector<uint8_t> block(layout::QueryBlockBytes(d.group, shape_.dim));
      MakeQueryBlockFast(queries, d.group, shape_.dim, shape_.format, 0.125F,
                         d.score_op == layout::kScoreReluDot ? weights : std::vector<int16_t>(), block);
      payload.insert(payload.end(), block.begin(), block.end());
    }
    return payload;
  }

  std::vector<uint8_t> Expected(const Descriptor& d, const std::vector<uint8_t>& payload) {
    const size_t block = layout::ResultBlockBytes(d.select_op, d.flags, d.k, shape_.dim);
    std::vector<uint8_t> result(block * d.queries * d.heads);
    for (uint32_t n = 0; n < uint32_t{d.queries} * d.heads; ++n) {
      const uint32_t column = d.layer_slot * shape_.heads + d.first_head + n % d.heads;
      std::vector<const uint8_t*> records;
      for (uint32_t p = 0; p < shape_.pages; ++p) records.push_back(Record(column, p).data());
      layout::ScoreSelect(
          d, {shape_.format, shape_.dim, records},
          payload.data() + n * (d.group == 0 ? 0 : layout::QueryBlockBytes(d.group, shape_.dim)),
          std::span(result).subspan(n * block, block));
    }
    return result;
  }

  Shape shape_;
  CpuRecordMemory memory_;
  std::unique_ptr<IndexTable> table_;
  uint32_t owner_ = 0;
  std::vector<float> keys_;
  std::vector<uint8_t> records_;
};

Descriptor RandomQuery(const Shape& shape, std::mt19937& random) {
  Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.index_id = 2;
  d.index_generation = 9;
  d.format = static_cast<uint8_t>(shape.format);
  d.layer_slot = static_cast<uint16_t>(random() % shape.slots);
  d.first_head = static_cast<uint8_t>(random() % shape.heads);
  d.heads = static_cast<uint8_t>(1 + random() % (shape.heads - d.first_head));
  d.queries = static_cast<uint8_t>(1 + random() % 2);
  d.group = static_cast<uint8_t>(1 + random() % 8);
  d.flags = static_cast<uint8_t>(random() % 4);
  const bool codes = layout::IsCodeFormat(shape.format);
  if (!codes && random() % 2 != 0) d.flags |= layout::kFlagPages64;
  const uint32_t step = layout::EntryTokens(shape.format, d.flags);
  const uint32_t entries = shape.pages * kPageTokens / step;
  uint32_t a = static_cast<uint32_t>(random() % (entries + 1));
  uint32_t b = static_cast<uint32_t>(random() % (entries + 1));
  if (a > b) std::swap(a, b);
  d.begin = random() % 3 == 0 ? 0 : a * step;
  d.end = random() % 3 == 0 ? entries * step : b * step;
  if (d.begin > d.end) d.begin = d.end;
  const uint32_t scanned = (d.end - d.begin) / step;
  d.k = 1 + static_cast<uint32_t>(random() % (scanned + 10));
  d.score_op = shape.format == layout::kFormatBounds  ? layout::kScorePageBound
               : shape.format == layout::kFormatMeans ? layout::kScoreBlockMean
               : random() % 4 == 0                    ? layout::kScoreReluDot
                                                      : layout::kScoreDot;
  d.group_op = d.score_op == layout::kScoreReluDot ? layout::kGroupNone
               : random() % 3 == 0                 ? layout::kGroupExp2Sum
               : random() % 3 == 0                 ? layout::kGroupPlainMax
                                                   : layout::kGroupMax;
  d.select_op = random() % 3 == 0 ? layout::kSelectThreshold : layout::kSelectTopK;
  if (d.select_op == layout::kSelectThreshold) {
    d.threshold = d.group_op == layout::kGroupMax        ? -static_cast<int32_t>(random() % 4096)
                  : d.group_op == layout::kGroupPlainMax ? static_cast<int32_t>(random() % 65535) - 32767
                  : d.group_op == layout::kGroupExp2Sum  ? static_cast<int32_t>(random() % 3000)
                                                         : static_cast<int32_t>(random() % 100000) - 50000;
  }
  if (shape.format == layout::kFormatCodes2 && random() % 3 == 0) {
    d.k1 = d.k + static_cast<uint32_t>(random() % (scanned + 5));
  } else if (random() % 12 == 0) {
    d.select_op = layout::kSelectLatest;
    d.score_op = d.group_op = d.group = 0;
    d.threshold = 0;
  } else if (shape.format == layout::kFormatCodes8 && random() % 6 == 0) {
    d.select_op = layout::kSelectWeightedSum;
    d.score_op = layout::kScoreDot;
    d.group_op = layout::kGroupExp2Sum;
    d.group = 1;
    d.flags = 0;
    d.k = 0;
    d.threshold = 0;
  }
  return d;
}

void RunOn(QueryBatch& batch, int threads) {
  for (int phase = 0; phase < batch.phases(); ++phase) {
    std::atomic<uint32_t> next = 0;
    const auto work = [&](int thread) {
      for (uint32_t item = next++; item < batch.items(phase); item = next++) {
        batch.RunItem(phase, item, thread);
      }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
    work(0);
    for (std::thread& other : others) other.join();
  }
}

// Batches of random operations on one index against the scalar reference, on every instruction set and with 1
// to 4 threads.
void CheckAgainstReference(const Shape& shape, int kind, uint32_t seed, int batches, uint64_t scratch_bytes) {
  std::mt19937 random(seed);
  Fixture fixture(shape, kind, random);
  for (const std::string& isa : Isas()) {
    auto batch = QueryBatch::Create({.max_operations = 8,
                                     .max_blocks = 40,
                                     .max_tokens = shape.pages * kPageTokens,
                                     .max_group = 8,
                                     .threads = 4,
                                     .scratch_bytes = scratch_bytes,
                                     .isa = isa})
                     .value();
    for (int n = 0; n < batches; ++n) {
      std::vector<Operation> operations(1 + random() % 5);
      std::vector<std::vector<uint8_t>> payloads(operations.size());
      std::vector<std::vector<uint8_t>> expected(operations.size());
      std::vector<std::vector<uint8_t>> results(operations.size());
      for (size_t i = 0; i < operations.size(); ++i) {
        const Descriptor d = RandomQuery(shape, random);
        payloads[i] = fixture.Payload(d, random);
        expected[i] = fixture.Expected(d, payloads[i]);
        results[i].resize(expected[i].size());
        operations[i] = {d, fixture.owner_, payloads[i].data(), results[i].data()};
      }
      std::vector<layout::Completion> completions(operations.size());
      for (size_t done = 0; done < operations.size();) {
        const size_t taken = batch->Begin(std::span(operations).subspan(done), fixture.memory_);
        REQUIRE(taken > 0);
        RunOn(*batch, 1 + static_cast<int>(seed + n) % 4);
        batch->Finish(std::span(completions).subspan(done, taken));
        done += taken;
      }
      for (size_t i = 0; i < operations.size(); ++i) {
        const Descriptor& d = operations[i].descriptor;
        INFO(isa << ", format " << shape.format << ", dim " << shape.dim << ", group " << int{d.group}
                 << ", score " << int{d.score_op} << ", group op " << int{d.group_op} << ", select "
                 << int{d.select_op} << ", k " << d.k << ", k1 " << d.k1 << ", [" << d.begin << ", " << d.end
                 << "), flags " << int{d.flags} << ", threshold " << d.threshold << ", seed " << seed
                 << ", batch " << n);
        REQUIRE(completions[i].status == layout::kStatusOk);
        REQUIRE(results[i] == expected[i]);
        uint32_t count = 0;
        for (size_t at = 0; at < results[i].size(); at += results[i].size() / (size_t{d.queries} * d.heads)) {
          uint32_t of_block;
          std::memcpy(&of_block, results[i].data() + at, 4);
          count += of_block;
        }
        REQUIRE(completions[i].count == count);
        REQUIRE(completions[i].watermark == shape.pages * kPageTokens);
      }
    }
  }
}

TEST_CASE("operations equal the scalar reference") {
  uint32_t seed = 100;
  for (uint32_t format = layout::kFormatCodes2; format <= layout::kFormatMeans; ++format) {
    for (const uint32_t dim : {16U, 32U, 64U, 128U, 256U, 512U}) {
      const uint32_t pages = dim > 128 ? 3 : 1 + (seed * 7) % 23;
      const uint32_t heads = dim == 32 ? 7 : 3;  // more than are scored together, or fewer
      CheckAgainstReference({format, dim, 2, heads, pages}, 0, seed, 4 / MNEMO_TEST_REDUCTION, 0);
      ++seed;
    }
  }
}

TEST_CASE("a scan of nothing within a page leaves its neighbours' scores alone") {
  std::mt19937 random(450);
  const Shape shape{layout::kFormatCodes8, 16, 1, 1, 4};
  Fixture fixture(shape, 0, random);
  auto batch = QueryBatch::Create({.max_tokens = 4 * kPageTokens}).value();
  std::vector<Operation> operations(3);
  std::vector<std::vector<uint8_t>> payloads(operations.size());
  std::vector<std::vector<uint8_t>> expected(operations.size());
  std::vector<std::vector<uint8_t>> results(operations.size());
  for (size_t i = 0; i < operations.size(); ++i) {
    Descriptor d = RandomQuery(shape, random);
    d.score_op = layout::kScoreDot;
    d.group_op = layout::kGroupExp2Sum;
    d.select_op = layout::kSelectTopK;
    d.group = d.heads = d.queries = 1;
    d.k1 = 0;
    d.threshold = 0;
    d.flags = layout::kFlagRanks;
    d.begin = i == 1 ? 63 : 0;
    d.end = i == 1 ? 63 : 4 * kPageTokens;
    d.k = 100;
    payloads[i] = fixture.Payload(d, random);
    expected[i] = fixture.Expected(d, payloads[i]);
    results[i].resize(expected[i].size());
    operations[i] = {d, fixture.owner_, payloads[i].data(), results[i].data()};
  }
  std::vector<layout::Completion> completions(operations.size());
  batch->RunAll(operations, fixture.memory_, completions);
  CHECK(results == expected);
}

TEST_CASE("a batch allocates nothing") {
  std::mt19937 random(400);
  const Shape shape{layout::kFormatCodes2, 32, 1, 2, 40};
  Fixture fixture(shape, 0, random);
  auto batch =
      QueryBatch::Create({.max_operations = 4, .max_blocks = 8, .max_tokens = 40 * kPageTokens}).value();
  std::vector<Operation> operations;
  std::vector<std::vector<uint8_t>> payloads(60);
  std::vector<uint8_t> result(1 << 20);
  for (std::vector<uint8_t>& payload : payloads) {
    const Descriptor d = RandomQuery(shape, random);
    payload = fixture.Payload(d, random);
    operations.push_back({d, fixture.owner_, payload.data(), result.data()});
  }
  std::vector<layout::Completion> completions(operations.size());
  const uint64_t before = conformance::AllocationCount();
  batch->RunAll(operations, fixture.memory_, completions);
  CHECK(conformance::AllocationCount() == before);
  for (const layout::Completion& completion : completions) {
    CHECK(completion.status == layout::kStatusOk);
  }
}

TEST_CASE("few of many entries, chosen by the best of each part, are those of the reference") {
  uint32_t seed = 300;
  for (const uint32_t format :
       {uint32_t{layout::kFormatCodes2}, uint32_t{layout::kFormatCodes8}, uint32_t{layout::kFormatBounds}}) {
    for (const int kind : {0, 1, 2, 3}) {
      const Shape shape{format, 16, 1, 3, format == layout::kFormatBounds ? 200U : 50U};
      std::mt19937 random(seed++);
      Fixture fixture(shape, kind, random);
      for (const std::string& isa : Isas()) {
        auto batch =
            QueryBatch::Create({.max_tokens = shape.pages * kPageTokens, .threads = 2, .isa = isa}).value();
        for (int n = 0; n < 12; ++n) {
          Descriptor d = RandomQuery(shape, random);
          d.select_op = layout::kSelectTopK;
          d.score_op = format == layout::kFormatBounds ? layout::kScorePageBound : layout::kScoreDot;
          d.group_op = n % 2 == 0 ? layout::kGroupMax : layout::kGroupPlainMax;
          d.group = d.queries = 1;
          d.k1 = 0;
          d.threshold = 0;
          d.flags &= 3;
          d.begin = n % 3 * 16;
          d.end = shape.pages * kPageTokens - n % 4 * 16;
          d.k = 1 + static_cast<uint32_t>(random() % 12);
          const auto payload = fixture.Payload(d, random);
          const auto expected = fixture.Expected(d, payload);
          std::vector<uint8_t> result(expected.size());
          const Operation operation{d, fixture.owner_, payload.data(), result.data()};
          REQUIRE(batch->Begin({&operation, 1}, fixture.memory_) == 1);
          RunOn(*batch, 2);
          layout::Completion completion;
          batch->Finish({&completion, 1});
          INFO(isa << ", format " << format << ", kind " << kind << ", k " << d.k << ", [" << d.begin << ", "
                   << d.end << ")");
          REQUIRE(result == expected);
        }
      }
    }
  }
}

TEST_CASE("ties, ascending scores and pages of zeros select as the reference does") {
  uint32_t seed = 200;
  for (uint32_t format = layout::kFormatCodes2; format <= layout::kFormatMeans; ++format) {
    for (const int kind : {1, 2, 3}) {
      CheckAgainstReference({format, 64, 1, 2, 20}, kind, seed, 4 / MNEMO_TEST_REDUCTION, 0);
      CheckAgainstReference({format, 16, 1, 2, 9}, kind, seed + 1, 3, 1 << 20);
      seed += 2;
    }
  }
}

}  // namespace
}  // namespace mnemo::memory_device::cpu
