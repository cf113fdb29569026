#include "fpga/tests/select/long_scans.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "fpga/tests/select/score_orders.h"
#include "proto/layout/reference.h"

namespace mnemo::rtl_select {

std::pair<Job, Job> LongScan(const Job& whole) {
  Job first = whole;
  Expect(first);
  Job second = first;
  const std::vector<int32_t> ranks = RanksOf(whole);
  const auto page = static_cast<uint32_t>(EntriesOf(whole.shape));
  const std::vector<std::pair<uint32_t, uint64_t>> pages = ListOf(whole.entries, page);
  std::vector<int32_t> of_page(pages.size(), INT32_MIN);
  for (size_t at = 0; at < ranks.size(); ++at) {
    int32_t& largest = of_page[whole.entries[at] / page - pages.front().first];
    largest = std::max(largest, ranks[at]);
  }
  first.maxima = first.to_list = true;
  first.ids.clear();
  first.ranks.clear();
  first.list.clear();
  second.listed = second.kept = true;
  second.entries.clear();
  second.scores.clear();
  for (const uint32_t at : layout::TopK(of_page, whole.k)) {
    first.ids.push_back(pages[at].first);
    first.ranks.push_back(of_page[at]);
    first.list.push_back(pages[at]);
    for (uint32_t entry = 0; entry < page; ++entry) {
      if ((pages[at].second >> entry & 1) != 0) second.entries.push_back(pages[at].first * page + entry);
    }
  }
  second.pages = static_cast<uint32_t>(first.list.size());
  for (int query = 0; query < whole.group; ++query) {
    for (const uint32_t entry : second.entries) {
      second.scores.push_back(
          whole.scores[static_cast<size_t>(query) * whole.entries.size() + entry - whole.begin]);
    }
  }
  return {first, second};
}

std::vector<Job> LongCascade(const Job& whole, std::mt19937& rng) {
  auto [first, second] = LongScan(whole);
  second.to_list = second.twice = true;
  second.list = ListOf(second.ids, 64);
  Job fourth;
  fourth.listed = fourth.kept = true;
  fourth.group = whole.group;
  fourth.rank = whole.rank;
  fourth.shift = whole.shift;
  fourth.entries = second.ids;
  fourth.k = AnyK(static_cast<uint32_t>(fourth.entries.size()), rng);
  FillScores(fourth, AnyOrder(rng), rng);
  Expect(fourth);
  Job third = fourth;
  third.kept = false;
  third.maxima = third.measured = true;
  third.ids.clear();
  third.ranks.clear();
  return {first, second, third, fourth};
}

std::pair<Job, Job> LongBound(Job whole, std::mt19937& rng) {
  SetBound(whole, rng);
  Expect(whole);
  Job first = whole;
  first.maxima = first.measured = true;
  first.bounded = false;
  first.candidates = static_cast<uint32_t>(first.entries.size());
  first.ids.clear();
  first.ranks.clear();
  whole.kept = true;
  return {first, whole};
}

}  // namespace mnemo::rtl_select
