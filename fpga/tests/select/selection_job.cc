#include "fpga/tests/select/selection_job.h"

#include <algorithm>
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

void FillScores(Job& job, Order order, std::mt19937& rng) {
  const uint32_t count = static_cast<uint32_t>(job.entries.size());
  const uint32_t spike = count == 0 ? 0 : static_cast<uint32_t>(rng()) % count;
  job.scores.clear();
  if (job.rank == Rank::kRelu) {
    // The largest sum of 64 queries is 32767 * 65534.
    const int32_t scale = rng() % 2 == 0 ? 65534 : 1;
    for (uint32_t at = 0; at < count; ++at) {
      job.relu_ranks.push_back(ScoreOf(order, at, count, spike, rng) * scale);
    }
    return;
  }
  for (int query = 0; query < job.group; ++query) {
    for (uint32_t at = 0; at < count; ++at) job.scores.push_back(ScoreOf(order, at, count, spike, rng));
  }
}

Order AnyOrder(std::mt19937& rng) {
  return static_cast<Order>(rng() % static_cast<unsigned>(Order::kOrders));
}

void SetBound(Job& job, std::mt19937& rng) {
  constexpr int32_t kLow[] = {layout::kRankFloor, layout::kPlainRankFloor, 0, INT32_MIN};
  constexpr int32_t kHigh[] = {0, -layout::kPlainRankFloor, 65536, INT32_MAX};
  const int32_t low = kLow[static_cast<size_t>(job.rank)];
  const int32_t high = kHigh[static_cast<size_t>(job.rank)];
  job.bounded = true;
  const unsigned kind = rng() % 4;
  const uint64_t range = static_cast<uint64_t>(int64_t{high} - low) + 1;
  job.bound = kind == 0   ? low
              : kind == 1 ? high
                          : static_cast<int32_t>(low + static_cast<int64_t>(rng() % range));
  if (kind != 2 || job.entries.empty()) return;
  const std::vector<int32_t> ranks = RanksOf(job);
  const int32_t rank = ranks[rng() % ranks.size()];
  const uint64_t total = std::accumulate(ranks.begin(), ranks.end(), uint64_t{0});
  const int64_t bound =
      job.rank == Rank::kExp2Sum ? static_cast<int64_t>((static_cast<uint64_t>(rank) << 16) / total) : rank;
  job.bound = static_cast<int32_t>(std::clamp<int64_t>(bound + static_cast<int64_t>(rng() % 2), low, high));
}

}  // namespace mnemo::rtl_select
