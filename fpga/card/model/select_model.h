#pragma once

// The units of the selection (fpga/rtl/select), one function each.

#include <cstdint>
#include <span>
#include <vector>

#include "fpga/card/model/jobs.h"

namespace mnemo::card::model {

// M_g: the largest y of each query over the entries that count. -32768 where none counts.
std::vector<int16_t> LargestScores(const SelectJob& job, const ScoreStore& store);

// rank_unit, exp2_unit: the code of an entry's rank, above 0: rank + 8191, with `plain` rank + 32768, both in
// 16 bits; with `exp2` rank + 1. Ranks of weighted ReLU, which lanes make, have the code
// rank + 2^31.
uint32_t RankCode(const SelectJob& job, std::span<const int16_t> y, std::span<const int16_t> best);
int32_t RankOfCode(const SelectJob& job, uint32_t code);

// Digits of 4 bits that sweep_control looks for.
uint32_t DigitsOf(const SelectJob& job);

// share_unit, and the bound by rank: entries with codes above it reach the job's bound.
uint32_t CodeFloor(const SelectJob& job, std::span<const uint32_t> codes);

// The result of digit_counter and digit_reduce: the code of the k-th best entry, and how many of the entries
// with this code are taken.
struct Cut {
  uint32_t code = 0;
  uint32_t need = 0;
};

// Entries that do not count have the code 0. k is at least 1 and at most the number of the others.
Cut FindCut(const SelectJob& job, std::span<const uint32_t> codes, uint32_t k);

// hit_collector: the entries above the cut, and the first `need` at it, in page order.
Hits Collect(const SelectJob& job, const ScoreStore& store, std::span<const uint32_t> codes, const Cut& cut);

// page_maxima: the largest score of each query of a page over the entries that count, as the page's one
// entry.
ScoreStore PageMaxima(const SelectJob& job, const ScoreStore& store);

// selector: all of these. A job with `maxima` selects pages, all of whose entries that count become its list,
// and sets `kept`; one with `kept` takes the largest scores and the candidates from it. A job that is
// `measured` sets it alone.
Hits Select(const SelectJob& job, const ScoreStore& store, Kept* kept);

}  // namespace mnemo::card::model
