// A worker that performs random operations on its indexes and compares all results with the reference.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "proto/layout/reference.h"
#include "server/memory_service/plane_fixture.h"

namespace mnemo::memory_service {

using layout::IndexSpec;

// Catch's checks may be used on one thread only. This macro ends the process and prints the seed that repeats
// the failure.
#define MNEMO_EXPECT(condition)                                                                            \
  do {                                                                                                     \
    if (!(condition)) {                                                                                    \
      std::fprintf(stderr, "%s:%d: seed %u, step %u: %s\n", __FILE__, __LINE__, seed_, step_, #condition); \
      std::abort();                                                                                        \
    }                                                                                                      \
  } while (false)

// Expected contents of an index: records by slot, head and page.
struct Model {
  IndexSpec spec;
  uint16_t generation = 0;
  uint32_t tokens = 0;
  std::vector<std::vector<std::vector<uint8_t>>> columns;  // [slot * heads + head][page]

  void Append(std::span<const float> keys, uint32_t count) {
    for (uint32_t column = 0; column < columns.size(); ++column) {
      for (uint32_t page = 0; page < count / 64; ++page) {
        const float* data = keys.data() + (size_t{column} * count + page * 64) * spec.dim;
        std::vector<uint8_t> record(layout::RecordBytes(spec.record_format, spec.dim));
        layout::MakeRecord({data, spec.dim * sizeof(float), layout::kFormatF32}, spec.dim, spec.record_format,
                           record);
        columns[column].push_back(std::move(record));
      }
    }
    tokens += count;
  }
};

class RandomWorker {
 public:
  RandomWorker(const std::string& address, const std::string& owner, uint32_t seed)
      : worker_(address, owner), seed_(seed), random_(seed) {}

  void Step() {
    ++step_;
    const uint32_t choice = random_() % 16;
    if (models_.empty() || (choice == 0 && models_.size() < 6)) {
      Create();
    } else if (choice < 4) {
      Append();
    } else if (choice == 4) {
      Truncate();
    } else if (choice == 5 && models_.size() < 6) {
      Fork();
    } else if (choice == 6) {
      Free();
    } else {
      Query();
    }
  }

 private:
  static constexpr uint32_t kMaxTokens = 64 * 12;

  Descriptor Plain(uint8_t op, uint32_t id, uint16_t generation) {
    Descriptor d{};
    d.op = op;
    d.index_id = id;
    d.index_generation = generation;
    return d;
  }
  uint32_t FreeId() {
    uint32_t id = random_() % 8;
    while (models_.contains(id)) id = (id + 1) % 8;
    return id;
  }
  std::map<uint32_t, Model>::iterator Any() {
    auto at = models_.begin();
    std::advance(at, random_() % models_.size());
    return at;
  }
  void Create() {
    const uint8_t formats[] = {layout::kFormatCodes2, layout::kFormatCodes4, layout::kFormatCodes8,
                               layout::kFormatBounds, layout::kFormatMeans};
    Model model;
    model.spec = SpecOf(formats[random_() % 5], static_cast<uint16_t>(1 + random_() % 3),
                        static_cast<uint16_t>(1 + random_() % 3), static_cast<uint16_t>(32 << random_() % 2),
                        kMaxTokens);
    model.columns.resize(size_t{model.spec.layer_slots} * model.spec.heads);
    const uint32_t id = FreeId();
    model.generation = ++generations_[id];
    MNEMO_EXPECT(worker_.Create(id, model.generation, model.spec).status == layout::kStatusOk);
    models_[id] = std::move(model);
  }
  void Append() {
    auto& [id, model] = *Any();
    const uint32_t count = 64 * (1 + random_() % 3);
    if (model.tokens + count > kMaxTokens) return;
    const std::vector<float> keys = RandomFloats(random_, model.columns.size() * count * model.spec.dim);
    const Completion done = worker_.RunOne(
        Ring::kBulk,
        worker_.AppendOf(id, model.generation, model.spec, model.tokens, model.tokens + count, keys));
    MNEMO_EXPECT(done.status == layout::kStatusOk);
    model.Append(keys, count);
    MNEMO_EXPECT(done.watermark == model.tokens);
  }
  void Truncate() {
    auto& [id, model] = *Any();
    Descriptor d = Plain(layout::kOpTruncate, id, model.generation);
    d.end = static_cast<uint32_t>(random_() % (model.tokens / 64 + 1)) * 64;
    MNEMO_EXPECT(worker_.RunOne(Ring::kBulk, d).status == layout::kStatusOk);
    model.tokens = d.end;
    for (auto& column : model.columns) column.resize(d.end / 64);
  }
  void Fork() {
    const auto& [source_id, source] = *Any();
    const uint32_t id = FreeId();
    Model model = source;
    model.generation = ++generations_[id];
    Descriptor d = Plain(layout::kOpFork, id, model.generation);
    d.k1 = source_id;
    d.end = static_cast<uint32_t>(random_() % (source.tokens / 64 + 1)) * 64;
    MNEMO_EXPECT(worker_.RunOne(Ring::kBulk, d).status == layout::kStatusOk);
    model.tokens = d.end;
    for (auto& column : model.columns) column.resize(d.end / 64);
    models_[id] = std::move(model);
  }
  void Free() {
    const auto at = Any();
    MNEMO_EXPECT(
        worker_.RunOne(Ring::kBulk, Plain(layout::kOpFree, at->first, at->second.generation)).status ==
        layout::kStatusOk);
    models_.erase(at);
  }

  void Query() {
    auto& [id, model] = *Any();
    const IndexSpec& spec = model.spec;
    Descriptor d = Plain(layout::kOpScoreSelect, id, model.generation);
    const uint32_t columns = static_cast<uint32_t>(random_() % (spec.layer_slots));
    d.layer_slot = static_cast<uint16_t>(columns);
    d.first_head = static_cast<uint8_t>(random_() % spec.heads);
    d.heads = static_cast<uint8_t>(1 + random_() % (spec.heads - d.first_head));
    d.group = static_cast<uint8_t>(1 + random_() % 3);
    d.queries = static_cast<uint8_t>(1 + random_() % 2);
    d.format = spec.record_format;
    d.score_op = spec.record_format == layout::kFormatBounds  ? layout::kScorePageBound
                 : spec.record_format == layout::kFormatMeans ? layout::kScoreBlockMean
                                                              : layout::kScoreDot;
    d.group_op = static_cast<uint8_t>(layout::kGroupMax + random_() % 3);
    d.select_op = layout::kSelectTopK;
    d.flags = static_cast<uint8_t>(random_() % 4);  // by rank, ranks
    d.end = model.tokens;
    d.begin = model.tokens > 64 ? 64 * static_cast<uint32_t>(random_() % 2) : 0;
    d.k = static_cast<uint32_t>(1 + random_() % 100);
    if (d.format == layout::kFormatCodes2 && random_() % 2 == 0) d.k1 = d.k + random_() % 100;

    const uint32_t blocks = uint32_t{d.heads} * d.queries;
    const std::vector<float> queries = RandomFloats(random_, size_t{blocks} * d.group * spec.dim);
    const uint64_t block_bytes = layout::QueryBlockBytes(d.group, spec.dim);
    const uint64_t result_bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, spec.dim);
    const transport::Area& payload = worker_.link->payload_area(Ring::kQuery);
    const transport::Area& results = worker_.link->result_area();
    for (uint32_t n = 0; n < blocks; ++n) {
      layout::MakeQueryBlock(std::span(queries).subspan(n * d.group * spec.dim, d.group * spec.dim), d.group,
                             spec.dim, spec.record_format, 0.125F, {},
                             payload.bytes.subspan(n * block_bytes, block_bytes));
    }
    d.payload_offset = static_cast<uint32_t>(payload.offset_bytes / 64);
    d.payload_length = static_cast<uint32_t>(blocks * block_bytes / 64);
    d.result_offset = static_cast<uint32_t>(results.offset_bytes / 64);
    d.result_length = static_cast<uint32_t>(blocks * result_bytes / 64);
    std::memset(results.bytes.data(), 0xFF, blocks * result_bytes);
    const Completion done = worker_.RunOne(Ring::kQuery, d);
    MNEMO_EXPECT(done.status == layout::kStatusOk);
    uint32_t total = 0;
    for (uint32_t n = 0; n < blocks; ++n) {
      const auto& column = model.columns[size_t{d.layer_slot} * spec.heads + d.first_head + n % d.heads];
      std::vector<const uint8_t*> records;
      for (const auto& record : column) records.push_back(record.data());
      std::vector<uint8_t> expected(result_bytes);
      layout::ScoreSelect(d, {spec.record_format, spec.dim, records}, payload.bytes.data() + n * block_bytes,
                          expected);
      uint32_t count;
      std::memcpy(&count, expected.data(), sizeof count);
      // Bytes after the last id and the last rank are undefined.
      const uint8_t* const got = results.bytes.data() + n * result_bytes;
      const uint64_t ranks = layout::RanksOffset(d.k);
      MNEMO_EXPECT(std::memcmp(got, expected.data(), sizeof(layout::ResultHeader) + size_t{count} * 4) == 0);
      MNEMO_EXPECT(((d.flags & layout::kFlagRanks) == 0 ||
                    std::memcmp(got + ranks, expected.data() + ranks, size_t{count} * 4) == 0));
      total += count;
    }
    MNEMO_EXPECT(done.count == total);
  }

  TestWorker worker_;
  const uint32_t seed_;
  uint32_t step_ = 0;
  std::mt19937 random_;
  std::map<uint32_t, Model> models_;
  std::map<uint32_t, uint16_t> generations_;
};

}  // namespace mnemo::memory_service
