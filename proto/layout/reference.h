#pragma once

// What every device must compute, one entry at a time and in plain integers. Nothing here is fast.

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

// Which planes a score reads.
enum class Stage {
  kSign,  // first of a cascade: base, sign plane and the page's sign scale
  kFull,
};

// y[g * entries.size() + j] of entry entries[j] for query g of the block. score_op other than kScoreReluDot
// too: that op's sum over the group is taken by Ranks.
std::vector<int16_t> Scores(const IndexColumn& index, uint32_t score_op, uint32_t flags, Stage stage,
                            uint32_t group, const uint8_t* query_block, std::span<const uint32_t> entries);

// One rank per entry. kGroupNone: sum of weight * max(0, y), with the block's weights.
std::vector<int32_t> Ranks(std::span<const int16_t> scores, uint32_t group, uint32_t group_op, uint32_t dim,
                           const uint8_t* query_block);

// Positions of the k highest ranks, rising; of equal ranks the lowest positions. By counting, 12 bits of rank
// a pass.
std::vector<uint32_t> TopK(std::span<const int32_t> ranks, uint32_t k);

// The whole of kOpScoreSelect for one query position and head. `op` must have passed Validate. `result` has
// ResultBlockBytes of it; all of them are written.
void ScoreSelect(const Descriptor& op, const IndexColumn& index, const uint8_t* query_block,
                 std::span<uint8_t> result);

}  // namespace mnemo::layout
