#include "proto/layout/validate.h"

#include <bit>
#include <initializer_list>

#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"

namespace mnemo::layout {
namespace {

// Optional fields that an operation uses; all others must be zero.
enum Use : uint32_t {
  kUseSlot = 1,
  kUseHeads = 2,
  kUseQuery = 4,  // flags, group, queries, score_op, group_op, select_op, threshold
  kUseFormat = 8,
  kUseBegin = 16,
  kUseEnd = 32,
  kUseK = 64,
  kUseK1 = 128,
  kUsePayload = 256,
  kUseResult = 512,
};

uint32_t UseOf(uint32_t op) {
  constexpr uint32_t kQuery = kUseSlot | kUseHeads | kUseQuery | kUseFormat | kUseBegin | kUseEnd | kUseK |
                              kUseK1 | kUsePayload | kUseResult;
  switch (op) {
    case kOpCreate:
      return kUseFormat | kUsePayload;
    case kOpAppend:
    case kOpKvStore:
      return kUseSlot | kUseHeads | kUseFormat | kUseBegin | kUseEnd | kUsePayload;
    case kOpFork:
      return kUseEnd | kUseK1;
    case kOpTruncate:
      return kUseEnd;
    case kOpFree:
      return 0;
    case kOpGather:
      return kUseSlot | kUseHeads | kUseFormat | kUseK | kUsePayload | kUseResult;
    default:
      return kQuery;
  }
}

bool IsKnownOp(uint32_t op) {
  return (op >= kOpCreate && op <= kOpKvStore) || (op >= kOpScoreSelect && op <= kOpScoreGather);
}

bool IsQueryOp(uint32_t op) { return op >= kOpScoreSelect; }

bool Has(uint32_t mask, uint32_t bit) { return bit < 32 && (mask >> bit & 1) != 0; }

#define MNEMO_BAD(status, field) \
  Verdict { status, offsetof(Descriptor, field) }
#define MNEMO_REQUIRE(condition, status, field) \
  do {                                          \
    if (!(condition)) {                         \
      return MNEMO_BAD(status, field);          \
    }                                           \
  } while (false)

Verdict CheckUnused(const Descriptor& d) {
  const uint32_t use = UseOf(d.op);
#define MNEMO_UNUSED(bit, field) MNEMO_REQUIRE((use & (bit)) != 0 || d.field == 0, kStatusBadField, field)
  MNEMO_UNUSED(kUseQuery, flags);
  MNEMO_UNUSED(kUseSlot, layer_slot);
  MNEMO_UNUSED(kUseHeads, first_head);
  MNEMO_UNUSED(kUseHeads, heads);
  MNEMO_UNUSED(kUseQuery, group);
  MNEMO_UNUSED(kUseQuery, queries);
  MNEMO_UNUSED(kUseQuery, score_op);
  MNEMO_UNUSED(kUseQuery, group_op);
  MNEMO_UNUSED(kUseQuery, select_op);
  MNEMO_UNUSED(kUseFormat, format);
  MNEMO_UNUSED(kUseBegin, begin);
  MNEMO_UNUSED(kUseEnd, end);
  MNEMO_UNUSED(kUseK, k);
  MNEMO_UNUSED(kUseK1, k1);
  MNEMO_UNUSED(kUseQuery, threshold);
  MNEMO_UNUSED(kUsePayload, payload_region);
  MNEMO_UNUSED(kUsePayload, payload_offset);
  MNEMO_UNUSED(kUsePayload, payload_length);
  MNEMO_UNUSED(kUseResult, result_region);
  MNEMO_UNUSED(kUseResult, result_offset);
  MNEMO_UNUSED(kUseResult, result_length);
#undef MNEMO_UNUSED
  return {};
}

Verdict CheckIndex(const Descriptor& d, const Limits& limits, const IndexInfo& index,
                   const IndexInfo& source) {
  MNEMO_REQUIRE(d.index_id < limits.granted.max_indexes, kStatusBadField, index_id);
  if (d.op == kOpCreate || d.op == kOpFork) {
    MNEMO_REQUIRE(!index.exists, kStatusUnknownIndex, index_id);
  } else {
    MNEMO_REQUIRE(index.exists, kStatusUnknownIndex, index_id);
    MNEMO_REQUIRE(d.index_generation == index.generation, kStatusStaleGeneration, index_generation);
  }
  if (d.op == kOpFork) {
    MNEMO_REQUIRE(d.k1 < limits.granted.max_indexes, kStatusBadField, k1);
    MNEMO_REQUIRE(source.exists, kStatusUnknownIndex, k1);
    MNEMO_REQUIRE(d.end % kPageTokens == 0 && d.end <= source.tokens, kStatusBadField, end);
  }
  if (d.op == kOpTruncate) {
    MNEMO_REQUIRE(d.end % kPageTokens == 0 && d.end <= index.tokens, kStatusBadField, end);
  }
  return {};
}

Verdict CheckHeads(const Descriptor& d, const IndexInfo& index) {
  const bool all_slots = d.layer_slot == kAllLayerSlots && !IsQueryOp(d.op);
  MNEMO_REQUIRE(all_slots || d.layer_slot < index.layer_slots, kStatusBadField, layer_slot);
  if (d.op == kOpAppend || d.op == kOpKvStore) {  // a slot has one length, so all of its heads grow together
    MNEMO_REQUIRE(d.first_head == 0, kStatusBadField, first_head);
    MNEMO_REQUIRE(d.heads == index.heads, kStatusBadField, heads);
  }
  MNEMO_REQUIRE(d.first_head < index.heads, kStatusBadField, first_head);
  MNEMO_REQUIRE(d.heads >= 1 && d.heads <= index.heads - d.first_head, kStatusBadField, heads);
  return {};
}

// Checks kOpAppend and kOpKvStore.
Verdict CheckGrowth(const Descriptor& d, const Limits& limits, const IndexInfo& index) {
  MNEMO_REQUIRE((d.op == kOpAppend ? ValueBytes(d.format) : KvTokenBytes(d.format, index.dim)) != 0,
                kStatusBadField, format);
  MNEMO_REQUIRE(Has(limits.granted.formats, d.format), kStatusUnsupported, format);
  if (d.op == kOpAppend) {
    MNEMO_REQUIRE(d.begin == index.tokens, kStatusBadField, begin);
    MNEMO_REQUIRE(d.end % kPageTokens == 0, kStatusBadField, end);
  } else {
    MNEMO_REQUIRE(d.format == index.kv_format, kStatusBadField, format);
    MNEMO_REQUIRE(d.begin <= index.kv_tokens, kStatusBadField, begin);
  }
  MNEMO_REQUIRE(d.end > d.begin && d.end <= index.max_tokens, kStatusBadField, end);
  return {};
}

Verdict CheckGather(const Descriptor& d, const Limits& limits, const IndexInfo& index) {
  MNEMO_REQUIRE(index.kv_format != 0 && d.format == index.kv_format, kStatusBadField, format);
  MNEMO_REQUIRE(d.k >= 1, kStatusBadField, k);
  MNEMO_REQUIRE(d.k <= limits.granted.max_k, kStatusUnsupported, k);
  return {};
}

Verdict CheckScore(const Descriptor& d, const Limits& limits) {
  const bool latest = d.select_op == kSelectLatest;
  MNEMO_REQUIRE(d.select_op >= kSelectTopK && d.select_op <= kSelectLatest, kStatusBadField, select_op);
  MNEMO_REQUIRE(Has(limits.granted.select_ops, d.select_op), kStatusUnsupported, select_op);
  if (latest) {
    MNEMO_REQUIRE(d.score_op == 0, kStatusBadField, score_op);
    MNEMO_REQUIRE(d.group_op == kGroupNone, kStatusBadField, group_op);
    MNEMO_REQUIRE(d.group == 0, kStatusBadField, group);
    return {};
  }
  MNEMO_REQUIRE(d.score_op >= kScoreDot && d.score_op <= kScoreBlockMean, kStatusBadField, score_op);
  MNEMO_REQUIRE(Has(limits.granted.score_ops, d.score_op), kStatusUnsupported, score_op);
  const bool fits = d.score_op == kScorePageBound   ? d.format == kFormatBounds
                    : d.score_op == kScoreBlockMean ? d.format == kFormatMeans
                                                    : IsCodeFormat(d.format);
  MNEMO_REQUIRE(fits, kStatusBadField, score_op);
  MNEMO_REQUIRE(d.group_op <= kGroupPlainMax && (d.group_op == kGroupNone) == (d.score_op == kScoreReluDot),
                kStatusBadField, group_op);
  MNEMO_REQUIRE(Has(limits.granted.group_ops, d.group_op), kStatusUnsupported, group_op);
  MNEMO_REQUIRE(d.group >= 1 && d.group <= kMaxGroup, kStatusBadField, group);
  MNEMO_REQUIRE(d.group <= limits.granted.max_group, kStatusUnsupported, group);
  return {};
}

Verdict CheckSelect(const Descriptor& d, const Limits& limits) {
  if (d.select_op == kSelectWeightedSum) {
    MNEMO_REQUIRE(d.op == kOpScoreSelect, kStatusBadField, select_op);
    MNEMO_REQUIRE(d.format == kFormatCodes8, kStatusBadField, format);
    MNEMO_REQUIRE(d.group == 1, kStatusBadField, group);
    MNEMO_REQUIRE(d.group_op == kGroupExp2Sum, kStatusBadField, group_op);
    MNEMO_REQUIRE(d.flags == 0, kStatusBadField, flags);
    MNEMO_REQUIRE(d.k == 0, kStatusBadField, k);
  } else {
    MNEMO_REQUIRE(d.k >= 1, kStatusBadField, k);
    MNEMO_REQUIRE(d.k <= limits.granted.max_k, kStatusUnsupported, k);
  }
  if (d.k1 != 0) {
    MNEMO_REQUIRE(d.format == kFormatCodes2 && d.k1 >= d.k, kStatusBadField, k1);
    MNEMO_REQUIRE(d.select_op == kSelectTopK || d.select_op == kSelectThreshold, kStatusBadField, k1);
    MNEMO_REQUIRE(limits.granted.cascade != 0, kStatusUnsupported, k1);
  }
  int32_t low = 0;
  int32_t high = 0;
  if (d.select_op == kSelectThreshold) {
    low = d.group_op == kGroupMax        ? kRankFloor
          : d.group_op == kGroupPlainMax ? kPlainRankFloor
          : d.group_op == kGroupExp2Sum  ? 0
                                         : INT32_MIN;
    high = d.group_op == kGroupMax        ? 0
           : d.group_op == kGroupPlainMax ? -kPlainRankFloor
           : d.group_op == kGroupExp2Sum  ? 65536
                                          : INT32_MAX;
  }
  MNEMO_REQUIRE(d.threshold >= low && d.threshold <= high, kStatusBadField, threshold);
  return {};
}

// Checks kOpScoreSelect and kOpScoreGather.
Verdict CheckQuery(const Descriptor& d, const Limits& limits, const IndexInfo& index) {
  MNEMO_REQUIRE((d.flags & ~kFlagsKnown) == 0, kStatusBadField, flags);
  MNEMO_REQUIRE(IsRecordFormat(d.format) && d.format == index.record_format, kStatusBadField, format);
  MNEMO_REQUIRE((d.flags & kFlagPages64) == 0 || !IsCodeFormat(d.format), kStatusBadField, flags);
  MNEMO_REQUIRE(d.op != kOpScoreGather || (index.kv_format != 0 && IsCodeFormat(d.format)), kStatusBadField,
                op);
  MNEMO_REQUIRE(d.queries >= 1, kStatusBadField, queries);
  MNEMO_REQUIRE(d.queries <= limits.granted.max_queries, kStatusUnsupported, queries);
  if (const Verdict verdict = CheckScore(d, limits); verdict.status != kStatusOk) {
    return verdict;
  }
  const uint32_t entry_tokens = EntryTokens(d.format, d.flags);
  MNEMO_REQUIRE(d.begin % entry_tokens == 0 && d.begin <= d.end, kStatusBadField, begin);
  MNEMO_REQUIRE(d.end % entry_tokens == 0 && d.end <= index.tokens, kStatusBadField, end);
  MNEMO_REQUIRE(d.op != kOpScoreGather || d.end <= index.kv_tokens, kStatusBadField, end);
  return CheckSelect(d, limits);
}

// Checks that units [offset, offset + length) lie in the region and hold `need` bytes.
#define MNEMO_CHECK_REGION(region, offset, length, need)                                         \
  do {                                                                                           \
    MNEMO_REQUIRE(d.region < limits.region_bytes.size(), kStatusBadRegion, region);              \
    MNEMO_REQUIRE(uint64_t{d.length} * kUnitBytes >= (need), kStatusBadField, length);           \
    MNEMO_REQUIRE((uint64_t{d.offset} + d.length) * kUnitBytes <= limits.region_bytes[d.region], \
                  kStatusBadRegion, offset);                                                     \
  } while (false)

Verdict CheckMemory(const Descriptor& d, const Limits& limits, const IndexInfo& index) {
  const uint32_t use = UseOf(d.op);
  if ((use & kUsePayload) != 0) {
    MNEMO_CHECK_REGION(payload_region, payload_offset, payload_length, PayloadBytes(d, index));
  }
  if ((use & kUseResult) != 0) {
    MNEMO_CHECK_REGION(result_region, result_offset, result_length, ResultBytes(d, index));
    const uint64_t payload_end = uint64_t{d.payload_offset} + d.payload_length;
    const uint64_t result_end = uint64_t{d.result_offset} + d.result_length;
    MNEMO_REQUIRE(d.payload_region != d.result_region || payload_end <= d.result_offset ||
                      result_end <= d.payload_offset,
                  kStatusBadRegion, result_offset);
  }
  return {};
}
#undef MNEMO_CHECK_REGION

// Saturates, so that no product of hostile fields looks small.
uint64_t Product(std::initializer_list<uint64_t> factors) {
  uint64_t product = 1;
  for (const uint64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) {
      return UINT64_MAX;
    }
  }
  return product;
}

uint64_t Slots(const Descriptor& d, const IndexInfo& index) {
  return d.layer_slot == kAllLayerSlots ? index.layer_slots : 1;
}

}  // namespace

uint64_t PayloadBytes(const Descriptor& d, const IndexInfo& index) {
  switch (d.op) {
    case kOpCreate:
      return sizeof(IndexSpec);
    case kOpAppend:
      return Product({Slots(d, index), d.heads, d.end - d.begin, index.dim, ValueBytes(d.format)});
    case kOpKvStore:
      return Product({Slots(d, index), d.heads, d.end - d.begin, KvTokenBytes(d.format, index.dim)});
    case kOpGather:
      return uint64_t{d.heads} * d.k * 4;
    case kOpScoreSelect:
    case kOpScoreGather:
      return d.select_op == kSelectLatest
                 ? 0
                 : uint64_t{d.queries} * d.heads * QueryBlockBytes(d.group, index.dim);
    default:
      return 0;
  }
}

uint64_t ResultBytes(const Descriptor& d, const IndexInfo& index) {
  const uint64_t blocks = uint64_t{d.queries} * d.heads;
  const uint64_t kv_bytes = KvTokenBytes(index.kv_format, index.dim);
  switch (d.op) {
    case kOpScoreSelect:
      return blocks * ResultBlockBytes(d.select_op, d.flags, d.k, index.dim);
    case kOpScoreGather:
      return blocks * (ResultBlockBytes(d.select_op, d.flags, d.k, index.dim) + d.k * kv_bytes);
    case kOpGather:
      return d.heads * d.k * kv_bytes;
    default:
      return 0;
  }
}

Verdict Validate(const Descriptor& d, const Limits& limits, const IndexInfo& index, const IndexInfo& source) {
  MNEMO_REQUIRE(IsKnownOp(d.op) && IsQueryOp(d.op) == (limits.ring_kind == kRingQuery), kStatusBadField, op);
  MNEMO_REQUIRE(Has(limits.granted.ops, d.op), kStatusUnsupported, op);
  MNEMO_REQUIRE(d.epoch == limits.granted.epoch, kStatusStaleEpoch, epoch);
  MNEMO_REQUIRE(d.seq == limits.next_seq, kStatusBadSequence, seq);
  Verdict verdict = CheckUnused(d);
  if (verdict.status == kStatusOk) {
    verdict = CheckIndex(d, limits, index, source);
  }
  if (verdict.status == kStatusOk && (UseOf(d.op) & kUseHeads) != 0) {
    verdict = CheckHeads(d, index);
  }
  if (verdict.status != kStatusOk) {
    return verdict;
  }
  switch (d.op) {
    case kOpCreate:
      MNEMO_REQUIRE(IsRecordFormat(d.format), kStatusBadField, format);
      MNEMO_REQUIRE(Has(limits.granted.formats, d.format), kStatusUnsupported, format);
      break;
    case kOpAppend:
    case kOpKvStore:
      verdict = CheckGrowth(d, limits, index);
      break;
    case kOpGather:
      verdict = CheckGather(d, limits, index);
      break;
    case kOpScoreSelect:
    case kOpScoreGather:
      verdict = CheckQuery(d, limits, index);
      break;
    default:
      break;
  }
  return verdict.status == kStatusOk ? CheckMemory(d, limits, index) : verdict;
}

Verdict ValidateSpec(const Descriptor& d, const IndexSpec& spec, const Limits& limits) {
  const AttachHello& granted = limits.granted;
#define MNEMO_SPEC(condition, field) \
  if (!(condition)) return {kStatusBadPayload, offsetof(IndexSpec, field)}
  MNEMO_SPEC(spec.max_tokens >= kPageTokens && spec.max_tokens % kPageTokens == 0 &&
                 spec.max_tokens <= granted.max_tokens,
             max_tokens);
  MNEMO_SPEC(spec.layer_slots >= 1 && spec.layer_slots < kAllLayerSlots, layer_slots);
  MNEMO_SPEC(spec.heads >= 1 && spec.heads <= granted.max_heads && spec.heads <= 255, heads);
  MNEMO_SPEC(IsIndexDim(spec.dim) && Has(granted.dims, std::bit_width(uint32_t{spec.dim}) - 1), dim);
  MNEMO_SPEC(spec.record_format == d.format, record_format);
  MNEMO_SPEC(spec.kv_format == 0 ||
                 (KvTokenBytes(spec.kv_format, spec.dim) != 0 && Has(granted.formats, spec.kv_format)),
             kv_format);
  for (size_t i = 0; i < sizeof(spec.reserved); ++i) {
    if (spec.reserved[i] != 0) {
      return {kStatusBadPayload, static_cast<uint16_t>(offsetof(IndexSpec, reserved) + i)};
    }
  }
#undef MNEMO_SPEC
  return {};
}

Verdict ValidateIds(std::span<const uint32_t> ids, uint32_t kv_tokens) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= kv_tokens) {
      return {kStatusBadPayload,
              4 * i < kNoDetail ? static_cast<uint16_t>(4 * i) : static_cast<uint16_t>(kNoDetail)};
    }
  }
  return {};
}

#undef MNEMO_REQUIRE
#undef MNEMO_BAD

}  // namespace mnemo::layout
