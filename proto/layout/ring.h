#pragma once

// The header before the slots of a single-producer single-consumer ring, in memory that the service made.
//
// Indices are free-running: slot = index & (slots - 1); empty when head == tail, full when head - tail ==
// slots (u32 arithmetic). The producer fills slots, then stores head with release; over RDMA: put, fence,
// put; on a write-combining mapping: sfence in between. The consumer loads head with acquire, copies slots,
// then stores tail with release.
//
// Sleep: the consumer stores asleep = 1, executes a full fence, then reads head once more. It sleeps only if
// head has not moved. After storing head, the producer executes a full fence and reads asleep; if it is 1,
// the producer stores 0 and wakes the consumer. With the two fences at least one side sees the other's store,
// so no wake-up is lost. On one host a wake-up is a byte on the socket of the attachment, so that one poll
// covers the doorbells of many rings and the end of a peer. For a single ring, a futex on `asleep` works as
// well.

#include "proto/layout/abi.h"

MNEMO_LAYOUT_BEGIN

enum RingKind {
  kRingBulk = 1,         // descriptors of bulk operations, to service software
  kRingQuery = 2,        // descriptors of query operations, to the device
  kRingCompletions = 3,  // completions, back to the worker; one ring for each of the others
};

#define MNEMO_RING_MAGIC 0x31474E52454D4E4DULL /* "MNMERNG1" */

typedef struct RingHeader {
  // Written once, by the service, before the worker sees it.
  uint64_t magic;      // MNEMO_RING_MAGIC
  uint16_t abi_major;  // kAbiMajor
  uint16_t abi_minor;  // kAbiMinor
  uint16_t kind;       // RingKind
  uint16_t epoch;      // of the attachment
  // A power of two; also the number of credits, the maximum in flight.
  uint32_t slots;
  uint32_t slot_bytes;          // 64
  uint64_t slots_offset_bytes;  // from this header to slot 0, a multiple of 64
  uint8_t reserved0[32];
  // Cache line of the producer.
  // Number of slots ever filled; this is the doorbell.
  uint32_t head;
  uint8_t reserved1[60];
  // Cache line of the consumer.
  // Number of slots ever taken.
  uint32_t tail;
  uint8_t reserved2[60];
  // Written by both sides.
  // 1: the consumer sleeps and must be woken; 0: it polls.
  uint32_t asleep;
  // 1: the side that stored it is gone for good; the other drains and stops.
  uint32_t closed;
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
