// recall_unit and the taps of four lanes against layout::ScoreSelect: the test plays the selector, the loader
// of queries, and the lanes, whose values wait in their taps.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "Vrecall_bench.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"
#include "verilated.h"

namespace mnemo::rtl_select {
namespace {

constexpr uint32_t kChannels = 4;
constexpr uint32_t kG = 4;
constexpr uint32_t kEntries = 4;
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

// A beat of a lane: scores, which the tap lets through, or values of kEntries entries.
struct Beat {
  uint32_t scan = 0;  // a scan of values, or the scores before it
  uint32_t head = 0;  // score_head_t
  std::array<int16_t, kEntries * kG> y{};
};

// score_head_t.
constexpr uint32_t kValue = 1U << 22;
constexpr uint32_t kLast = 1U << 21;
constexpr uint32_t kNone = 1U << 20;
constexpr uint32_t kPageLast = 1U << 19;

struct Lane {
  std::deque<Beat> beats;
  uint32_t top = 0;
  uint32_t scores = 0;  // scans whose scores have gone
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
  // `pace`: percent of cycles in which a stream may move.
  Bench(uint32_t seed, uint32_t pace) : random_(seed), pace_(pace) {
    context_.threads(1);
    context_.randReset(2);
    context_.randSeed(static_cast<int>(seed));
    context_.errorLimit(1 << 30);  // a failed assertion is counted and does not stop the program
    top_ = std::make_unique<Vrecall_bench>(&context_);
    top_->lane_valid = top_->head_valid = top_->hit_valid = 0;
    top_->rst = 1;
    for (int n = 0; n < 3; ++n) Edge();
    top_->rst = 0;
  }
  ~Bench() { top_->final(); }

  std::deque<Head> heads;
  std::deque<Hits> hits;
  std::deque<uint32_t> octaves;  // that the loader must get
  std::array<Lane, kChannels> lanes;
  std::vector<uint32_t> out_heads;  // count, candidates, pages of each
  std::vector<uint32_t> out;        // words of the hits

  // Runs until `lasts` last beats have left.
  void Run(uint32_t lasts) {
    for (uint32_t cycle = 0; lasts_ < lasts; ++cycle) {
      REQUIRE(cycle < 1000000);
      Step();
    }
    for (int n = 0; n < 400; ++n) Step();
    CHECK((heads.empty() && hits.empty() && octaves.empty()));
    for (const Lane& lane : lanes) CHECK(lane.beats.empty());
    CHECK(context_.errorCount() == 0);
  }

 private:
  bool Chance() { return random_() % 100 < pace_; }

  void Edge() {
    top_->clk = 0;
    top_->eval();
    top_->clk = 1;
    top_->eval();
  }

  // A head of a sum comes when the scores of its job have been taken, and its octave has come by all taps.
  bool HeadMayCome() {
    if (!heads.front().sum) return true;
    for (const Lane& lane : lanes) settled_ = lane.scores > scans_ ? settled_ : 0;
    return settled_++ > kChannels + 2;
  }

  void OfferLane(uint32_t i) {
    Lane& lane = lanes[i];
    const uint32_t bit = 1U << i;
    top_->lane_top[i] = static_cast<uint8_t>(lane.top);
    if ((top_->lane_valid & bit) == 0 && !lane.beats.empty() && Chance()) {
      const Beat& beat = lane.beats.front();
      // A scan of values has its queries when their loader has the octave.
      if ((beat.head & kValue) != 0 && beat.scan >= scans_) return;
      top_->lane_head[i] = beat.head;
      std::memcpy(&top_->lane_y[i], beat.y.data(), sizeof(beat.y));
      top_->lane_valid |= bit;
    }
  }

  void Offer() {
    if (!top_->head_valid && !heads.empty() && HeadMayCome() && Chance()) {
      PackHead(heads.front(), top_->head);
      top_->head_valid = 1;
      settled_ = 0;
    }
    if (!top_->hit_valid && !hits.empty() && Chance()) {
      const Hits& beat = hits.front();
      top_->hit_beat = static_cast<uint8_t>(uint32_t{beat.last} << 5 | beat.ids.size());
      for (uint32_t n = 0; n < 16; ++n)
        top_->hit_ids[n] = top_->hit_ranks[n] = static_cast<uint32_t>(random_());
      std::copy(beat.ids.begin(), beat.ids.end(), &top_->hit_ids[0]);
      std::copy(beat.ranks.begin(), beat.ranks.end(), &top_->hit_ranks[0]);
      top_->hit_valid = 1;
    }
    top_->score_ready = 0;
    for (uint32_t i = 0; i < kChannels; ++i) {
      OfferLane(i);
      top_->score_ready |= static_cast<uint8_t>(uint32_t{Chance()} << i);
    }
    top_->octave_ready = Chance();
    top_->out_head_ready = Chance();
    top_->out_hit_ready = Chance();
  }

  void TakeLane(uint32_t i) {
    const uint32_t bit = 1U << i;
    if ((top_->lane_valid & top_->lane_ready & bit) == 0) return;
    Lane& lane = lanes[i];
    const Beat& beat = lane.beats.front();
    const bool score = (beat.head & kValue) == 0;
    CHECK(((top_->score_valid & bit) != 0) == score);
    if (score && (beat.head & kLast) != 0) ++lane.scores;
    lane.beats.pop_front();
    taken_ |= bit;
  }

  void Step() {
    Offer();
    top_->clk = 0;
    top_->eval();
    const bool head = top_->head_valid && top_->head_ready;
    const bool hit = top_->hit_valid && top_->hit_ready;
    taken_ = 0;
    for (uint32_t i = 0; i < kChannels; ++i) TakeLane(i);
    if (top_->octave_valid && top_->octave_ready) {
      REQUIRE(!octaves.empty());
      CHECK(top_->octave == octaves.front());
      octaves.pop_front();
      ++scans_;
    }
    if (top_->out_head_valid && top_->out_head_ready) {
      for (const uint32_t at : {48U, 81U, 113U}) out_heads.push_back(FieldAt(top_->out_head, at));
    }
    if (top_->out_hit_valid && top_->out_hit_ready) {
      for (uint32_t n = 0; n < (top_->out_hit_beat & 31U); ++n) out.push_back(top_->out_hit_ids[n]);
      lasts_ += top_->out_hit_beat >> 5;
    }
    top_->clk = 1;
    top_->eval();
    top_->lane_valid &= static_cast<uint8_t>(~taken_);
    if (head) {
      heads.pop_front();
      top_->head_valid = 0;
    }
    if (hit) {
      hits.pop_front();
      top_->hit_valid = 0;
    }
  }

  std::mt19937 random_;
  uint32_t pace_;
  VerilatedContext context_;
  std::unique_ptr<Vrecall_bench> top_;
  uint32_t taken_ = 0;  // beats of lanes, a bit each
  uint32_t lasts_ = 0;
  uint32_t scans_ = 0;    // whose octave was taken
  uint32_t settled_ = 0;  // cycles since all lanes' scores were taken
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

// The kinds of records and query of a weighted sum.
enum class Keys { kNormal, kAnyBytes, kLargest };
enum class Weights { kNormal, kZeroButFew, kAllMost };

struct SumCase {
  uint32_t dim = 16;
  uint32_t tokens = 64;
  uint32_t begin = 0;
  uint32_t end = 64;
  Keys keys = Keys::kNormal;
  Weights weights = Weights::kNormal;
  uint32_t pace = 75;
};

std::vector<uint8_t> RecordOf(const SumCase& options, std::mt19937& random) {
  std::vector<uint8_t> record(layout::RecordBytes(layout::kFormatCodes8, options.dim));
  if (options.keys == Keys::kNormal) {
    std::normal_distribution<float> normal;
    std::vector<float> keys(size_t{64} * options.dim);
    const float scale = std::exp2(static_cast<float>(random() % 8));
    for (float& key : keys) key = normal(random) * scale;
    layout::MakeRecord({keys.data(), size_t{options.dim} * 4, layout::kFormatF32}, options.dim,
                       layout::kFormatCodes8, record);
    return record;
  }
  const layout::RecordLayout at = layout::RecordSections(layout::kFormatCodes8, options.dim);
  const bool largest = options.keys == Keys::kLargest;
  const uint8_t sign = random() % 2 == 0 ? 0x7F : 0x80;
  for (uint8_t& byte : record) byte = largest ? sign : static_cast<uint8_t>(random());
  record[0] = largest ? 0xFF : static_cast<uint8_t>(random() % 256);
  record[1] = 0;
  for (uint32_t t = 0; t < 64; ++t) {
    if (largest) record[at.scales + t] = 0xFF;
    record[1] = std::max<uint8_t>(record[1], record[at.scales + t] >> 3);
  }
  return record;
}

// All heads, hits and beats of one weighted sum, and another job before it; runs them against the reference.
void RunSum(const SumCase& options, std::mt19937& random) {
  const auto [dim, tokens, begin, end, keys, weights, pace] = options;
  const uint32_t shift = random() % 32;
  std::vector<std::vector<uint8_t>> records;
  std::vector<const uint8_t*> column;
  for (uint32_t page = 0; page < tokens / 64; ++page) records.push_back(RecordOf(options, random));
  for (const auto& record : records) column.push_back(record.data());
  std::normal_distribution<float> normal;
  std::vector<float> query(dim);
  for (float& value : query) {
    value = weights == Weights::kAllMost ? 0 : normal(random) * (weights == Weights::kZeroButFew ? 1e6F : 1);
  }
  std::vector<uint8_t> block(layout::QueryBlockBytes(1, dim));
  layout::MakeQueryBlock(query, 1, dim, layout::kFormatCodes8, 0.05F, {}, block);
  layout::Descriptor d{};
  d.group = 1;
  d.format = layout::kFormatCodes8;
  d.group_op = layout::kGroupExp2Sum;
  d.select_op = layout::kSelectWeightedSum;
  d.begin = begin;
  d.end = end;
  const layout::IndexColumn index{layout::kFormatCodes8, dim, column};
  std::vector<uint8_t> expected(layout::ResultBlockBytes(d.select_op, 0, 0, dim));
  layout::ScoreSelect(d, index, block.data(), expected);
  layout::WeightedSumHeader header;
  std::memcpy(&header, expected.data(), sizeof(header));
  std::vector<uint32_t> ids;
  for (uint32_t id = begin; id < end; ++id) ids.push_back(id);
  const std::vector<int32_t> ranks =
      layout::Ranks(layout::Scores(index, layout::kScoreDot, 0, layout::Stage::kFull, 1, block.data(), ids),
                    1, layout::kGroupExp2Sum, dim, block.data());
  if (weights == Weights::kAllMost) CHECK(header.weight_total == uint64_t{65536} * ids.size());
  if (weights == Weights::kZeroButFew && keys != Keys::kLargest && ids.size() > 64)
    CHECK(header.count < ids.size() / 2);

  Bench bench(static_cast<uint32_t>(random()), pace);
  bench.heads.push_back({.candidates = 40, .count = 20});
  AddHits(std::vector<uint32_t>(20, 7), std::vector<int32_t>(20, 1), &bench);
  const uint32_t elements = std::min(dim, kElements);
  const layout::RecordLayout at = layout::RecordSections(layout::kFormatCodes8, dim);
  const uint32_t first_page = begin / 64;
  const uint32_t end_page = begin == end ? first_page : (end - 1) / 64 + 1;
  std::array<bool, kChannels> has{};
  for (Lane& lane : bench.lanes) lane.top = static_cast<uint32_t>(random() % 32);
  for (uint32_t page = first_page; page < end_page; ++page) {
    const uint32_t i = (page + shift) % kChannels;
    if (!has[i]) bench.lanes[i].top = 0;
    has[i] = true;
    bench.lanes[i].top =
        std::max<uint32_t>({bench.lanes[i].top, records[page][1], uint32_t{records[page][0]} >> 3});
  }
  uint32_t scan = 0;
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
      for (uint32_t i = 0; i < kChannels; ++i) {
        for (uint32_t n = random() % 3; has[i] && n != 0; --n) bench.lanes[i].beats.push_back({.scan = scan});
        bench.lanes[i].beats.push_back({.scan = scan, .head = has[i] ? kLast : kLast | kNone});
        if (!has[i]) bench.lanes[i].beats.push_back({.scan = scan, .head = kValue | kLast | kNone});
      }
      for (uint32_t page = first_page; page < end_page; ++page) {
        const uint8_t* record = records[page].data();
        for (uint32_t pass = 0; pass < elements / kG; ++pass) {
          for (uint32_t t = 0; t < 64; t += kEntries) {
            const bool last = pass == elements / kG - 1 && t + kEntries == 64;
            Beat beat{.scan = scan, .head = kValue | (last ? kPageLast : 0) | pass << 14 | t / kEntries << 8};
            for (uint32_t n = 0; n < kEntries * kG; ++n) {
              const uint32_t e = t + n / kG;
              const uint32_t i = first + pass * kG + n % kG;
              const bool counts = page * 64 + e >= begin && page * 64 + e < end;
              beat.head |= static_cast<uint32_t>(counts) << n / kG;
              const int32_t y = bases ? layout::AlignedValue(static_cast<int8_t>(record[at.base + i]),
                                                             record[0], header.top_octave)
                                      : layout::AlignedValue(layout::CodeAt({record, at.bytes},
                                                                            layout::kFormatCodes8, dim, e, i),
                                                             record[at.scales + e], header.top_octave);
              beat.y[n] = static_cast<int16_t>(counts ? y : static_cast<int32_t>(random()));
            }
            bench.lanes[(page + shift) % kChannels].beats.push_back(beat);
          }
        }
      }
      ++scan;
    }
  }
  bench.Run(2);
  REQUIRE(bench.out_heads.size() == 6);
  CHECK(bench.out_heads[0] == 20);
  CHECK(bench.out_heads[3] == header.count);
  CHECK(bench.out_heads[4] == header.candidates);
  CHECK(bench.out_heads[5] == 3 * std::max(dim / kElements, 1U));
  REQUIRE(bench.out.size() == 20 + (expected.size() - 16) / 4);
  CHECK(std::memcmp(&bench.out[20], &expected[16], expected.size() - 16) == 0);
}

TEST_CASE("weighted sums are those of the reference, and other jobs go through") {
  std::mt19937 random(23);
  for (int n = 0; n < rtl_tests::Cases(10); ++n) {
    SumCase options{.dim = 16U << n % 5, .tokens = static_cast<uint32_t>(64 * (1 + random() % 8))};
    options.begin = static_cast<uint32_t>(random()) % options.tokens;
    options.end =
        n == 5 ? options.begin
               : options.begin + 1 + static_cast<uint32_t>(random()) % (options.tokens - options.begin);
    options.keys = n % 2 == 0 ? Keys::kNormal : Keys::kAnyBytes;
    INFO("case " << n << ", dim " << options.dim << ", " << options.begin << " to " << options.end);
    RunSum(options, random);
  }
}

TEST_CASE("weighted sums of the largest and of no weights are those of the reference, at any pace") {
  std::mt19937 random(29);
  for (const Weights weights : {Weights::kZeroButFew, Weights::kAllMost}) {
    for (const Keys keys : {Keys::kNormal, Keys::kAnyBytes, Keys::kLargest}) {
      for (const uint32_t pages : {1U, 2 * kChannels}) {
        const uint32_t pace = pages == 1 ? 25 : 100;
        INFO("weights " << static_cast<int>(weights) << ", keys " << static_cast<int>(keys) << ", pages "
                        << pages);
        RunSum({.dim = 32,
                .tokens = 64 * pages,
                .end = 64 * pages,
                .keys = keys,
                .weights = weights,
                .pace = pace},
               random);
      }
    }
  }
}

}  // namespace
}  // namespace mnemo::rtl_select
