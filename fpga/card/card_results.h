#pragma once

// Results of a card: checked as far as they can be without the scores, then brought into the form that the
// owner of an operation asked for.

#include <cstdint>
#include <span>
#include <vector>

#include "devices/base/status.h"
#include "proto/layout/descriptor.h"

namespace mnemo::card {

// A block of an operation that the card answered, in private memory.
struct CheckedBlock {
  uint32_t candidates = 0;
  int32_t last_rank = 0;
  uint32_t flags = 0;  // ResultFlag
  std::vector<uint32_t> ids;
  std::vector<int32_t> ranks;  // of the ids, if the card was asked for them
};

// Flags of the descriptor that the card gets for one with `flags`: it knows no order by rank.
uint8_t FlagsForCard(uint8_t flags);

// Copies a result block of the card once and checks the copy: number, order and bounds of ids, and ranks.
// `descriptor` is the caller's. INTERNAL names what cannot be.
absl::Status ReadBlock(const layout::Descriptor& descriptor, std::span<const uint8_t> bytes,
                       CheckedBlock* block);

// Orders ids by rank if the descriptor asks for it, and writes the block as layout::ScoreSelect would. Bytes
// behind the last id and rank stay. Returns the bytes written.
uint64_t WriteBlock(const layout::Descriptor& descriptor, CheckedBlock* block, uint8_t* result);

// Copies a result block of kSelectWeightedSum, and checks the copy's header. Returns its count.
absl::StatusOr<uint32_t> CopySum(const layout::Descriptor& descriptor, std::span<const uint8_t> bytes,
                                 uint8_t* result);

// A block of layout::kSelectLatest.
CheckedBlock LatestBlock(const layout::Descriptor& descriptor);

}  // namespace mnemo::card
