#pragma once

// The specification of every device's results, one entry at a time and in plain integers. Nothing here is
// fast.

#include <stdint.h>

#include <span>
#include <vector>

#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::layout {

// The records of one sequence, layer slot and head: records[p] points to page p.
struct IndexColumn {
  uint32_t format;
  uint32_t dim;
  std::span<const uint8_t* const> records;
};

// Planes that a score reads.
enum class Stage {
  // First stage of a cascade: base, sign plane and the page's sign scale.
  kSign,
  kFull,
};

// Returns y[g * entries.size() + j]: y of entry entries[j] for query g of the block. Also valid for
// kScoreReluDot, whose sum over the group Ranks computes.
std::vector<int16_t> Scores(const IndexColumn& index, uint32_t score_op, uint32_t flags, Stage stage,
                            uint32_t group, const uint8_t* query_block, std::span<const uint32_t> entries);

// Returns one rank per entry. kGroupNone: sum of weight * max(0, y), with the block's weights.
std::vector<int32_t> Ranks(std::span<const int16_t> scores, uint32_t group, uint32_t group_op, uint32_t dim,
                           const uint8_t* query_block);

// Returns the positions of the k highest ranks, ascending; of equal ranks the lowest positions. Counts 12
// bits of rank per pass.
std::vector<uint32_t> TopK(std::span<const int32_t> ranks, uint32_t k);

// Executes kOpScoreSelect for one query position and head. `op` must have passed Validate. Writes all
// ResultBlockBytes of `result`.
void ScoreSelect(const Descriptor& op, const IndexColumn& index, const uint8_t* query_block,
                 std::span<uint8_t> result);

}  // namespace mnemo::layout
