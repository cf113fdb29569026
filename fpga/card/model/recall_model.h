#pragma once

// recall_unit (fpga/rtl/select): the weighted sum of the values of all entries of a scan.

#include <cstdint>
#include <span>
#include <vector>

#include "fpga/card/model/jobs.h"
#include "fpga/card/model/lane_model.h"
#include "proto/layout/payload.h"

namespace mnemo::card::model {

// The queries of a scan of values: `count` of them, each the unit vector of one element from `first` on. A
// value is shifted down from its own octave to `top_octave`.
std::vector<Query> UnitQueries(uint32_t dim, uint32_t first, uint32_t count, uint32_t top_octave);

struct WeightedSum {
  layout::WeightedSumHeader header{};
  std::vector<int64_t> sum;  // [dim]
};

// Begins the sum of a head: count and weight_total by the ranks of the entries that count, in page order.
WeightedSum BeginSum(std::span<const int32_t> ranks, uint32_t top_octave, uint32_t dim);

// Adds the values of elements [first, first + group) of one part: those of an entry times its rank >> 8.
void AddValues(const ScoreStore& values, std::span<const int32_t> ranks, uint32_t first, uint32_t group,
               WeightedSum* sum);

}  // namespace mnemo::card::model
