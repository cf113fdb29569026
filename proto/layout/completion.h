#pragma once

// The 64-byte answer to a descriptor. The device writes the results, then bytes 0 to 55. Then one 8-byte
// store with release order writes status, detail and seq. A reader that sees the new seq therefore sees all
// other data. Payload, result space and the index may be reused only then.

#include "proto/layout/abi.h"

MNEMO_LAYOUT_BEGIN

enum Status {
  kStatusOk = 0,
  // Out of range, or nonzero where unused; detail: its byte offset.
  kStatusBadField = 1,
  // seq is not the next one; the ring is broken, and its owner must attach again.
  kStatusBadSequence = 2,
  // From an earlier attachment; dropped.
  kStatusStaleEpoch = 3,
  // No such index, or (kOpCreate, kOpFork) it exists already; detail: offset of the id.
  kStatusUnknownIndex = 4,
  // The id has been reused for another index since.
  kStatusStaleGeneration = 5,
  // Valid, but not among the capabilities agreed at attach; detail: byte offset.
  kStatusUnsupported = 6,
  // Outside of its region, or overlapping; detail: byte offset.
  kStatusBadRegion = 7,
  // detail: first bad byte of the payload, or 0xFFFF when beyond.
  kStatusBadPayload = 8,
  // The quota or the memory is exhausted; nothing was changed.
  kStatusFull = 9,
  // The service accepts no new indexes.
  kStatusDraining = 10,
  // The device did not finish; its indexes are lost.
  kStatusDeviceFailed = 11,
};

enum {
  kNoDetail = 0xFFFF,           // completion.detail
  kEnergyUnknown = 0xFFFFFFFF,  // completion.energy_uj: not measured
};

// Written by the device (bulk operations: by the service).
typedef struct Completion {
  uint32_t index_id;  // as in the descriptor
  uint32_t count;     // selected entries, over all positions and heads; bulk operations: tokens
  // Tokens that the index holds now, in the slot, or in every slot for kAllLayerSlots.
  uint32_t watermark;
  uint32_t queue_ns;       // from doorbell to start; belongs to no step
  uint32_t prepare_ns;     // making records
  uint32_t score_ns;       // up to and including the last score
  uint32_t select_ns;      // after the last score
  uint32_t gather_ns;      // copying K and V
  uint64_t bytes_read;     // from the memory of indexes and values
  uint64_t bytes_written;  // results, records
  uint32_t energy_uj;      // or kEnergyUnknown
  uint32_t reserved;       // zero
  uint16_t status;         // Status; this and the next two fields are one store, the last
  uint16_t detail;         // see Status; kNoDetail when there is none
  uint32_t seq;            // of the descriptor
} Completion;

#define MNEMO_COMPLETION_FIELDS(X) \
  X(uint32_t, index_id, 0)         \
  X(uint32_t, count, 4)            \
  X(uint32_t, watermark, 8)        \
  X(uint32_t, queue_ns, 12)        \
  X(uint32_t, prepare_ns, 16)      \
  X(uint32_t, score_ns, 20)        \
  X(uint32_t, select_ns, 24)       \
  X(uint32_t, gather_ns, 28)       \
  X(uint64_t, bytes_read, 32)      \
  X(uint64_t, bytes_written, 40)   \
  X(uint32_t, energy_uj, 48)       \
  X(uint32_t, reserved, 52)        \
  X(uint16_t, status, 56)          \
  X(uint16_t, detail, 58)          \
  X(uint32_t, seq, 60)

#define MNEMO_CHECK_FIELD(type, name, at)                                                                   \
  MNEMO_LAYOUT_ASSERT(offsetof(Completion, name) == (at) && sizeof(((Completion*)0)->name) == sizeof(type), \
                      #name);
MNEMO_COMPLETION_FIELDS(MNEMO_CHECK_FIELD)
#undef MNEMO_CHECK_FIELD
MNEMO_LAYOUT_ASSERT(sizeof(Completion) == 64, "a completion is one cache line");

MNEMO_LAYOUT_END
