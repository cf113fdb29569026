#pragma once

// The 64-byte answer to a descriptor. The device writes the results, then bytes 0 to 55, then, in one 8-byte
// store with release order, status, detail and seq: whoever sees the new seq sees everything else. Payload,
// result space and the index may be used again only then.

#include "proto/layout/abi.h"

MNEMO_LAYOUT_BEGIN

enum Status {
  kStatusOk = 0,
  kStatusBadField = 1,      // out of its range, or not zero where unused; detail: its byte offset
  kStatusBadSequence = 2,   // seq is not the next; the ring is broken, its owner must attach anew
  kStatusStaleEpoch = 3,    // of an earlier attachment; dropped
  kStatusUnknownIndex = 4,  // no such index, or (kOpCreate, kOpFork) there is one; detail: offset of the id
  kStatusStaleGeneration = 5,  // the id was given to another index since
  kStatusUnsupported = 6,      // valid, but not among the capabilities told at attach; detail: byte offset
  kStatusBadRegion = 7,        // reaches outside its region, or overlaps; detail: byte offset
  kStatusBadPayload = 8,       // detail: first bad byte of the payload, or 0xFFFF when beyond
  kStatusFull = 9,             // the quota or the memory is used up; nothing was changed
  kStatusDraining = 10,        // takes no new indexes
  kStatusDeviceFailed = 11,    // the device did not finish; its indexes are lost
};

enum {
  kNoDetail = 0xFFFF,           // completion.detail
  kEnergyUnknown = 0xFFFFFFFF,  // completion.energy_uj: not measured
};

// Written by the device (bulk operations: by the service).
typedef struct Completion {
  uint32_t index_id;    // as in the descriptor
  uint32_t count;       // entries selected, over all positions and heads; bulk operations: tokens
  uint32_t watermark;   // tokens that the index holds now, in the slot, or in every slot for kAllLayerSlots
  uint32_t queue_ns;    // from doorbell to start; in no step
  uint32_t prepare_ns;  // making records
  uint32_t score_ns;    // up to and with the last score
  uint32_t select_ns;   // what comes after the last score
  uint32_t gather_ns;   // copying K and V
  uint64_t bytes_read;  // from the memory of indexes and values
  uint64_t bytes_written;  // results, records
  uint32_t energy_uj;      // or kEnergyUnknown
  uint32_t reserved;       // zero
  uint16_t status;         // Status; this and the next two are one store, the last
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
