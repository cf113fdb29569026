#pragma once

// The header in front of the slots of a single-producer single-consumer ring. It lies in memory that the
// service made.
//
// Indices are free-running: slot = index & (slots - 1); empty when head == tail, full when head - tail ==
// slots (u32 arithmetic). The producer fills slots, then stores head with release; over RDMA: put, fence,
// put; on a write-combining mapping: sfence in between. The consumer loads head with acquire, copies slots,
// then stores tail with release.
//
// Sleep: the consumer stores asleep = 1, then a full fence, then reads head once more, and only if it has not
// moved sleeps until it is woken. The producer, after it stored head, does a full fence, then reads asleep,
// and if 1 stores 0 and wakes. Of the two fences at least one side sees the other's store, so no wake-up is
// lost. On one host a wake-up is a byte on the socket that the sides attached over, so that one poll sees the
// doorbells of many rings and the end of a peer; a futex on `asleep` does as well for a single ring.

#include "proto/layout/abi.h"

MNEMO_LAYOUT_BEGIN

enum RingKind {
  kRingBulk = 1,         // descriptors of bulk operations, to service software
  kRingQuery = 2,        // descriptors of query operations, to the device
  kRingCompletions = 3,  // completions, back to the worker; one for each of the others
};

#define MNEMO_RING_MAGIC 0x31474E52454D4E4DULL /* "MNMERNG1" */

typedef struct RingHeader {
  // Written once, by the service, before the worker sees it.
  uint64_t magic;               // MNEMO_RING_MAGIC
  uint16_t abi_major;           // kAbiMajor
  uint16_t abi_minor;           // kAbiMinor
  uint16_t kind;                // RingKind
  uint16_t epoch;               // attachment
  uint32_t slots;               // a power of two; also the credits: as many may be under way
  uint32_t slot_bytes;          // 64
  uint64_t slots_offset_bytes;  // from this header to slot 0, a multiple of 64
  uint8_t reserved0[32];
  // Producer's line.
  uint32_t head;  // slots ever filled; this is the doorbell
  uint8_t reserved1[60];
  // Consumer's line.
  uint32_t tail;  // slots ever taken
  uint8_t reserved2[60];
  // Both write it.
  uint32_t asleep;  // 1: the consumer sleeps and must be woken; 0: it polls
  uint32_t closed;  // 1: the side that stores it is gone for good; the other drains and stops
  uint8_t reserved3[56];
} RingHeader;

#define MNEMO_RING_FIELDS(X)          \
  X(uint64_t, magic, 0)               \
  X(uint16_t, abi_major, 8)           \
  X(uint16_t, abi_minor, 10)          \
  X(uint16_t, kind, 12)               \
  X(uint16_t, epoch, 14)              \
  X(uint32_t, slots, 16)              \
  X(uint32_t, slot_bytes, 20)         \
  X(uint64_t, slots_offset_bytes, 24) \
  X(uint32_t, head, 64)               \
  X(uint32_t, tail, 128)              \
  X(uint32_t, asleep, 192)            \
  X(uint32_t, closed, 196)

#define MNEMO_CHECK_FIELD(type, name, at)                                                                   \
  MNEMO_LAYOUT_ASSERT(offsetof(RingHeader, name) == (at) && sizeof(((RingHeader*)0)->name) == sizeof(type), \
                      #name);
MNEMO_RING_FIELDS(MNEMO_CHECK_FIELD)
#undef MNEMO_CHECK_FIELD
MNEMO_LAYOUT_ASSERT(sizeof(RingHeader) == 256, "four cache lines, so that the sides do not share one");

MNEMO_LAYOUT_END
