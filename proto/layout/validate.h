#pragma once

// Says whether a descriptor may be obeyed, before any memory is touched. A pure function of private copies:
// the receiver copies the descriptor out of shared memory first, and looks up the indexes it names.

#include <stdint.h>

#include <span>

#include "proto/layout/attach.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"

namespace mnemo::layout {

// What was agreed at attach, and where the ring stands.
struct Limits {
  AttachHello granted;                     // masks and greatest values; epoch
  uint16_t ring_kind = 0;                  // RingKind that the descriptor came by
  uint32_t next_seq = 0;                   // the only seq that is in order
  std::span<const uint64_t> region_bytes;  // length of each region, by number
};

// What the receiver knows of one index id. For kAllLayerSlots, tokens and kv_tokens are the least of all
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
  uint32_t tokens = 0;     // complete pages of the slot that the descriptor names
  uint32_t kv_tokens = 0;  // tokens whose K and V the slot holds
};

struct Verdict {
  uint16_t status = kStatusOk;  // Status
  uint16_t detail = kNoDetail;  // byte offset of the first bad field
  friend bool operator==(const Verdict&, const Verdict&) = default;
};

// `index` is that of index_id, `source` that of k1 for kOpFork. Fields are looked at in the order: op, epoch,
// seq, unused fields, index, then the others; the first bad one is named.
Verdict Validate(const Descriptor& descriptor, const Limits& limits, const IndexInfo& index,
                 const IndexInfo& source);

// The payload of kOpCreate; detail is an offset in the payload.
Verdict ValidateSpec(const Descriptor& descriptor, const IndexSpec& spec, const Limits& limits);

// Ids of a kOpGather payload, [heads][k]: each below kv_tokens. detail is the offset in the payload,
// kNoDetail when beyond.
Verdict ValidateIds(std::span<const uint32_t> ids, uint32_t kv_tokens);

// Bytes that a valid descriptor's payload and results take; its lengths may be larger, not smaller.
uint64_t PayloadBytes(const Descriptor& descriptor, const IndexInfo& index);
uint64_t ResultBytes(const Descriptor& descriptor, const IndexInfo& index);

}  // namespace mnemo::layout
