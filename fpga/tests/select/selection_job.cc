#include "fpga/tests/select/selection_job.h"

#include <numeric>

#include "proto/layout/numerics.h"
#include "proto/layout/reference.h"

namespace mnemo::rtl_select {
namespace {

constexpr uint32_t kDim = 64;

}  // namespace

std::vector<std::pair<uint32_t, uint64_t>> ListOf(const std::vector<uint32_t>& entries, uint32_t of_page) {
  std::vector<std::pair<uint32_t, uint64_t>> list;
  for (const uint32_t entry : entries) {
    if (list.empty() || list.back().first != entry / of_page) list.emplace_back(entry / of_page, 0);
    list.back().second |= uint64_t{1} << entry % of_page;
  }
  return list;
}

std::vector<int32_t> RanksOf(const Job& job) {
  if (job.rank == Rank::kRelu) return job.relu_ranks;
  const auto group = static_cast<uint32_t>(job.group);
  const std::vector<uint8_t> block(layout::QueryBlockBytes(group, kDim));
  return layout::Ranks(job.scores, group, GroupOpOf(job.rank), kDim, block.data());
}

void Expect(Job& job) {
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
