#include "fpga/card/model/recall_model.h"

#include "proto/layout/record.h"

namespace mnemo::card::model {
namespace {

constexpr uint32_t kWeightShift = 8;
// The shift of a query that takes nothing off a value of octave 0.
constexpr uint32_t kNoShift = 105;

uint32_t WeightOf(int32_t rank) { return static_cast<uint32_t>(rank) >> kWeightShift; }

}  // namespace

std::vector<Query> UnitQueries(uint32_t dim, uint32_t first, uint32_t count, uint32_t top_octave) {
  layout::QueryParam param{};
  param.multiplier = 1;
  param.shift = static_cast<uint8_t>(kNoShift + top_octave);
  std::vector<Query> queries;
  for (uint32_t n = first; n < first + count; ++n) {
    std::vector<int8_t> codes(dim);
    codes[n] = 1;
    queries.push_back(MakeQueryTables(codes, param, Kind::kCodes));
  }
  return queries;
}

WeightedSum BeginSum(std::span<const int32_t> ranks, uint32_t top_octave, uint32_t dim) {
  WeightedSum sum;
  sum.header.candidates = static_cast<uint32_t>(ranks.size());
  sum.header.top_octave = top_octave;
  for (const int32_t rank : ranks) {
    sum.header.count += WeightOf(rank) != 0 ? 1 : 0;
    sum.header.weight_total += WeightOf(rank);
  }
  sum.sum.resize(dim);
  return sum;
}

void AddValues(const ScoreStore& values, std::span<const int32_t> ranks, uint32_t first, uint32_t group,
               WeightedSum* sum) {
  size_t rank = 0;
  for (size_t at = 0; at < values.pages.size() * layout::kPageTokens; ++at) {
    if ((values.pages[at / layout::kPageTokens].mask >> (at % layout::kPageTokens) & 1) == 0) {
      continue;
    }
    const int64_t weight = WeightOf(ranks[rank++]);
    for (uint32_t g = 0; g < group; ++g) {
      sum->sum[first + g] += weight * values.y[at * group + g];
    }
  }
}

}  // namespace mnemo::card::model
