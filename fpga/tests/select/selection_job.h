#pragma once

// The jobs of the selector's tests, and what layout::Ranks and layout::TopK answer to them.

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/reference.h"

namespace mnemo::rtl_select {

constexpr int kQueries = 4;  // of a pass

enum class Shape { kTokens = 0, kParts = 1, kPages = 2 };
constexpr int EntriesOf(Shape shape) { return shape == Shape::kTokens ? 64 : shape == Shape::kParts ? 4 : 1; }
constexpr uint8_t kShapeMaxima = 3;
// Lanes send rank codes for kRelu.
enum class Rank { kMax, kPlainMax, kExp2Sum, kRelu };
constexpr bool IsWide(Rank rank) { return rank == Rank::kExp2Sum || rank == Rank::kRelu; }
constexpr uint32_t GroupOpOf(Rank rank) {
  return rank == Rank::kMax        ? layout::kGroupMax
         : rank == Rank::kPlainMax ? layout::kGroupPlainMax
                                   : layout::kGroupExp2Sum;
}
constexpr int WordsOf(Shape shape) { return shape == Shape::kTokens ? 8 : 1; }

// One job with the scores of its entries.
struct Job {
  Shape shape = Shape::kTokens;
  int group = 1;
  Rank rank = Rank::kMax;
  bool bounded = false;
  int32_t bound = 0;
  bool listed = false;
  bool to_list = false;
  bool maxima = false;    // the first stage of a long scan
  bool kept = false;      // the second one
  bool twice = false;     // two jobs use its list
  bool measured = false;  // the first of the two
  int shift = 0;
  uint32_t begin = 0;  // entries, not listed
  uint32_t end = 0;
  uint32_t k = 1;
  std::vector<uint32_t> entries;    // that count, rising
  std::vector<int16_t> scores;      // [query][entry], as layout::Scores
  std::vector<int32_t> relu_ranks;  // of the entries, in place of scores

  // The answer of proto/layout.
  std::vector<uint32_t> ids;
  std::vector<int32_t> ranks;
  uint32_t candidates = 0;
  uint32_t pages = 0;                               // that the lanes score
  std::vector<std::pair<uint32_t, uint64_t>> list;  // with to_list: page, mask

  int passes() const { return (group + kQueries - 1) / kQueries; }
};

constexpr uint32_t kDim = 64;

// The entries of each page, as a list.
inline std::vector<std::pair<uint32_t, uint64_t>> ListOf(const std::vector<uint32_t>& entries,
                                                         uint32_t of_page) {
  std::vector<std::pair<uint32_t, uint64_t>> list;
  for (const uint32_t entry : entries) {
    if (list.empty() || list.back().first != entry / of_page) list.emplace_back(entry / of_page, 0);
    list.back().second |= uint64_t{1} << entry % of_page;
  }
  return list;
}

inline std::vector<int32_t> RanksOf(const Job& job) {
  if (job.rank == Rank::kRelu) return job.relu_ranks;
  const auto group = static_cast<uint32_t>(job.group);
  const std::vector<uint8_t> block(layout::QueryBlockBytes(group, kDim));
  return layout::Ranks(job.scores, group, GroupOpOf(job.rank), kDim, block.data());
}

// Fills in what layout::Ranks and layout::TopK give for the job's scores.
inline void Expect(Job& job) {
  const std::vector<int32_t> ranks = RanksOf(job);
  const uint64_t total = std::accumulate(ranks.begin(), ranks.end(), uint64_t{0});
  std::vector<uint32_t> passed;
  std::vector<int32_t> passed_ranks;
  for (uint32_t at = 0; at < ranks.size(); ++at) {
    const bool passes =
        !job.bounded ? true
        : job.rank == Rank::kExp2Sum
            ? layout::ReachesShare(static_cast<uint32_t>(ranks[at]), total, static_cast<uint32_t>(job.bound))
            : ranks[at] >= job.bound;
    if (!passes) continue;
    passed.push_back(at);
    passed_ranks.push_back(ranks[at]);
  }
  job.candidates = static_cast<uint32_t>(passed.size());
  for (const uint32_t n : layout::TopK(passed_ranks, job.k)) {
    job.ids.push_back(job.entries[passed[n]]);
    job.ranks.push_back(passed_ranks[n]);
  }
  const auto page = static_cast<uint32_t>(EntriesOf(job.shape));
  job.pages = static_cast<uint32_t>(ListOf(job.entries, page).size());
  if (job.to_list) job.list = ListOf(job.ids, page);
}

}  // namespace mnemo::rtl_select
