// recall_unit against layout::ScoreSelect: the test plays the selector, the loader of queries, and the lanes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "Vrecall_unit.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"
#include "verilated.h"

namespace mnemo::rtl_select {
namespace {

constexpr uint32_t kChannels = 2;
constexpr uint32_t kG = 4;
constexpr uint32_t kElements = 64;  // of a scan of values

struct Head {
  uint32_t pages = 0, candidates = 0, count = 0, last_rank = 0;
  bool sum = false, first = false, bases = false, last = false;
  uint32_t pass_last = 0, blocks_log2 = 0, shift = 0;
};

struct Hits {
  bool last = false;
  std::vector<uint32_t> ids, ranks;
};

struct Value {
  bool counts = false;
  std::array<int16_t, kG> y{};
};

// A page's values, and the lane that has them.
struct Page {
  uint32_t lane = 0;
  std::vector<Value> values;
};

// The fields of hit_head_t, the last one in the lowest bits.
template <typename Words>
void PackHead(const Head& head, Words& words) {
  const std::pair<uint32_t, uint32_t> fields[] = {{head.shift, 5}, {head.blocks_log2, 3}, {head.pass_last, 4},
                                                  {head.last, 1},  {head.bases, 1},       {head.first, 1},
                                                  {head.sum, 1},   {head.last_rank, 32},  {head.count, 32},
                                                  {0, 1},          {head.candidates, 32}, {head.pages, 32}};
  uint32_t at = 0;
  for (uint32_t w = 0; w < 6; ++w) words[w] = 0;
  for (const auto& [value, bits] : fields) {
    for (uint32_t bit = 0; bit < bits; ++bit, ++at) words[at / 32] |= (value >> bit & 1) << at % 32;
  }
}

template <typename Words>
uint32_t FieldAt(const Words& words, uint32_t at) {
  return static_cast<uint32_t>((uint64_t{words[at / 32 + 1]} << 32 | words[at / 32]) >> at % 32);
}

class Bench {
 public:
  explicit Bench(uint32_t seed) : random_(seed) {
    top_.rst = 1;
    for (int n = 0; n < 3; ++n) Edge();
    top_.rst = 0;
  }

  std::deque<Head> heads;
  std::deque<Hits> hits;
  std::deque<uint32_t> octaves;  // that the loader must get
  std::deque<Page> pages;
  std::vector<uint32_t> out_heads;  // count, candidates, pages of each
  std::vector<uint32_t> out;        // words of the hits
  uint32_t top = 0;

  // Runs until `beats` last beats have left.
  void Run(uint32_t lasts) {
    for (uint32_t cycle = 0; lasts_ < lasts; ++cycle) {
      REQUIRE(cycle < 1000000);
      Step();
    }
    for (int n = 0; n < 40; ++n) Step();
    CHECK((heads.empty() && hits.empty() && octaves.empty() && pages.empty() && chain_.empty()));
  }

 private:
  bool Chance() { return random_() % 4 != 0; }

  void Edge() {
    top_.clk = 0;
    top_.eval();
    top_.clk = 1;
    top_.eval();
  }

  void Offer() {
    if (!top_.head_valid && !heads.empty() && Chance()) {
      PackHead(heads.front(), top_.head);
      top_.head_valid = 1;
    }
    if (!top_.hit_valid && !hits.empty() && Chance()) {
      const Hits& beat = hits.front();
      top_.hit_beat = static_cast<uint8_t>(uint32_t{beat.last} << 5 | beat.ids.size());
      std::copy(beat.ids.begin(), beat.ids.end(), &top_.hit_ids[0]);
      std::copy(beat.ranks.begin(), beat.ranks.end(), &top_.hit_ranks[0]);
      top_.hit_valid = 1;
    }
    top_.octave_ready = Chance();
    top_.out_head_ready = Chance();
    top_.out_hit_ready = Chance();
    top_.value_top = top;
    top_.value_valid = !chain_.empty() && Chance();
    if (top_.value_valid) {
      top_.value_counts = chain_.front().counts;
      uint64_t y;
      std::memcpy(&y, chain_.front().y.data(), sizeof(y));
      top_.value_y = y;
      chain_.pop_front();
    }
  }

  void Step() {
    Offer();
    top_.clk = 0;
    top_.eval();
    const bool head = top_.head_valid && top_.head_ready;
    const bool hit = top_.hit_valid && top_.hit_ready;
    if (top_.octave_valid && top_.octave_ready) {
      REQUIRE(!octaves.empty());
      CHECK(top_.octave == octaves.front());
      octaves.pop_front();
    }
    if (top_.send_valid) {
      REQUIRE((!pages.empty() && chain_.empty()));
      CHECK(top_.send_lane == pages.front().lane);
      chain_.assign(pages.front().values.begin(), pages.front().values.end());
      pages.pop_front();
    }
    if (top_.out_head_valid && top_.out_head_ready) {
      for (const uint32_t at : {48U, 81U, 113U}) out_heads.push_back(FieldAt(top_.out_head, at));
    }
    if (top_.out_hit_valid && top_.out_hit_ready) {
      for (uint32_t n = 0; n < (top_.out_hit_beat & 31U); ++n) out.push_back(top_.out_hit_ids[n]);
      lasts_ += top_.out_hit_beat >> 5;
    }
    top_.clk = 1;
    top_.eval();
    if (head) {
      heads.pop_front();
      top_.head_valid = 0;
    }
    if (hit) {
      hits.pop_front();
      top_.hit_valid = 0;
    }
  }

  std::mt19937 random_;
  Vrecall_unit top_;
  std::deque<Value> chain_;
  uint32_t lasts_ = 0;
};

void AddHits(const std::vector<uint32_t>& ids, const std::vector<int32_t>& ranks, Bench* bench) {
  for (size_t n = 0; n < ids.size(); n += 16) {
    Hits beat;
    for (size_t i = n; i < std::min(n + 16, ids.size()); ++i) {
      beat.ids.push_back(ids[i]);
      beat.ranks.push_back(static_cast<uint32_t>(ranks[i]));
    }
    beat.last = n + 16 >= ids.size();
    bench->hits.push_back(beat);
  }
}

TEST_CASE("weighted sums are those of the reference, and other jobs go through") {
  std::mt19937 random(23);
  std::normal_distribution<float> normal;
  for (int n = 0; n < rtl_tests::Cases(10); ++n) {
    const uint32_t dim = 16U << n % 5;
    const uint32_t tokens = 64 * (1 + random() % 4);
    const uint32_t shift = random() % 32;
    std::vector<std::vector<uint8_t>> records;
    std::vector<const uint8_t*> column;
    for (uint32_t page = 0; page < tokens / 64; ++page) {
      std::vector<float> keys(size_t{64} * dim);
      const float scale = std::exp2(static_cast<float>(random() % 8));
      for (float& key : keys) key = normal(random) * scale;
      records.emplace_back(layout::RecordBytes(layout::kFormatCodes8, dim));
      layout::MakeRecord({keys.data(), size_t{dim} * 4, layout::kFormatF32}, dim, layout::kFormatCodes8,
                         records.back());
    }
    for (const auto& record : records) column.push_back(record.data());
    std::vector<float> query(dim);
    for (float& value : query) value = normal(random);
    std::vector<uint8_t> block(layout::QueryBlockBytes(1, dim));
    layout::MakeQueryBlock(query, 1, dim, layout::kFormatCodes8, 0.05F, {}, block);
    layout::Descriptor d{};
    d.group = 1;
    d.format = layout::kFormatCodes8;
    d.group_op = layout::kGroupExp2Sum;
    d.select_op = layout::kSelectWeightedSum;
    d.begin = random() % tokens;
    d.end = n == 5 ? d.begin : d.begin + 1 + random() % (tokens - d.begin);
    const layout::IndexColumn index{layout::kFormatCodes8, dim, column};
    std::vector<uint8_t> expected(layout::ResultBlockBytes(d.select_op, 0, 0, dim));
    layout::ScoreSelect(d, index, block.data(), expected);
    layout::WeightedSumHeader header;
    std::memcpy(&header, expected.data(), sizeof(header));
    std::vector<uint32_t> ids;
    for (uint32_t id = d.begin; id < d.end; ++id) ids.push_back(id);
    const std::vector<int32_t> ranks =
        layout::Ranks(layout::Scores(index, layout::kScoreDot, 0, layout::Stage::kFull, 1, block.data(), ids),
                      1, layout::kGroupExp2Sum, dim, block.data());

    Bench bench(random());
    bench.top = header.top_octave;
    bench.heads.push_back({.candidates = 40, .count = 20});
    AddHits(std::vector<uint32_t>(20, 7), std::vector<int32_t>(20, 1), &bench);
    const uint32_t elements = std::min(dim, kElements);
    const layout::RecordLayout at = layout::RecordSections(layout::kFormatCodes8, dim);
    for (uint32_t first = 0; first < dim; first += elements) {
      for (const bool bases : {false, true}) {
        bench.heads.push_back({.pages = 3,
                               .candidates = header.candidates,
                               .count = header.candidates,
                               .sum = true,
                               .first = first == 0 && !bases,
                               .bases = bases,
                               .last = bases && first + elements == dim,
                               .pass_last = elements / kG - 1,
                               .blocks_log2 = dim == 256 ? 2U : dim / 128,
                               .shift = shift});
        AddHits(ids, ranks, &bench);
        bench.octaves.push_back(header.top_octave);
        for (uint32_t page = d.begin / 64; d.begin != d.end && page <= (d.end - 1) / 64; ++page) {
          Page made{.lane = (page + shift) % kChannels, .values = {}};
          const uint8_t* record = records[page].data();
          for (uint32_t pass = 0; pass < elements / kG; ++pass) {
            for (uint32_t t = 0; t < 64; ++t) {
              Value value{.counts = page * 64 + t >= d.begin && page * 64 + t < d.end, .y = {}};
              for (uint32_t g = 0; g < kG; ++g) {
                const uint32_t i = first + pass * kG + g;
                const int32_t y =
                    bases ? layout::AlignedValue(static_cast<int8_t>(record[at.base + i]), record[0],
                                                 header.top_octave)
                          : layout::AlignedValue(
                                layout::CodeAt({record, at.bytes}, layout::kFormatCodes8, dim, t, i),
                                record[at.scales + t], header.top_octave);
                value.y[g] = static_cast<int16_t>(y);
              }
              made.values.push_back(value);
            }
          }
          bench.pages.push_back(made);
        }
      }
    }
    bench.Run(2);
    INFO("dim " << dim << ", " << d.begin << " to " << d.end);
    REQUIRE(bench.out_heads.size() == 6);
    CHECK(bench.out_heads[0] == 20);
    CHECK(bench.out_heads[3] == header.count);
    CHECK(bench.out_heads[4] == header.candidates);
    CHECK(bench.out_heads[5] == 3 * std::max(dim / kElements, 1U));
    REQUIRE(bench.out.size() == 20 + (expected.size() - 16) / 4);
    CHECK(std::memcmp(&bench.out[20], &expected[16], expected.size() - 16) == 0);
  }
}

}  // namespace
}  // namespace mnemo::rtl_select
