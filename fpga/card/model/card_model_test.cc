#include "fpga/card/model/card_model.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "fpga/card/model/testing_card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"

namespace mnemo::card::model {
namespace {

using layout::Completion;
using layout::Descriptor;

// MNEMO_RTL_CASES cases, or `few`.
uint32_t Cases(uint32_t few) {
  const char* text = std::getenv("MNEMO_RTL_CASES");
  return text == nullptr ? few : static_cast<uint32_t>(std::strtoul(text, nullptr, 10));
}

ModelOptions Options(uint32_t channels, uint32_t bank_words = 4096) {
  ModelOptions options;
  options.shape.channels = channels;
  options.shape.bank_words = bank_words;
  options.channel_bytes = 64 << 20;
  return options;
}

// Runs the descriptor on random queries and compares every block with the reference.
Completion RunAndCompare(TestCard& card, Descriptor d, std::mt19937& random) {
  card.SetLengths(&d);
  const uint32_t blocks = uint32_t{d.queries} * d.heads;
  const size_t query_bytes = layout::QueryBlockBytes(d.group, card.index().dim);
  const size_t result_bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, card.index().dim);
  for (uint32_t n = 0; n < blocks && d.group != 0; ++n) {
    FillQueries(d.group, card.index().dim, d.format, random, card.Payload() + n * query_bytes);
  }
  std::memset(card.Result(), 0xCC, blocks * result_bytes);
  const Completion completion = card.Run(d);
  INFO("format " << +d.format << ", dim " << card.index().dim << ", shift " << card.index().shift
                 << ", group " << +d.group << ", " << d.begin << " to " << d.end << ", k " << d.k << ", k1 "
                 << d.k1 << ", flags " << +d.flags);
  REQUIRE(completion.status == layout::kStatusOk);
  uint32_t count = 0;
  uint32_t written = 0;
  for (uint32_t n = 0; n < blocks; ++n) {
    const std::vector<const uint8_t*> records = card.Records(d.layer_slot, d.first_head + n % d.heads);
    std::vector<uint8_t> expected(result_bytes);
    layout::ScoreSelect(d, {d.format, card.index().dim, records}, card.Payload() + n * query_bytes, expected);
    layout::ResultHeader header;
    std::memcpy(&header, expected.data(), sizeof(header));
    // The card writes nothing behind the last id and the last rank.
    const bool ranks = (d.flags & layout::kFlagRanks) != 0;
    std::vector<uint8_t> whole(result_bytes, uint8_t{0xCC});
    const size_t ids = sizeof(header) + size_t{header.count} * 4;
    std::copy_n(expected.begin(), ids, whole.begin());
    if (ranks) {
      const auto at = static_cast<ptrdiff_t>(layout::RanksOffset(d.k));
      std::copy_n(expected.begin() + at, size_t{header.count} * 4, whole.begin() + at);
    }
    REQUIRE(std::equal(whole.begin(), whole.end(), card.Result() + n * result_bytes));
    count += header.count;
    written += static_cast<uint32_t>(ids) + (ranks ? header.count * 4 : 0);
  }
  CHECK(completion.count == count);
  CHECK(completion.bytes_written == written);
  CHECK(completion.watermark == card.index().tokens);
  CHECK(completion.seq == d.seq);
  CHECK(completion.index_id == d.index_id);
  CHECK(completion.energy_uj == layout::kEnergyUnknown);
  return completion;
}

// The same for a weighted sum of 8-bit codes.
void RunSumAndCompare(TestCard& card, Descriptor d, std::mt19937& random) {
  card.SetLengths(&d);
  const uint32_t dim = card.index().dim;
  const uint32_t blocks = uint32_t{d.queries} * d.heads;
  const size_t query_bytes = layout::QueryBlockBytes(1, dim);
  const size_t result_bytes = layout::ResultBlockBytes(d.select_op, 0, 0, dim);
  for (uint32_t b = 0; b < blocks; ++b) {
    FillQueries(1, dim, d.format, random, card.Payload() + b * query_bytes);
  }
  const Completion completion = card.Run(d);
  INFO("dim " << dim << ", " << d.begin << " to " << d.end << " of " << card.index().tokens);
  REQUIRE(completion.status == layout::kStatusOk);
  uint32_t count = 0;
  for (uint32_t b = 0; b < blocks; ++b) {
    const std::vector<const uint8_t*> records = card.Records(0, b % d.heads);
    std::vector<uint8_t> expected(result_bytes);
    layout::ScoreSelect(d, {d.format, dim, records}, card.Payload() + b * query_bytes, expected);
    REQUIRE(std::equal(expected.begin(), expected.end(), card.Result() + b * result_bytes));
    layout::WeightedSumHeader header;
    std::memcpy(&header, expected.data(), sizeof(header));
    count += header.count;
  }
  CHECK(completion.count == count);
  CHECK(completion.bytes_written == blocks * result_bytes);
}

TestIndex RandomIndex(std::mt19937& random, uint32_t channels) {
  TestIndex index;
  index.format = 1 + random() % 5;
  index.dim = 16U << random() % 5;
  index.heads = 1 + random() % 3;
  index.layer_slots = 1 + random() % 2;
  index.tokens = 64 * (1 + random() % (index.dim > 64 ? 6 : 20));
  index.shift = random() % channels;
  return index;
}

Descriptor RandomDescriptor(const TestCard& card, std::mt19937& random) {
  Descriptor d = card.NewDescriptor();
  const TestIndex& index = card.index();
  d.layer_slot = static_cast<uint16_t>(random() % index.layer_slots);
  d.first_head = static_cast<uint8_t>(random() % index.heads);
  d.heads = static_cast<uint8_t>(1 + random() % (index.heads - d.first_head));
  d.queries = static_cast<uint8_t>(1 + random() % 2);
  d.group = static_cast<uint8_t>(random() % 8 == 0 ? 1 + random() % 16 : 1 + random() % 5);
  const int ops[] = {layout::kGroupMax, layout::kGroupExp2Sum, layout::kGroupPlainMax};
  d.group_op = static_cast<uint8_t>(ops[random() % std::size(ops)]);
  if (random() % 3 == 0) {
    d.select_op = layout::kSelectThreshold;
    d.threshold = d.group_op == layout::kGroupExp2Sum
                      ? static_cast<int32_t>(random() % (random() % 2 == 0 ? 65537 : 2000))
                      : -static_cast<int32_t>(random() % 4096);
  }
  d.flags = static_cast<uint8_t>(random() % 2 == 0 ? layout::kFlagRanks : 0);
  if (!layout::IsCodeFormat(index.format) && random() % 2 == 0) {
    d.flags |= layout::kFlagPages64;
  }
  const uint32_t entry_tokens = layout::EntryTokens(d.format, d.flags);
  const uint32_t entries = index.tokens / entry_tokens;
  d.begin = random() % 3 == 0 ? 0 : random() % (entries + 1) * entry_tokens;
  d.end = random() % 3 == 0
              ? index.tokens
              : (d.begin / entry_tokens + random() % (entries - d.begin / entry_tokens + 1)) * entry_tokens;
  d.k = random() % 4 == 0 ? 1 + random() % 16384 : 1 + random() % (entries + 2);
  if (index.format == layout::kFormatCodes2 && random() % 2 == 0) {
    d.k1 = d.k + random() % (entries + 2);
  }
  if (layout::IsCodeFormat(index.format) && random() % 4 == 0) {
    d.score_op = layout::kScoreReluDot;
    d.group_op = layout::kGroupNone;
    d.group = static_cast<uint8_t>(random() % 8 == 0 ? 64 : d.group);
    d.threshold = d.select_op == layout::kSelectThreshold ? static_cast<int32_t>(random()) / 64 : 0;
  }
  if (random() % 10 == 0) {
    d.select_op = layout::kSelectLatest;
    d.score_op = d.group_op = d.group = 0;
    d.k1 = 0;
    d.threshold = 0;
  }
  return d;
}

TEST_CASE("a weighted sum equals the reference") {
  std::mt19937 random(18);
  for (uint32_t n = 0; n < Cases(12); ++n) {
    const uint32_t channels = 1U << random() % 4;
    TestIndex index = RandomIndex(random, channels);
    index.format = layout::kFormatCodes8;
    index.dim = 16U << n % 5;
    TestCard card(Options(channels), index, random);
    Descriptor d = card.NewDescriptor();
    d.queries = static_cast<uint8_t>(1 + random() % 2);
    d.group_op = layout::kGroupExp2Sum;
    d.select_op = layout::kSelectWeightedSum;
    d.k = 0;
    d.begin = random() % (index.tokens + 1);
    d.end = n % 4 == 0 ? d.begin : d.begin + random() % (index.tokens - d.begin + 1);
    RunSumAndCompare(card, d, random);
    CHECK(card.Register(layout::kCardRegCounters + 8 * layout::kCardJobs) == uint64_t{d.queries} * d.heads);
  }
}

TEST_CASE("results equal the reference for random descriptors") {
  std::mt19937 random(1);
  for (uint32_t n = 0; n < Cases(160); ++n) {
    const uint32_t channels = 1U << random() % 6;
    TestCard card(Options(channels), RandomIndex(random, channels), random, random());
    for (int each = 0; each < 10; ++each) {
      RunAndCompare(card, RandomDescriptor(card, random), random);
    }
  }
}

TEST_CASE("results equal the reference for every format and dim") {
  std::mt19937 random(2);
  for (uint32_t format = layout::kFormatCodes2; format <= layout::kFormatMeans; ++format) {
    for (uint32_t dim = layout::kMinDim; dim <= layout::kCardMaxDim; dim *= 2) {
      TestCard card(Options(2), {.format = format, .dim = dim, .tokens = 320, .shift = dim / 32 % 2}, random);
      for (const uint32_t group : {1U, 3U, 4U, 5U, 16U}) {
        for (const uint32_t flags : {0U, static_cast<uint32_t>(layout::kFlagPages64)}) {
          if (flags != 0 && layout::IsCodeFormat(format)) {
            continue;
          }
          Descriptor d = card.NewDescriptor();
          d.group = static_cast<uint8_t>(group);
          d.flags = static_cast<uint8_t>(flags | layout::kFlagRanks);
          d.k = 1 + random() % 320;
          const Completion completion = RunAndCompare(card, d, random);
          CHECK(completion.bytes_read % layout::kCardBeatBytes == 0);
          CHECK(completion.bytes_read <= 5 * layout::CardBlockOf(format, dim).beats * 64);
        }
      }
    }
  }
}

TEST_CASE("wide scans, large k and cascades equal the reference") {
  std::mt19937 random(3);
  TestCard codes(Options(4), {.format = layout::kFormatCodes2, .dim = 16, .tokens = 64 * 320, .shift = 3},
                 random);
  for (const uint32_t k : {1U, 1000U, 16383U, 16384U}) {
    for (const uint32_t k1 : {0U, k, 17000U, 30000U}) {
      Descriptor d = codes.NewDescriptor();
      d.begin = random() % 100;
      d.end -= random() % 100;
      d.group = static_cast<uint8_t>(1 + random() % 3);
      d.group_op = static_cast<uint8_t>(k1 % 8 == 0 ? layout::kGroupMax : layout::kGroupPlainMax);
      d.flags = layout::kFlagRanks;
      d.k = k;
      d.k1 = k1;
      RunAndCompare(codes, d, random);
    }
  }
  TestCard parts(Options(8), {.format = layout::kFormatBounds, .dim = 16, .tokens = 64 * 1200, .shift = 5},
                 random);
  for (const uint32_t k : {1U, 4000U, 16384U}) {
    Descriptor d = parts.NewDescriptor();
    d.group = 2;
    d.k = k;
    RunAndCompare(parts, d, random);
    d = parts.NewDescriptor();
    d.flags = layout::kFlagPages64 | layout::kFlagRanks;
    d.begin = 64;
    d.k = k;
    RunAndCompare(parts, d, random);
  }
}

TEST_CASE("scans of more scores than a bank holds equal the reference") {
  std::mt19937 random(5);
  for (uint32_t n = 0; n < Cases(16); ++n) {
    const uint32_t channels = 1U << random() % 4;
    const ModelOptions options = Options(channels, 32U << random() % 3);
    const uint32_t fitting = options.shape.bank_words / 8 * channels;  // pages
    TestIndex index;
    index.format = 1 + random() % 3;
    index.dim = 16U << random() % 3;
    index.heads = 1 + random() % 2;
    index.tokens = 64 * (fitting + 1 + random() % (3 * fitting));
    index.shift = random() % channels;
    TestCard card(options, index, random);
    for (int each = 0; each < 8; ++each) {
      Descriptor d = RandomDescriptor(card, random);
      d.score_op = layout::kScoreDot;
      d.group_op = random() % 2 == 0 ? layout::kGroupMax : layout::kGroupPlainMax;
      d.select_op = layout::kSelectTopK;
      d.threshold = 0;
      d.k1 = 0;
      d.group = static_cast<uint8_t>(1 + random() % (options.shape.bank_words / 8));
      d.begin = random() % 3 == 0 ? 0 : random() % 200;
      d.end = index.tokens - random() % 60;
      const uint32_t passes = (d.group + 3U) / 4;
      const uint32_t most = options.shape.bank_words / (8 * passes);
      d.k = random() % 2 == 0 ? most : 1 + random() % most;
      const uint64_t jobs = card.Register(layout::kCardRegCounters + 8 * layout::kCardJobs);
      RunAndCompare(card, d, random);
      const uint32_t pages = (d.end - 1) / 64 - d.begin / 64 + 1;
      const bool fits = (pages + channels - 1) / channels * passes * 8 <= options.shape.bank_words;
      CHECK(card.Register(layout::kCardRegCounters + 8 * layout::kCardJobs) - jobs ==
            uint64_t{d.queries} * d.heads * (fits ? 1 : 2));
    }
  }
}

// Sums of exponentials, weighted ReLU and weighted sums of as many pages as both banks have words for, or
// fewer. A page more is refused.
TEST_CASE("scans of both banks of scores equal the reference") {
  std::mt19937 random(6);
  uint32_t of_both = 0;
  for (uint32_t n = 0; n < Cases(40); ++n) {
    const uint32_t channels = 1U << random() % 4;
    const ModelOptions options = Options(channels, 16U << random() % 3);
    enum { kSum, kBoundedSum, kCascade, kRelu, kWeighted };
    const uint32_t kind = n % 5;
    TestIndex index;
    index.format = 1 + random() % (kind == kRelu ? 3 : 5);
    if (kind == kCascade) index.format = layout::kFormatCodes2;
    if (kind == kWeighted) index.format = layout::kFormatCodes8;
    const bool codes = layout::IsCodeFormat(index.format);
    const auto group = static_cast<uint8_t>(kind == kWeighted ? 1 : 1 + random() % (codes ? 8 : 64));
    const uint32_t page_words = kind == kRelu ? 4 : (codes ? 8 : 1) * ((group + 3U) / 4);
    const uint32_t rows = 2 * options.shape.bank_words / page_words;
    if (rows == 0) continue;
    const uint32_t most = rows * channels;  // pages
    index.dim = 16U << random() % 3;
    index.tokens = 64 * (most + 1);
    index.shift = random() % channels;
    TestCard card(options, index, random);
    for (int each = 0; each < 4; ++each) {
      Descriptor d = card.NewDescriptor();
      d.queries = 2;
      d.group = group;
      d.group_op = kind == kRelu ? layout::kGroupNone : layout::kGroupExp2Sum;
      if (kind == kRelu) d.score_op = layout::kScoreReluDot;
      if (kind == kWeighted) d.select_op = layout::kSelectWeightedSum;
      if (kind == kBoundedSum) d.select_op = layout::kSelectThreshold;
      d.threshold = kind == kBoundedSum ? static_cast<int32_t>(random() % 300) : 0;
      d.flags = static_cast<uint8_t>(kind == kWeighted ? 0 : layout::kFlagRanks);
      d.k = kind == kWeighted ? 0 : 1 + random() % 3000;
      if (kind == kCascade) d.k1 = d.k + random() % 1000;
      const uint32_t pages = each == 0 ? most : each == 1 ? most + 1 : 1 + random() % most;
      d.begin = each == 1 ? 0 : random() % 2 * 64;
      d.end = d.begin + 64 * pages;
      card.SetLengths(&d);
      if (pages <= most && kind == kWeighted) {
        RunSumAndCompare(card, d, random);
      } else if (pages <= most) {
        RunAndCompare(card, d, random);
      } else {
        const Completion refused = card.Run(d);
        CHECK(refused.status == layout::kStatusUnsupported);
        CHECK(refused.detail == offsetof(Descriptor, end));
        continue;
      }
      of_both += 2 * ((pages + channels - 1) / channels) > rows ? 1 : 0;
    }
  }
  CHECK(of_both > 40);
}

TEST_CASE("empty ranges give no entries") {
  std::mt19937 random(4);
  for (const uint32_t format : {layout::kFormatCodes2, layout::kFormatCodes8, layout::kFormatMeans}) {
    TestCard card(Options(2), {.format = format, .tokens = 192}, random);
    for (const uint32_t begin : {0U, 64U, 192U}) {
      Descriptor d = card.NewDescriptor();
      d.begin = d.end = begin;
      d.flags = layout::kFlagRanks;
      d.k1 = format == layout::kFormatCodes2 ? 5 : 0;
      const Completion completion = RunAndCompare(card, d, random);
      CHECK(completion.count == 0);
      CHECK(completion.bytes_read == 0);
    }
  }
}

}  // namespace
}  // namespace mnemo::card::model
