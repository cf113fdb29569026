#include "fpga/card/card_results.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>
#include <utility>

#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::card {
namespace {

using layout::Descriptor;
using layout::ResultHeader;

// Entries of the scan: [first, end).
struct Entries {
  uint32_t first;
  uint32_t end;
  uint32_t count() const { return end - first; }
};

Entries EntriesOf(const Descriptor& d) {
  const uint32_t tokens = layout::EntryTokens(d.format, d.flags);
  return {d.begin / tokens, d.end / tokens};
}

bool WantsRanks(const Descriptor& d) { return (d.flags & (layout::kFlagRanks | layout::kFlagByRank)) != 0; }

}  // namespace

uint8_t FlagsForCard(uint8_t flags) {
  const bool ranks = (flags & (layout::kFlagRanks | layout::kFlagByRank)) != 0;
  return static_cast<uint8_t>((flags & layout::kFlagPages64) | (ranks ? layout::kFlagRanks : 0));
}

absl::Status ReadBlock(const Descriptor& d, std::span<const uint8_t> bytes, CheckedBlock* block) {
  ResultHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const Entries entries = EntriesOf(d);
  const uint32_t scored = d.k1 != 0 ? std::min(d.k1, entries.count()) : entries.count();
  // A threshold leaves some of them.
  const bool bounded = d.select_op == layout::kSelectThreshold;
  const uint32_t candidates = bounded ? std::min(header.candidates, scored) : scored;
  const uint32_t count = std::min(d.k, candidates);
  const uint32_t flags = bounded && candidates > count ? uint32_t{layout::kResultCut} : 0;
  if (header.count != count || header.candidates != candidates || header.flags != flags) {
    return Internal("result of the card: count {}, candidates {}, flags {}; expected {}, {}, {}",
                    header.count, header.candidates, header.flags, count, candidates, flags);
  }
  block->candidates = candidates;
  block->flags = flags;
  block->last_rank = header.last_rank;
  block->ids.resize(count);
  if (count != 0) std::memcpy(block->ids.data(), bytes.data() + sizeof(header), count * sizeof(uint32_t));
  uint32_t least = entries.first;
  for (const uint32_t id : block->ids) {
    if (id < least || id >= entries.end) {
      return Internal("result of the card: id {}, expected from {} to {}", id, least, entries.end);
    }
    least = id + 1;
  }
  if (count == 0 && header.last_rank != 0) {
    return Internal("result of the card: last rank {} of no entry", header.last_rank);
  }
  block->ranks.resize(WantsRanks(d) ? count : 0);
  if (block->ranks.empty()) return absl::OkStatus();
  std::memcpy(block->ranks.data(), bytes.data() + layout::RanksOffset(d.k), count * sizeof(int32_t));
  const int32_t lowest = *std::min_element(block->ranks.begin(), block->ranks.end());
  if (lowest != header.last_rank) {
    return Internal("result of the card: last rank {}, the lowest of its ranks is {}", header.last_rank,
                    lowest);
  }
  return absl::OkStatus();
}

uint64_t WriteBlock(const Descriptor& d, CheckedBlock* block, uint8_t* result) {
  const size_t count = block->ids.size();
  if ((d.flags & layout::kFlagByRank) != 0) {
    // Ids rise, so a stable order keeps the lower of two ids of one rank first.
    std::vector<std::pair<int32_t, uint32_t>> order(count);
    for (size_t n = 0; n < count; ++n) order[n] = {block->ranks[n], block->ids[n]};
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (size_t n = 0; n < count; ++n) std::tie(block->ranks[n], block->ids[n]) = order[n];
  }
  const ResultHeader header{static_cast<uint32_t>(count), block->candidates, block->last_rank, block->flags};
  std::memcpy(result, &header, sizeof(header));
  if (count != 0) std::memcpy(result + sizeof(header), block->ids.data(), count * sizeof(uint32_t));
  uint64_t written = sizeof(header) + count * sizeof(uint32_t);
  if ((d.flags & layout::kFlagRanks) != 0 && count != 0) {
    std::memcpy(result + layout::RanksOffset(d.k), block->ranks.data(), count * sizeof(int32_t));
    written += count * sizeof(int32_t);
  }
  return written;
}

absl::StatusOr<uint32_t> CopySum(const Descriptor& d, std::span<const uint8_t> bytes, uint8_t* result) {
  std::memcpy(result, bytes.data(), bytes.size());
  layout::WeightedSumHeader header;
  std::memcpy(&header, result, sizeof(header));
  constexpr uint32_t kMostOctaves = 31;
  constexpr uint64_t kLargestWeight = layout::kExp2One >> 8;
  const uint32_t entries = EntriesOf(d).count();
  // The best entry has the largest weight, and each one that is counted at least 1.
  const uint64_t least = header.count == 0 ? 0 : kLargestWeight + header.count - 1;
  if (header.candidates != entries || header.count > entries || (header.count == 0) != (entries == 0) ||
      header.last_rank != 0 || header.flags != 0 || header.weight_total < least ||
      header.weight_total > kLargestWeight * header.count || header.top_octave > kMostOctaves ||
      std::any_of(std::begin(header.reserved), std::end(header.reserved), [](uint8_t b) { return b != 0; })) {
    return Internal(
        "result of the card: count {}, candidates {}, last_rank {}, flags {}, weight_total {}, "
        "top_octave {} of {} entries",
        header.count, header.candidates, header.last_rank, header.flags, header.weight_total,
        header.top_octave, entries);
  }
  return header.count;
}

CheckedBlock LatestBlock(const Descriptor& d) {
  const Entries entries = EntriesOf(d);
  CheckedBlock block;
  block.candidates = entries.count();
  block.ids.resize(std::min(d.k, entries.count()));
  std::iota(block.ids.begin(), block.ids.end(), entries.end - static_cast<uint32_t>(block.ids.size()));
  block.ranks.resize(block.ids.size());
  return block;
}

}  // namespace mnemo::card
