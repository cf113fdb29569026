#include "queue_limits.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "proto/layout/payload.h"
#include "proto/layout/ring.h"

namespace mnemo::rtl_command {
namespace {

using layout::Descriptor;
using layout::Verdict;

uint64_t Below(std::mt19937_64& random, uint64_t bound) { return random() % bound; }

template <size_t N>
uint32_t OneOf(std::mt19937_64& random, const uint32_t (&values)[N]) {
  return values[Below(random, N)];
}

uint64_t Passes(const Descriptor& d) { return (d.group + kPassQueries - 1) / kPassQueries; }

// Pages that the fullest lane scans.
uint64_t Rows(const Descriptor& d) {
  return d.begin == d.end ? 0 : ((d.end - 1) / 64 - d.begin / 64 + kChannels) / kChannels;
}

// Words of a score bank, for a page and pass.
uint64_t WordsOfPage(const Descriptor& d) { return layout::IsCodeFormat(d.format) ? 8 : 1; }

uint32_t& Word(QueueWords* words, uint32_t offset) { return (*words)[offset / 4]; }

}  // namespace

QueueWords QueueLimits::Words() const {
  QueueWords words{};
  Word(&words, layout::kCardQueueLength0) = static_cast<uint32_t>(region_bytes[0] / layout::kUnitBytes);
  if (region_bytes.size() > 1) {
    Word(&words, layout::kCardQueueLength1) = static_cast<uint32_t>(region_bytes[1] / layout::kUnitBytes);
  }
  Word(&words, layout::kCardQueueRegions) =
      static_cast<uint32_t>(region_bytes.size()) | uint32_t{granted.epoch} << 16;
  Word(&words, layout::kCardQueueIndexes) = granted.max_indexes;
  Word(&words, layout::kCardQueueOps) = granted.ops;
  Word(&words, layout::kCardQueueFormats) = granted.formats;
  Word(&words, layout::kCardQueueScoreOps) = granted.score_ops | uint32_t{granted.group_ops} << 8 |
                                             uint32_t{granted.select_ops} << 16 |
                                             uint32_t{granted.cascade} << 24;
  Word(&words, layout::kCardQueueMaxGroup) = granted.max_group | uint32_t{granted.max_queries} << 16;
  Word(&words, layout::kCardQueueMaxK) = granted.max_k;
  return words;
}

layout::Limits QueueLimits::Limits(uint32_t next_seq) const {
  return {.granted = granted,
          .ring_kind = layout::kRingQuery,
          .next_seq = next_seq,
          .region_bytes = region_bytes};
}

layout::IndexInfo TableIndex::Info(uint32_t layer_slot) const {
  if (entry.exists == 0) return {};
  return {.exists = true,
          .generation = entry.generation,
          .layer_slots = entry.layer_slots,
          .heads = entry.heads,
          .dim = entry.dim,
          .record_format = entry.record_format,
          .kv_format = entry.kv_format,
          .max_tokens = entry.max_tokens,
          .tokens = layer_slot < tokens.size() ? tokens[layer_slot] : 0,
          .kv_tokens = 0};
}

QueueLimits WideLimits(std::vector<uint64_t> region_units) {
  QueueLimits limits;
  limits.granted.epoch = 3;
  limits.granted.ops = 1U << layout::kOpScoreSelect;
  limits.granted.formats = 0x3E;
  limits.granted.score_ops = 1 << layout::kScoreDot | 1 << layout::kScoreReluDot |
                             1 << layout::kScorePageBound | 1 << layout::kScoreBlockMean;
  limits.granted.group_ops = 1 << layout::kGroupNone | 1 << layout::kGroupMax | 1 << layout::kGroupExp2Sum |
                             1 << layout::kGroupPlainMax;
  limits.granted.select_ops =
      1 << layout::kSelectTopK | 1 << layout::kSelectThreshold | 1 << layout::kSelectLatest;
  limits.granted.cascade = 1;
  limits.granted.max_group = 16;
  limits.granted.max_queries = 4;
  limits.granted.max_k = 16384;
  limits.granted.max_indexes = 8;
  for (const uint64_t units : region_units) limits.region_bytes.push_back(units * layout::kUnitBytes);
  return limits;
}

QueueLimits RandomLimits(std::mt19937_64& random) {
  const bool two = Below(random, 4) != 0;
  QueueLimits limits = WideLimits(two ? std::vector<uint64_t>{1 << 20, Below(random, 1 << 16)}
                                      : std::vector<uint64_t>{1 << 20});
  limits.granted.epoch = static_cast<uint16_t>(random());
  limits.granted.max_group = static_cast<uint16_t>(OneOf(random, {1, 4, 16, 64, 255}));
  limits.granted.max_queries = static_cast<uint16_t>(OneOf(random, {1, 4, 255}));
  limits.granted.max_k = OneOf(random, {1, 1000, 16384, (1U << 24) - 1});
  limits.granted.max_indexes = OneOf(random, {1, 8, 0xFFFFFFFF});
  if (Below(random, 2) != 0) {
    limits.granted.ops |= 0xFF0000;
    limits.granted.score_ops = limits.granted.group_ops = limits.granted.select_ops = 0xFF;
  }
  if (Below(random, 4) == 0) limits.granted.cascade = 0;
  if (Below(random, 8) == 0) {
    limits.granted.ops = static_cast<uint32_t>(random());
    limits.granted.score_ops = static_cast<uint8_t>(random());
    limits.granted.group_ops = static_cast<uint8_t>(random());
    limits.granted.select_ops = static_cast<uint8_t>(random());
  }
  return limits;
}

TableIndex RandomIndex(std::mt19937_64& random, uint32_t max_tokens) {
  TableIndex index;
  index.entry.generation = static_cast<uint16_t>(random());
  index.entry.exists = 1;
  index.entry.record_format = static_cast<uint8_t>(1 + Below(random, 5));
  index.entry.layer_slots = static_cast<uint16_t>(1 + Below(random, 40));
  index.entry.heads = static_cast<uint16_t>(1 + Below(random, 8));
  index.entry.dim = static_cast<uint16_t>(16U << Below(random, 5));
  index.entry.shift = static_cast<uint8_t>(Below(random, kChannels));
  index.entry.kv_format = static_cast<uint8_t>(OneOf(random, {0, 0, 16, 17, 18, 19, 20}));
  index.entry.max_tokens = max_tokens;
  index.entry.list_beat = static_cast<uint32_t>(random());
  index.entry.block_beats = layout::CardBlockOf(index.entry.record_format, index.entry.dim).beats;
  for (uint32_t slot = 0; slot < index.entry.layer_slots; ++slot) {
    index.tokens.push_back(static_cast<uint32_t>(Below(random, max_tokens / 64 + 1)) * 64);
  }
  return index;
}

Descriptor GoodDescriptor(std::mt19937_64& random, const QueueLimits& limits, const TableIndex& index) {
  const layout::CardIndex& entry = index.entry;
  Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.epoch = limits.granted.epoch;
  d.index_generation = entry.generation;
  d.layer_slot = static_cast<uint16_t>(Below(random, entry.layer_slots));
  d.first_head = static_cast<uint8_t>(Below(random, entry.heads));
  d.heads = static_cast<uint8_t>(1 + Below(random, entry.heads - d.first_head));
  d.group = static_cast<uint8_t>(1 + Below(random, std::min<uint32_t>(limits.granted.max_group, 16)));
  d.queries = static_cast<uint8_t>(1 + Below(random, std::min<uint32_t>(limits.granted.max_queries, 3)));
  d.format = entry.record_format;
  const bool codes = layout::IsCodeFormat(d.format);
  d.score_op = codes                               ? layout::kScoreDot
               : d.format == layout::kFormatBounds ? layout::kScorePageBound
                                                   : layout::kScoreBlockMean;
  // Few entries by their largest terms are what a long scan may select here.
  const bool few = Below(random, 3) == 0;
  d.group_op = static_cast<uint8_t>(
      few ? OneOf(random, {layout::kGroupMax, layout::kGroupPlainMax})
          : OneOf(random, {layout::kGroupMax, layout::kGroupExp2Sum, layout::kGroupPlainMax}));
  if (!few && codes && Below(random, 4) == 0) {
    d.score_op = layout::kScoreReluDot;
    d.group_op = layout::kGroupNone;
  }
  d.select_op = layout::kSelectTopK;
  if (Below(random, few ? 8 : 4) == 0) {
    d.select_op = layout::kSelectThreshold;
    d.threshold = d.group_op == layout::kGroupExp2Sum ? static_cast<int32_t>(Below(random, 65537))
                                                      : -static_cast<int32_t>(Below(random, 4096));
  }
  d.flags = static_cast<uint8_t>(Below(random, 4) | (codes ? 0 : Below(random, 2) * layout::kFlagPages64));
  const uint32_t unit = layout::EntryTokens(d.format, d.flags);
  const uint32_t entries = index.tokens[d.layer_slot] / unit;
  d.end = static_cast<uint32_t>(Below(random, entries + 1)) * unit;
  d.begin = static_cast<uint32_t>(Below(random, d.end / unit + 1)) * unit;
  if (few && Below(random, 2) == 0) {
    d.begin = 0;
    d.end = entries * unit;
  }
  const uint32_t most = few ? 8 : 200;
  d.k = 1 + static_cast<uint32_t>(Below(random, std::min<uint32_t>(limits.granted.max_k, most)));
  if (d.format == layout::kFormatCodes2 && Below(random, 2) != 0) {
    d.k1 = d.k + static_cast<uint32_t>(Below(random, 1000));
    if (Below(random, 8) == 0) d.k1 += 1U << 24;  // more than a job has bits for
  }
  if (!few && Below(random, 8) == 0) {
    d.select_op = layout::kSelectLatest;
    d.score_op = d.group_op = d.group = 0;
    d.k1 = 0;
    d.threshold = 0;
  }
  layout::IndexInfo info = index.Info(d.layer_slot);
  d.payload_length = static_cast<uint32_t>(layout::PayloadBytes(d, info) / layout::kUnitBytes);
  d.result_length = static_cast<uint32_t>(layout::ResultBytes(d, info) / layout::kUnitBytes);
  d.result_offset = d.payload_length;
  return d;
}

void AlterField(std::mt19937_64& random, Descriptor* d) {
  struct Field {
    size_t offset;
    size_t bytes;
  };
#define MNEMO_TEST_FIELD(type, name, at) {at, sizeof(type)},
  static constexpr Field kFields[] = {MNEMO_DESCRIPTOR_FIELDS(MNEMO_TEST_FIELD)};
#undef MNEMO_TEST_FIELD
  const Field& field = kFields[Below(random, std::size(kFields))];
  uint32_t value = 0;
  auto* at = reinterpret_cast<uint8_t*>(d) + field.offset;
  std::memcpy(&value, at, field.bytes);
  switch (Below(random, 7)) {
    case 0:
      value += 1;
      break;
    case 1:
      value -= 1;
      break;
    case 2:
      value = 0;
      break;
    case 3:
      value = static_cast<uint32_t>(random());
      break;
    case 4:
      value = static_cast<uint32_t>(Below(random, 24));
      break;
    case 5:
      value ^= 1U << Below(random, 32);
      break;
    default:
      value = 0xFFFFFFFF;
  }
  std::memcpy(at, &value, field.bytes);
}

bool LongScan(const Descriptor& d) {
  return d.score_op != layout::kScoreReluDot &&
         (d.select_op == layout::kSelectTopK || d.select_op == layout::kSelectThreshold) &&
         (d.group_op == layout::kGroupMax || d.group_op == layout::kGroupPlainMax) &&
         Rows(d) * WordsOfPage(d) * Passes(d) > kBankWords;
}

Verdict ExpectedVerdict(const Descriptor& d, const QueueLimits& limits, uint32_t next_seq,
                        const layout::IndexInfo& info) {
  const Verdict verdict = layout::Validate(d, limits.Limits(next_seq), info, {});
  if (verdict.status != layout::kStatusOk) return verdict;
#define MNEMO_SERVED(condition, field) \
  if (!(condition)) return {layout::kStatusUnsupported, offsetof(Descriptor, field)}
  MNEMO_SERVED(d.op == layout::kOpScoreSelect, op);
  MNEMO_SERVED((d.flags & layout::kFlagByRank) == 0, flags);
  MNEMO_SERVED(info.dim <= layout::kCardMaxDim, index_id);
  MNEMO_SERVED(d.k <= 16384, k);
  if (d.select_op == layout::kSelectLatest) return {};
  const uint64_t passes = Passes(d);
  if (LongScan(d)) {
    MNEMO_SERVED(std::min<uint64_t>(d.k1, Rows(d)) <= kBankWords / 2, k1);
    MNEMO_SERVED(2 * WordsOfPage(d) * passes <= kBankWords, group);
    // With a bound and without a first stage all pages are ranked.
    const bool all = d.select_op == layout::kSelectThreshold;
    MNEMO_SERVED(d.k1 != 0 || all || std::min<uint64_t>(d.k, Rows(d)) <= kBankWords / 2, k);
    MNEMO_SERVED(d.k1 != 0 || !all || Rows(d) <= kBankWords / 2, end);
    MNEMO_SERVED((Rows(d) + 7) / 8 * passes <= kBankWords, end);
  } else {
    const bool relu = d.score_op == layout::kScoreReluDot;
    const uint64_t words = relu ? 4 : WordsOfPage(d);
    MNEMO_SERVED(Rows(d) * words * (relu ? 1 : passes) <= 2 * kBankWords, end);
  }
  // The number of a page has 24 bits, with the index's shift.
  MNEMO_SERVED(d.end <= ((1U << 24) - layout::kCardMaxChannels) * 64, end);
#undef MNEMO_SERVED
  return {};
}

}  // namespace mnemo::rtl_command
