#pragma once

// Decides whether a descriptor may be executed, before any memory is touched. A pure function of private
// copies: the receiver first copies the descriptor out of shared memory, and looks up the indexes it names.

#include <stdint.h>

#include <span>

#include "proto/layout/attach.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"

namespace mnemo::layout {

// Limits agreed at attach, and the state of the ring.
struct Limits {
  // Masks, maxima and epoch.
  AttachHello granted;
  // RingKind of the ring that the descriptor came from.
  uint16_t ring_kind = 0;
  // The next sequence number; any other is out of order.
  uint32_t next_seq = 0;
  // Length of each region, by number.
  std::span<const uint64_t> region_bytes;
};

// The receiver's state of one index id. For kAllLayerSlots, tokens and kv_tokens are the minimum over all
// slots.
struct IndexInfo {
  bool exists = false;
  uint16_t generation = 0;
  uint16_t layer_slots = 0;
  uint16_t heads = 0;
  uint16_t dim = 0;
  uint8_t record_format = 0;
  uint8_t kv_format = 0;
  uint32_t max_tokens = 0;
  // Tokens in complete pages of the slot that the descriptor names.
  uint32_t tokens = 0;
  // Tokens whose K and V the slot holds.
  uint32_t kv_tokens = 0;
};

struct Verdict {
  uint16_t status = kStatusOk;  // Status
  // Byte offset of the first bad field.
  uint16_t detail = kNoDetail;
  friend bool operator==(const Verdict&, const Verdict&) = default;
};

// `index` is that of index_id, `source` that of k1 for kOpFork. Fields are checked in the order: op, epoch,
// seq, unused fields, index, then the others; the verdict names the first bad one.
Verdict Validate(const Descriptor& descriptor, const Limits& limits, const IndexInfo& index,
                 const IndexInfo& source);

// Validates the payload of kOpCreate; detail is an offset in the payload.
Verdict ValidateSpec(const Descriptor& descriptor, const IndexSpec& spec, const Limits& limits);

// Validates the ids of a kOpGather payload, [heads][k]: each below kv_tokens. detail is the offset in the
// payload, kNoDetail when beyond.
Verdict ValidateIds(std::span<const uint32_t> ids, uint32_t kv_tokens);

// Return the bytes of a valid descriptor's payload and results; the lengths in the descriptor may be larger,
// not smaller.
uint64_t PayloadBytes(const Descriptor& descriptor, const IndexInfo& index);
uint64_t ResultBytes(const Descriptor& descriptor, const IndexInfo& index);

}  // namespace mnemo::layout
