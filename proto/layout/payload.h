#pragma once

// Query payloads and results of query operations. Both are arrays [queries][heads] of equal blocks. Each
// block is a multiple of 64 bytes, so that block n is at offset + n * block.
//
// Query block:     int8 code[group][dim], zeros to 64; QueryParam[group], zeros to 64.
// Result block:    ResultHeader; u32 id[k]; with kFlagRanks i32 rank[k]; to 64.
//                  Only the first `count` ids and ranks are written; their offsets are those for k entries.
//                  kSelectWeightedSum: WeightedSumHeader; i64 sum[dim].
// kOpGather:       payload u32 id[heads][k]; result kv[heads][k].
// kOpScoreGather:  the result blocks, then kv[queries][heads][k].
// kOpAppend:       payload value[slots][heads][end - begin][dim].
//                  slots: 1, or all of the index for kAllLayerSlots.
// kOpKvStore:      payload kv[slots][heads][end - begin].
// kv is K and V of one token and head, adjacent, KvTokenBytes: value[2][dim] of a value type, or the form of
// kFormatScaledKeys or kFormatScaledBytes. A service copies these bytes and never interprets them.

#include "proto/layout/abi.h"
#include "proto/layout/descriptor.h"

MNEMO_LAYOUT_BEGIN

// Conversion of one query's dot product to y (numerics.h). Made by MakeQuery (quantise.h).
typedef struct QueryParam {
  uint16_t multiplier;  // 32768..65535, or 0 for a query of zeros
  uint8_t shift;        // biased by 128
  uint8_t reserved0;    // zero
  int16_t weight;       // kScoreReluDot; zero otherwise
  uint16_t reserved1;   // zero
} QueryParam;

enum ResultFlag {
  kResultCut = 1,  // kSelectThreshold: more than k entries reached it
};

typedef struct ResultHeader {
  uint32_t count;  // number of ids written, at most k
  // Entries that the last stage chose from: those of [begin, end); in a cascade, those that passed the first
  // stage; with a threshold, those at or above it.
  uint32_t candidates;
  int32_t last_rank;  // lowest selected rank; 0 when none is selected
  uint32_t flags;     // ResultFlag
} ResultHeader;

// Value i of the weighted mean, rotated, is sum[i] / weight_total * 2^(top_octave - 23).
typedef struct WeightedSumHeader {
  uint32_t count;         // entries with a nonzero weight
  uint32_t candidates;    // entries of [begin, end)
  int32_t last_rank;      // zero
  uint32_t flags;         // zero
  uint64_t weight_total;  // at most 65536 per entry
  uint32_t top_octave;    // exponent that all terms are aligned to
  uint8_t reserved[36];   // zero
} WeightedSumHeader;

MNEMO_LAYOUT_ASSERT(sizeof(QueryParam) == 8, "QueryParam");
MNEMO_LAYOUT_ASSERT(offsetof(QueryParam, multiplier) == 0, "multiplier");
MNEMO_LAYOUT_ASSERT(offsetof(QueryParam, shift) == 2, "shift");
MNEMO_LAYOUT_ASSERT(offsetof(QueryParam, weight) == 4, "weight");
MNEMO_LAYOUT_ASSERT(sizeof(ResultHeader) == 16, "ResultHeader");
MNEMO_LAYOUT_ASSERT(offsetof(ResultHeader, candidates) == 4, "candidates");
MNEMO_LAYOUT_ASSERT(offsetof(ResultHeader, last_rank) == 8, "last_rank");
MNEMO_LAYOUT_ASSERT(offsetof(ResultHeader, flags) == 12, "flags");
MNEMO_LAYOUT_ASSERT(sizeof(WeightedSumHeader) == 64, "WeightedSumHeader");
MNEMO_LAYOUT_ASSERT(offsetof(WeightedSumHeader, weight_total) == 16, "weight_total");
MNEMO_LAYOUT_ASSERT(offsetof(WeightedSumHeader, top_octave) == 24, "top_octave");

#ifdef __cplusplus

// Rounds up to a multiple of kUnitBytes.
MNEMO_LAYOUT_FN uint64_t PadToUnit(uint64_t bytes) {
  return (bytes + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
}

// Returns the offset in bytes of the QueryParams in a query block.
MNEMO_LAYOUT_FN uint64_t QueryParamOffset(uint32_t group, uint32_t dim) {
  return PadToUnit(uint64_t{group} * dim);
}

// Returns the size of a query block in bytes.
MNEMO_LAYOUT_FN uint64_t QueryBlockBytes(uint32_t group, uint32_t dim) {
  return QueryParamOffset(group, dim) + PadToUnit(uint64_t{group} * sizeof(QueryParam));
}

// Returns the offset in bytes of the ranks in a result block.
MNEMO_LAYOUT_FN uint64_t RanksOffset(uint32_t k) { return sizeof(ResultHeader) + uint64_t{k} * 4; }

// Returns the size of a result block in bytes.
MNEMO_LAYOUT_FN uint64_t ResultBlockBytes(uint32_t select_op, uint32_t flags, uint32_t k, uint32_t dim) {
  if (select_op == kSelectWeightedSum) {
    return sizeof(WeightedSumHeader) + uint64_t{dim} * 8;
  }
  return PadToUnit(RanksOffset(k) + ((flags & kFlagRanks) != 0 ? uint64_t{k} * 4 : 0));
}

// Returns the bytes of one element of a value type, 0 for anything else.
MNEMO_LAYOUT_FN uint32_t ValueBytes(uint32_t format) {
  return format == kFormatF32 ? 4 : format == kFormatF16 || format == kFormatBf16 ? 2 : 0;
}

// Returns the bytes of K and V of one token and head, 0 for formats that do not hold K and V.
MNEMO_LAYOUT_FN uint64_t KvTokenBytes(uint32_t format, uint32_t dim) {
  return format == kFormatScaledKeys    ? 4 + uint64_t{dim} * 4
         : format == kFormatScaledBytes ? 4 + uint64_t{dim} * 2
                                        : uint64_t{2} * dim * ValueBytes(format);
}

#endif

MNEMO_LAYOUT_END
