#include "fpga/card/model/select_model.h"

#include <algorithm>
#include <array>

#include "proto/layout/numerics.h"

namespace mnemo::card::model {
namespace {

constexpr uint32_t kMaxBias = 8191;
constexpr uint32_t kPlainBias = 32768;
constexpr uint32_t kExp2Bias = 1;
constexpr uint32_t kReluBias = 0x80000000;
constexpr uint32_t kManyQueries = 16;  // their sum of exp2 may have the highest digit
constexpr uint32_t kDigitBits = 4;

uint32_t BiasOf(const SelectJob& job) {
  return job.relu ? kReluBias : job.exp2 ? kExp2Bias : job.plain ? kPlainBias : kMaxBias;
}

bool Counts(const ScoreStore& store, const SelectJob& job, size_t at) {
  return (store.pages[at / job.entries].mask >> (at % job.entries) & 1) != 0;
}

}  // namespace

std::vector<int16_t> LargestScores(const SelectJob& job, const ScoreStore& store) {
  std::vector<int16_t> best(job.group, INT16_MIN);
  for (size_t at = 0; at < store.pages.size() * job.entries; ++at) {
    if (!Counts(store, job, at)) {
      continue;
    }
    for (uint32_t g = 0; g < job.group; ++g) {
      best[g] = std::max(best[g], store.y[at * job.group + g]);
    }
  }
  return best;
}

uint32_t RankCode(const SelectJob& job, std::span<const int16_t> y, std::span<const int16_t> best) {
  int32_t rank = job.exp2 ? 0 : job.plain ? layout::kPlainRankFloor : layout::kRankFloor;
  for (size_t g = 0; g < y.size(); ++g) {
    rank = job.exp2    ? rank + static_cast<int32_t>(layout::Exp2Term(y[g], best[g]))
           : job.plain ? std::max(rank, layout::PlainMaxTerm(y[g]))
                       : std::max(rank, layout::MaxTerm(y[g], best[g]));
  }
  return static_cast<uint32_t>(rank) + BiasOf(job);
}

int32_t RankOfCode(const SelectJob& job, uint32_t code) { return static_cast<int32_t>(code - BiasOf(job)); }

uint32_t DigitsOf(const SelectJob& job) {
  if (job.exp2 || job.relu) {
    return job.relu || job.group >= kManyQueries ? 8 : 7;
  }
  return job.plain ? 4 : 3;
}

uint32_t CodeFloor(const SelectJob& job, std::span<const uint32_t> codes) {
  if (!job.exp2) {
    const uint32_t code = static_cast<uint32_t>(job.bound) + BiasOf(job);
    return code == 0 ? 0 : code - 1;
  }
  uint64_t total = 0;
  for (const uint32_t code : codes) {
    total += code == 0 ? 0 : code - kExp2Bias;
  }
  // The smallest rank that reaches the share, by the product of layout::ReachesShare.
  const auto share = static_cast<uint32_t>(job.bound);
  const uint64_t rank = (total >> 16) * share + ((total & 0xFFFF) * share >> 16);
  return static_cast<uint32_t>(std::min<uint64_t>(rank, UINT32_MAX));
}

Cut FindCut(const SelectJob& job, std::span<const uint32_t> codes, uint32_t k) {
  // Codes of max have bit 12 set and none above it, so that 3 digits are left.
  uint32_t found = job.exp2 || job.relu || job.plain ? 0 : 1U << 12;
  Cut cut{.code = 0, .need = k};
  for (uint32_t shift = (DigitsOf(job) - 1) * kDigitBits;; shift -= kDigitBits) {
    std::array<uint32_t, 16> counts{};
    for (const uint32_t code : codes) {
      if (code != 0 && uint64_t{code} >> (shift + kDigitBits) == uint64_t{found} >> (shift + kDigitBits)) {
        ++counts[code >> shift & 15];
      }
    }
    uint32_t digit = 15;
    while (digit > 0 && counts[digit] < cut.need) {
      cut.need -= counts[digit--];
    }
    found |= digit << shift;
    if (shift == 0) {
      break;
    }
  }
  cut.code = found;
  return cut;
}

Hits Collect(const SelectJob& job, const ScoreStore& store, std::span<const uint32_t> codes, const Cut& cut) {
  Hits hits;
  uint32_t need = cut.need;
  for (size_t slot = 0; slot < store.pages.size(); ++slot) {
    const uint32_t page = store.pages[slot].page;
    uint64_t mask = 0;
    for (uint32_t entry = 0; entry < job.entries; ++entry) {
      const uint32_t code = codes[slot * job.entries + entry];
      const bool tie = code == cut.code && need > 0;
      if (code == 0 || (code <= cut.code && !tie)) {
        continue;
      }
      need -= tie ? 1 : 0;
      mask |= uint64_t{1} << entry;
      if (!job.to_list) {
        hits.ids.push_back((page - job.shift) * job.entries + entry);
        hits.ranks.push_back(RankOfCode(job, code));
      }
    }
    if (mask != 0 && job.to_list) {
      hits.list.push_back({page, mask});
    }
  }
  return hits;
}

ScoreStore PageMaxima(const SelectJob& job, const ScoreStore& store) {
  ScoreStore maxima;
  for (size_t slot = 0; slot < store.pages.size(); ++slot) {
    const size_t at = slot * job.entries * job.group;
    const ScoreStore page = {.pages = {store.pages[slot]},
                             .y = {store.y.begin() + static_cast<ptrdiff_t>(at),
                                   store.y.begin() + static_cast<ptrdiff_t>(at + job.entries * job.group)}};
    const std::vector<int16_t> largest = LargestScores(job, page);
    maxima.pages.push_back({.page = store.pages[slot].page, .mask = store.pages[slot].mask != 0 ? 1U : 0U});
    maxima.y.insert(maxima.y.end(), largest.begin(), largest.end());
  }
  return maxima;
}

namespace {

uint32_t Candidates(const SelectJob& job, const ScoreStore& store) {
  uint32_t candidates = 0;
  for (size_t at = 0; at < store.pages.size() * job.entries; ++at) {
    candidates += Counts(store, job, at) ? 1 : 0;
  }
  return candidates;
}

// The k best of the entries that count, by their ranks below `best`.
Hits SelectBelow(const SelectJob& job, const ScoreStore& store, std::span<const int16_t> best) {
  std::vector<uint32_t> codes(store.pages.size() * job.entries);
  uint32_t candidates = 0;
  for (size_t at = 0; at < codes.size(); ++at) {
    if (Counts(store, job, at)) {
      codes[at] = job.relu ? static_cast<uint32_t>(store.ranks[at]) + kReluBias
                           : RankCode(job, std::span(store.y).subspan(at * job.group, job.group), best);
      ++candidates;
    }
  }
  if (job.bounded) {
    const uint32_t floor = CodeFloor(job, codes);
    candidates = static_cast<uint32_t>(
        std::count_if(codes.begin(), codes.end(), [&](uint32_t code) { return code > floor; }));
  }
  Hits hits;
  if (candidates != 0) {
    const Cut cut = FindCut(job, codes, std::min(job.k, candidates));
    hits = Collect(job, store, codes, cut);
    hits.last_rank = RankOfCode(job, cut.code);
  }
  hits.candidates = candidates;
  hits.cut = job.bounded && candidates > job.k;
  return hits;
}

}  // namespace

Hits Select(const SelectJob& job, const ScoreStore& store, Kept* kept) {
  if (job.relu) return SelectBelow(job, store, {});
  const Kept own = job.kept ? *kept : Kept{LargestScores(job, store), Candidates(job, store)};
  if (job.measured) {
    *kept = own;
    return {};
  }
  if (!job.maxima) {
    Hits hits = SelectBelow(job, store, own.best);
    if (job.kept && !job.bounded) hits.candidates = own.candidates;
    return hits;
  }
  SelectJob pages = job;
  pages.entries = 1;
  Hits hits = SelectBelow(pages, PageMaxima(job, store), own.best);
  size_t slot = 0;
  for (ListEntry& entry : hits.list) {
    while (store.pages[slot].page != entry.page) {
      ++slot;
    }
    entry.mask = store.pages[slot].mask;
  }
  hits.candidates = own.candidates;
  *kept = own;
  return hits;
}

}  // namespace mnemo::card::model
