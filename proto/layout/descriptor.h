#pragma once

// The 64-byte descriptor of a ring: one operation on one sequence's index, one layer slot and one range of KV
// heads. A worker writes all descriptors of a layer, then rings the doorbell once. The receiver copies a
// descriptor once into private memory and validates the copy (validate.h). It never reads the descriptor from
// shared memory again.

#include "proto/layout/abi.h"

MNEMO_LAYOUT_BEGIN

// Operations. The bulk ring takes the first six, the query ring the others.
enum Op {
  kOpCreate = 1,        // new empty index; payload: one IndexSpec
  kOpAppend = 2,        // keys of the complete pages [begin, end); begin is the slot's current length
  kOpFork = 3,          // new index that shares the first `end` tokens (whole pages) of index k1
  kOpTruncate = 4,      // remove everything from token `end` on (whole pages)
  kOpFree = 5,          // drop the index
  kOpKvStore = 6,       // store K and V of tokens [begin, end) for kOpGather
  kOpScoreSelect = 16,  // score [begin, end), select, write ids
  kOpGather = 17,       // copy K and V of listed tokens
  kOpScoreGather = 18,  // kOpScoreSelect, then kOpGather of the selected entries
};

// Score of one query against one entry of the index: y, an i16 in log2 units with 4 fractional bits.
enum ScoreOp {
  kScoreDot = 1,        // query . (base + token): entries are tokens
  kScoreReluDot = 2,    // sum over the group of weight * max(0, y) in i64; the rank is that sum >> 5
  kScorePageBound = 3,  // upper bound of query . key over a page: entries are pages (kFormatBounds)
  kScoreBlockMean = 4,  // query . mean key of a page: entries are pages (kFormatMeans)
};

// Reduction of the y of a query group to one rank per entry.
enum GroupOp {
  kGroupNone = 0,      // kScoreReluDot and kSelectLatest, which do not reduce a group
  kGroupMax = 1,       // max over g of (y_g - max over the scan of y_g), at least -4095
  kGroupExp2Sum = 2,   // sum over g of exp2 of the same difference; 2^24 for a difference of 0
  kGroupPlainMax = 3,  // max over g of y_g, at least -32767
};

// Selection of the resulting entries. Higher ranks come first; of equal ranks the lower id.
enum SelectOp {
  kSelectTopK = 1,       // the k best, or all when there are fewer
  kSelectThreshold = 2,  // entries at or above the threshold, of these the k best
  // No ids: the sum of all entries weighted by exp2 of their rank (group 1, 8-bit codes).
  kSelectWeightedSum = 3,
  kSelectLatest = 4,  // the last k entries, unscored
};

// Record formats 1 to 5 are those of indexes. Value types 16 to 18 are those of keys and values in payloads.
// 19 and 20 hold a key and a value together, only for kOpKvStore and the data it stored.
enum Format {
  kFormatCodes2 = 1,  // two planes, values -3 -1 1 3
  kFormatCodes4 = 2,
  kFormatCodes8 = 3,
  kFormatBounds = 4,  // per 16 tokens: lowest and highest key element, rounded outward to int8
  kFormatMeans = 5,   // per 16 and per 64 tokens: mean key in int8
  kFormatF16 = 16,
  kFormatBf16 = 17,
  kFormatF32 = 18,
  kFormatScaledKeys = 19,   // f32 scale, i16 key[dim] to be multiplied by it, 16-bit float value[dim]
  kFormatScaledBytes = 20,  // two scales in 32 bits, u8 key[dim], i8 value[dim]
};

// descriptor.flags
enum DescriptorFlag {
  kFlagByRank = 1,   // ids by falling rank, then ascending id; without it ascending
  kFlagRanks = 2,    // an i32 rank per id after the ids
  kFlagPages64 = 4,  // kScorePageBound, kScoreBlockMean: entries are pages of 64 tokens, not 16
  kFlagsKnown = kFlagByRank | kFlagRanks | kFlagPages64,
};

enum {
  kAllLayerSlots = 0xFFFF,  // descriptor.layer_slot of bulk operations only
};

// Written by the worker. Fields that an operation does not use (validate.h) are zero.
typedef struct Descriptor {
  uint8_t op;         // Op
  uint8_t flags;      // DescriptorFlag
  uint16_t epoch;     // attachment of the descriptor; another epoch is stale and dropped
  uint32_t seq;       // the ring's previous value plus one, wrapping; repeated in the completion
  uint32_t index_id;  // chosen by the worker, below the limit agreed at attach
  // Incremented each time an id is reused, so that a late descriptor matches no index.
  uint16_t index_generation;
  uint16_t layer_slot;  // the indexed layer; kAllLayerSlots: all
  uint8_t first_head;   // KV heads [first_head, first_head + heads)
  uint8_t heads;
  uint8_t group;      // queries that share a KV head
  uint8_t queries;    // query positions (more than 1: speculation, or a batch over one range)
  uint8_t score_op;   // ScoreOp
  uint8_t group_op;   // GroupOp
  uint8_t select_op;  // SelectOp
  // The index's record format; kOpAppend, kOpKvStore, kOpGather: the payload's value type.
  uint8_t format;
  uint32_t begin;  // first token; the worker handles the tokens before it
  uint32_t end;    // one past the last token
  uint32_t k;      // requested entries per query position and head; kOpGather: listed tokens per head
  uint32_t k1;     // entries that the first stage keeps, 0: one stage; kOpFork: source index id
  // kSelectThreshold, by group_op. kGroupMax: lowest rank, -4095..0. kGroupPlainMax: lowest rank,
  // -32767..32767. kGroupExp2Sum: lowest share of the sum of all ranks, in 2^-16, 0..65536. kScoreReluDot:
  // lowest rank.
  int32_t threshold;
  uint16_t payload_region;  // numbered at attach
  uint16_t result_region;
  uint32_t payload_offset;  // this and the next three in 64-byte units
  uint32_t payload_length;
  uint32_t result_offset;
  uint32_t result_length;
} Descriptor;

// The payload of kOpCreate.
typedef struct IndexSpec {
  uint32_t max_tokens;    // reserved; appends beyond it are refused. Whole pages.
  uint16_t layer_slots;   // each holds its own records
  uint16_t heads;         // KV heads
  uint16_t dim;           // per head
  uint8_t record_format;  // Format, 1 to 5
  uint8_t kv_format;      // K and V of kOpKvStore: a value type or kFormatScaled...; 0: none
  uint8_t reserved[52];   // zero
} IndexSpec;

#define MNEMO_DESCRIPTOR_FIELDS(X)  \
  X(uint8_t, op, 0)                 \
  X(uint8_t, flags, 1)              \
  X(uint16_t, epoch, 2)             \
  X(uint32_t, seq, 4)               \
  X(uint32_t, index_id, 8)          \
  X(uint16_t, index_generation, 12) \
  X(uint16_t, layer_slot, 14)       \
  X(uint8_t, first_head, 16)        \
  X(uint8_t, heads, 17)             \
  X(uint8_t, group, 18)             \
  X(uint8_t, queries, 19)           \
  X(uint8_t, score_op, 20)          \
  X(uint8_t, group_op, 21)          \
  X(uint8_t, select_op, 22)         \
  X(uint8_t, format, 23)            \
  X(uint32_t, begin, 24)            \
  X(uint32_t, end, 28)              \
  X(uint32_t, k, 32)                \
  X(uint32_t, k1, 36)               \
  X(int32_t, threshold, 40)         \
  X(uint16_t, payload_region, 44)   \
  X(uint16_t, result_region, 46)    \
  X(uint32_t, payload_offset, 48)   \
  X(uint32_t, payload_length, 52)   \
  X(uint32_t, result_offset, 56)    \
  X(uint32_t, result_length, 60)

#define MNEMO_INDEX_SPEC_FIELDS(X) \
  X(uint32_t, max_tokens, 0)       \
  X(uint16_t, layer_slots, 4)      \
  X(uint16_t, heads, 6)            \
  X(uint16_t, dim, 8)              \
  X(uint8_t, record_format, 10)    \
  X(uint8_t, kv_format, 11)

#define MNEMO_CHECK_FIELD(type, name, at)                                                                   \
  MNEMO_LAYOUT_ASSERT(offsetof(Descriptor, name) == (at) && sizeof(((Descriptor*)0)->name) == sizeof(type), \
                      #name);
MNEMO_DESCRIPTOR_FIELDS(MNEMO_CHECK_FIELD)
#undef MNEMO_CHECK_FIELD
MNEMO_LAYOUT_ASSERT(sizeof(Descriptor) == 64, "a descriptor is one cache line");

#define MNEMO_CHECK_FIELD(type, name, at)                                                                 \
  MNEMO_LAYOUT_ASSERT(offsetof(IndexSpec, name) == (at) && sizeof(((IndexSpec*)0)->name) == sizeof(type), \
                      #name);
MNEMO_INDEX_SPEC_FIELDS(MNEMO_CHECK_FIELD)
#undef MNEMO_CHECK_FIELD
MNEMO_LAYOUT_ASSERT(sizeof(IndexSpec) == 64, "one unit");

MNEMO_LAYOUT_END
