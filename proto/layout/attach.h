#pragma once

// Handshake of the two sides at attach, before any ring is used. Each sends an AttachHello. When the two do
// not match (CompareHello in layout_hash.h), the attachment ends with an error that names both values.

#include "proto/layout/abi.h"

MNEMO_LAYOUT_BEGIN

#define MNEMO_ATTACH_MAGIC 0x31544154454D4E4DULL /* "MNMETAT1" */

enum ResultPlacement {
  kResultsAtService = 0,  // results and completions are in the service's memory; the worker reads them there
  kResultsAtWorker = 1,   // the device writes them to the worker's memory
};

// In masks, bit n stands for the enum value n. The worker sends the requested values, the service the granted
// ones. Descriptors are validated against the granted limits.
typedef struct AttachHello {
  uint64_t magic;         // MNEMO_ATTACH_MAGIC
  uint16_t abi_major;     // must be equal
  uint16_t abi_minor;     // the lower one applies
  uint16_t epoch;         // granted: number of this attachment
  uint16_t placement;     // ResultPlacement
  uint64_t layout_hash;   // kLayoutHash (layout_hash.h); must be equal
  uint64_t quantiser_id;  // kQuantiserId (layout_hash.h); must be equal
  uint32_t ops;           // Op
  uint32_t formats;       // Format: record formats and value types
  uint8_t score_ops;      // ScoreOp
  uint8_t group_ops;      // GroupOp
  uint8_t select_ops;     // SelectOp
  uint8_t cascade;        // 1: descriptors may have k1
  uint16_t dims;          // bit n: head dim 2^n
  uint16_t max_group;     // queries per head
  uint32_t max_k;         // entries per position and head
  uint32_t max_tokens;    // per index
  uint16_t max_queries;   // positions per descriptor
  uint16_t max_heads;     // KV heads per index
  uint32_t max_indexes;   // index ids are below it
  uint64_t quota_bytes;   // records and values of all indexes of this worker
  uint64_t region_bytes;  // size of the shared region
  uint32_t bulk_slots;    // ring sizes
  uint32_t query_slots;
  uint16_t regions;      // region numbers are below it
  uint8_t reserved[38];  // zero
} AttachHello;

#define MNEMO_ATTACH_FIELDS(X)  \
  X(uint64_t, magic, 0)         \
  X(uint16_t, abi_major, 8)     \
  X(uint16_t, abi_minor, 10)    \
  X(uint16_t, epoch, 12)        \
  X(uint16_t, placement, 14)    \
  X(uint64_t, layout_hash, 16)  \
  X(uint64_t, quantiser_id, 24) \
  X(uint32_t, ops, 32)          \
  X(uint32_t, formats, 36)      \
  X(uint8_t, score_ops, 40)     \
  X(uint8_t, group_ops, 41)     \
  X(uint8_t, select_ops, 42)    \
  X(uint8_t, cascade, 43)       \
  X(uint16_t, dims, 44)         \
  X(uint16_t, max_group, 46)    \
  X(uint32_t, max_k, 48)        \
  X(uint32_t, max_tokens, 52)   \
  X(uint16_t, max_queries, 56)  \
  X(uint16_t, max_heads, 58)    \
  X(uint32_t, max_indexes, 60)  \
  X(uint64_t, quota_bytes, 64)  \
  X(uint64_t, region_bytes, 72) \
  X(uint32_t, bulk_slots, 80)   \
  X(uint32_t, query_slots, 84)  \
  X(uint16_t, regions, 88)

#define MNEMO_CHECK_FIELD(type, name, at) \
  MNEMO_LAYOUT_ASSERT(                    \
      offsetof(AttachHello, name) == (at) && sizeof(((AttachHello*)0)->name) == sizeof(type), #name);
MNEMO_ATTACH_FIELDS(MNEMO_CHECK_FIELD)
#undef MNEMO_CHECK_FIELD
MNEMO_LAYOUT_ASSERT(sizeof(AttachHello) == 128, "two cache lines");

MNEMO_LAYOUT_END
