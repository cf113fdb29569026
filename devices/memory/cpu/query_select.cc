// From scores to results: ranks, selection by counting, and the result blocks.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "devices/memory/cpu/query_batch_parts.h"
#include "proto/layout/numerics.h"

namespace mnemo::memory_device::cpu {
namespace {

using layout::Descriptor;

// The entries that a selection takes: all with ranks above `last`, and the first `need` that equal it.
struct Cut {
  int64_t last = 0;
  uint32_t need = 0;
  uint32_t candidates = 0;  // entries at or above the bound
};

// Maps i32 ranks to u32 in the same order.
uint32_t Key(int32_t rank) { return static_cast<uint32_t>(rank) ^ 0x80000000U; }

// Finds the k-th highest rank by digits of 12, 12 and 8 bits. At least k ranks are valid.
Cut CutWide(std::span<const int32_t> ranks, uint32_t k, std::span<uint32_t> bins) {
  Cut cut;
  uint32_t last = 0;
  uint32_t known = 0;
  cut.need = k;
  for (const uint32_t shift : {20U, 8U, 0U}) {
    const uint32_t digit_mask = shift == 0 ? 0xFF : 0xFFF;
    std::fill(bins.begin(), bins.end(), 0U);
    for (const int32_t rank : ranks) {
      if ((Key(rank) & known) == last) {
        ++bins[Key(rank) >> shift & digit_mask];
      }
    }
    uint32_t digit = digit_mask;
    while (digit > 0 && bins[digit] < cut.need) {
      cut.need -= bins[digit--];
    }
    last |= digit << shift;
    known |= digit_mask << shift;
  }
  cut.last = static_cast<int32_t>(last ^ 0x80000000U);
  return cut;
}

uint32_t CollectWide(std::span<const int32_t> ranks, const Cut& cut, uint32_t first_id, uint32_t* ids) {
  uint32_t count = 0;
  uint32_t need = cut.need;
  for (uint32_t j = 0; j < ranks.size(); ++j) {
    const bool equal = need > 0 && ranks[j] == cut.last;
    if (ranks[j] > cut.last || equal) {
      ids[count++] = first_id + j;
      need -= equal ? 1 : 0;
    }
  }
  return count;
}

// The lowest rank that passes the threshold.
int64_t Bound(const Descriptor& d, std::span<const int32_t> ranks) {
  if (d.select_op != layout::kSelectThreshold) {
    return int64_t{kNoRank} + 1;
  }
  if (d.group_op != layout::kGroupExp2Sum) {
    return std::max<int64_t>(d.threshold, int64_t{kNoRank} + 1);
  }
  uint64_t total = 0;
  for (const int32_t rank : ranks) {
    total += rank == kNoRank ? 0 : static_cast<uint32_t>(rank);
  }
  const auto share = static_cast<uint32_t>(d.threshold);
  return static_cast<int64_t>((total >> 16) * share + (((total & 0xFFFF) * share) >> 16));
}

// Ranks of one stage, of which a selection takes the best.
struct Selection {
  const int16_t* narrow = nullptr;  // [padded]; nullptr: `wide` holds the ranks
  std::span<const int32_t> wide;
  uint32_t padded = 0;
  uint32_t counting = 0;  // entries that are not hidden
  uint32_t k = 0;
  bool threshold = false;  // only entries that reach the descriptor's threshold are candidates
};

// The cut that takes the k best candidates, or all of them where there are no more than k.
Cut FindCut(const devices::cpu::IndexKernels& kernels, const Descriptor& d, const Selection& selection,
            std::span<uint32_t> bins) {
  const bool narrow = selection.narrow != nullptr;
  Cut cut;
  cut.candidates = selection.counting;
  int64_t bound = IsPlain(d) ? layout::kPlainRankFloor : narrow ? layout::kRankFloor : int64_t{kNoRank} + 1;
  if (selection.threshold) {
    bound = std::max<int64_t>(bound, Bound(d, selection.wide));
    cut.candidates =
        narrow ? kernels.count_at_least(selection.narrow, selection.padded, static_cast<int32_t>(bound))
               : static_cast<uint32_t>(
                     std::count_if(selection.wide.begin(), selection.wide.end(),
                                   [bound](int32_t rank) { return rank != kNoRank && rank >= bound; }));
  }
  if (selection.k >= cut.candidates) {
    cut.last = bound - 1;
  } else if (narrow) {
    uint32_t above;
    cut.last = kernels.kth_rank(selection.narrow, selection.padded, selection.k, IsPlain(d), &above);
    cut.need = selection.k - above;
  } else {
    const uint32_t candidates = cut.candidates;
    cut = CutWide(selection.wide, selection.k, bins);
    cut.candidates = candidates;
  }
  return cut;
}

}  // namespace

void QueryBatch::RunSelect(Block& block, bool second, Item& item, Scratch& scratch) {
  const Taken& taken = taken_[block.operation];
  const Descriptor& d = taken.descriptor;
  if (d.op == layout::kOpGather) {
    const auto start = std::chrono::steady_clock::now();
    GatherListed(block, scratch);
    item.gather_ns =
        static_cast<uint32_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count());
    return;
  }
  if (d.select_op == layout::kSelectLatest) {
    SelectLatest(block, scratch);
  } else {
    SelectOfBlock(block, second, scratch);
  }
  if (d.op == layout::kOpScoreGather && (second || d.k1 == 0)) {
    const auto start = std::chrono::steady_clock::now();
    GatherSelected(ValuesOf(block), std::span<const uint32_t>(scratch.ids).first(block.count), RowsOf(block));
    item.gather_ns =
        static_cast<uint32_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count());
  }
}

// Ranks of the first `count` scores, a multiple of 64.
void QueryBatch::MakeRanks(const Block& block, uint32_t count, const int32_t* best) {
  const Taken& taken = taken_[block.operation];
  const Descriptor& d = taken.descriptor;
  const devices::cpu::RankTask task{block.scores, block.padded, d.group, best, count};
  if (d.group_op == layout::kGroupMax) {
    kernels_->ranks_max(task, block.scores);
  } else if (d.group_op == layout::kGroupPlainMax) {
    kernels_->ranks_plain_max(task, block.scores);
  } else if (d.group_op == layout::kGroupExp2Sum) {
    kernels_->ranks_exp2(task, block.ranks);
  } else {
    const uint32_t dim = taken.index->at.spec.dim;
    const uint8_t* params = taken.payload + block.position * layout::QueryBlockBytes(d.group, dim) +
                            layout::QueryParamOffset(d.group, dim);
    std::array<int32_t, layout::kMaxGroup> weights;
    for (uint32_t g = 0; g < d.group; ++g) {
      layout::QueryParam param;
      std::memcpy(&param, params + g * sizeof(param), sizeof(param));
      weights[g] = param.weight;
    }
    for (uint32_t j = 0; j < count; ++j) {
      int64_t sum = 0;
      for (uint32_t g = 0; g < d.group; ++g) {
        sum += layout::ReluTerm(block.scores[size_t{g} * block.padded + j], weights[g]);
      }
      block.ranks[j] = static_cast<int32_t>(sum >> layout::kReluRankShift);
    }
  }
}

// Makes the ranks of entries [skip, end), and hides the others of `padded` from every selection.
void QueryBatch::RankEntries(const Block& block, uint32_t skip, uint32_t end, uint32_t padded) {
  const Descriptor& d = taken_[block.operation].descriptor;
  const auto hide = [&](auto* values, auto value) {
    std::fill(values, values + skip, value);
    std::fill(values + end, values + padded, value);
  };
  std::array<int32_t, layout::kMaxGroup> best;
  for (uint32_t g = 0; g < d.group; ++g) {
    int16_t* scores = block.scores + size_t{g} * block.padded;
    hide(scores, kNoScore);
    best[g] = IsPlain(d) ? 0 : kernels_->largest(scores, padded);
  }
  MakeRanks(block, padded, best.data());
  if (HasShortRanks(d)) {
    hide(block.scores, kNoScore);
  } else {
    hide(block.ranks, kNoRank);
  }
}

void QueryBatch::SelectOfBlock(Block& block, bool second, Scratch& scratch) {
  const Descriptor& d = taken_[block.operation].descriptor;
  // Entries [skip, skip + counting) of `padded` count; in the second stage these are the passed ones, densely
  // packed.
  const uint32_t counting = second ? block.passed_count : block.entries;
  const uint32_t skip = second ? 0 : block.skip;
  const uint32_t padded = second ? (counting + 63) / 64 * 64 : block.padded;
  const uint32_t first_id = second ? 0 : block.first_id();
  if (block.best_of_64 != nullptr && SelectFewOfMany(block, scratch)) {
    return;
  }
  RankEntries(block, skip, skip + counting, padded);
  if (d.select_op == layout::kSelectWeightedSum) {
    SumWeighted(block);
    return;
  }
  const bool first_of_two = d.k1 != 0 && !second;
  const bool narrow = HasShortRanks(d);
  const std::span<const int32_t> wide(block.ranks, narrow ? 0 : padded);
  const Selection selection{.narrow = narrow ? block.scores : nullptr,
                            .wide = wide,
                            .padded = padded,
                            .counting = counting,
                            .k = first_of_two ? d.k1 : d.k,
                            .threshold = d.select_op == layout::kSelectThreshold && !first_of_two};
  const Cut cut = FindCut(*kernels_, d, selection, scratch.bins);
  uint32_t* ids = first_of_two ? block.passed : scratch.ids.data();
  const uint32_t count = cut.candidates == 0 ? 0
                         : narrow ? kernels_->collect(block.scores, padded, static_cast<int32_t>(cut.last),
                                                      cut.need, first_id, ids)
                                  : CollectWide(wide, cut, first_id, ids);
  CountBytesRead(block, first_of_two, second);
  if (first_of_two) {
    block.passed_count = count;
    return;
  }
  int32_t last_rank = 0;
  if (selection.k < cut.candidates && (d.flags & (layout::kFlagByRank | layout::kFlagRanks)) == 0) {
    // An entry of the k-th rank exists, and no flag asks for the others' ranks.
    last_rank = static_cast<int32_t>(cut.last);
  } else {
    for (uint32_t n = 0; n < count; ++n) {
      const uint32_t at = ids[n] - first_id;
      const int32_t rank = narrow ? block.scores[at] : block.ranks[at];
      scratch.ranks[n] = rank;
      last_rank = n == 0 ? rank : std::min(last_rank, rank);
    }
  }
  for (uint32_t n = 0; second && n < count; ++n) {
    ids[n] = block.passed[ids[n]];
  }
  const uint32_t flags = selection.threshold && cut.candidates > d.k ? uint32_t{layout::kResultCut} : 0;
  Emit(block, count, last_rank, cut.candidates, flags, scratch);
}

// Counts the bytes that the stage reads: its part of whole pages. In the second stage: codes and scales of
// the passed entries, headers and bases of their pages.
void QueryBatch::CountBytesRead(Block& block, bool first_of_two, bool second) {
  const ResidentIndex& index = *taken_[block.operation].index;
  const devices::cpu::BlockLayout at = devices::cpu::BlockOf(index.at.spec.record_format, index.at.spec.dim);
  if (!second) {
    block.bytes_read += block.page_count * uint64_t{first_of_two ? at.second : index.at.block_bytes};
    return;
  }
  uint64_t pages = block.passed_count == 0 ? 0 : 1;
  for (uint32_t n = 1; n < block.passed_count; ++n) {
    pages += block.passed[n] / layout::kPageTokens != block.passed[n - 1] / layout::kPageTokens ? 1 : 0;
  }
  block.bytes_read +=
      pages * at.rows + block.passed_count * ((index.at.block_bytes - at.rows) / layout::kPageTokens);
}

// Compares parts of 64 entries by their best score. At least k parts reach the k-th best of these scores, so
// no entry below it is selected, and only parts that reach it are searched. Returns false when that is not
// possible. In that case it has only hidden the entries that do not count.
bool QueryBatch::SelectFewOfMany(Block& block, Scratch& scratch) {
  const Taken& taken = taken_[block.operation];
  const Descriptor& d = taken.descriptor;
  const uint32_t end = block.skip + block.entries;
  std::fill(block.scores, block.scores + block.skip, kNoScore);
  std::fill(block.scores + end, block.scores + block.padded, kNoScore);
  const uint32_t parts = block.padded / 64;
  const uint32_t padded_parts = (parts + 63) / 64 * 64;
  int16_t* const best = block.best_of_64;
  if (block.entries_per_page == layout::kPageTokens) {  // RunScore wrote the others
    kernels_->largest_of_each(block.scores, 64, best);
    kernels_->largest_of_each(block.scores + block.padded - 64, 64, best + parts - 1);
  } else {
    kernels_->largest_of_each(block.scores, block.padded, best);
  }
  std::fill(best + parts, best + padded_parts, kNoScore);
  // A rank is the score minus the best one; a plain rank is the score, raised to the floor.
  const bool plain = IsPlain(d);
  const int32_t most = plain ? 0 : kernels_->largest(best, padded_parts);
  (plain ? kernels_->ranks_plain_max : kernels_->ranks_max)({best, padded_parts, 1, &most, padded_parts},
                                                            best);
  std::fill(best + parts, best + padded_parts, kNoScore);
  uint32_t above;
  const int32_t reach = kernels_->kth_rank(best, padded_parts, d.k, plain, &above);
  if (reach == (plain ? layout::kPlainRankFloor : layout::kRankFloor)) {
    return false;  // ranks at the floor hide different scores
  }
  // Most parts are in no cache any more, since the records were read after them: they are prefetched.
  constexpr uint32_t kPartsAhead = 16;
  uint32_t* const parts_in = scratch.parts.data();
  const uint32_t part_count = kernels_->collect(best, padded_parts, reach - 1, 0, 0, parts_in);
  uint32_t* const ids = scratch.ids.data();
  uint32_t candidates = 0;
  for (uint32_t n = 0; n < part_count; ++n) {
    const int16_t* ahead = block.scores + size_t{parts_in[std::min(n + kPartsAhead, part_count - 1)]} * 64;
    __builtin_prefetch(ahead);
    __builtin_prefetch(ahead + 32);
    candidates += kernels_->collect(block.scores + size_t{parts_in[n]} * 64, 64, reach + most - 1, 0,
                                    block.first_id() + parts_in[n] * 64, ids + candidates);
  }
  auto* const ranks =
      reinterpret_cast<int16_t*>((reinterpret_cast<uintptr_t>(scratch.short_ranks.data()) + 63) / 64 * 64);
  for (uint32_t n = 0; n < candidates; ++n) {
    ranks[n] = static_cast<int16_t>(block.scores[ids[n] - block.first_id()] - most);
  }
  const uint32_t padded = (candidates + 63) / 64 * 64;
  std::fill(ranks + candidates, ranks + padded, kNoScore);
  const int32_t last = kernels_->kth_rank(ranks, padded, d.k, plain, &above);
  uint32_t need = d.k - above;
  uint32_t count = 0;
  for (uint32_t n = 0; n < candidates; ++n) {
    const bool equal = need > 0 && ranks[n] == last;
    if (ranks[n] > last || equal) {
      ids[count] = ids[n];
      scratch.ranks[count++] = ranks[n];
      need -= equal ? 1 : 0;
    }
  }
  block.bytes_read += block.page_count * taken.index->at.block_bytes;
  Emit(block, count, last, block.entries, 0, scratch);
  return true;
}

void QueryBatch::SelectLatest(Block& block, Scratch& scratch) {
  const Descriptor& d = taken_[block.operation].descriptor;
  const uint32_t count = std::min(d.k, block.entries);
  for (uint32_t n = 0; n < count; ++n) {
    scratch.ids[n] = block.first_id() + block.skip + block.entries - count + n;
    scratch.ranks[n] = 0;
  }
  Emit(block, count, 0, block.entries, 0, scratch);
}

// Sorts by descending rank, then ascending id: a stable radix sort from the lowest digit.
void QueryBatch::SortByRank(const Block& block, uint32_t count, Scratch& scratch) {
  // Group max has 4,096 ranks.
  const bool narrow = taken_[block.operation].descriptor.group_op == layout::kGroupMax;
  const uint32_t passes = narrow ? 1 : 3;
  for (uint32_t pass = 0; pass < passes; ++pass) {
    // A lower digit is better: 0..4095 for a narrow rank, 11 bits of the inverted key for a wide one.
    const auto digit = [narrow, pass](int32_t rank) {
      return narrow ? static_cast<uint32_t>(-rank) : ~Key(rank) >> (11 * pass) & 0x7FF;
    };
    std::fill(scratch.bins.begin(), scratch.bins.end(), 0U);
    for (uint32_t n = 0; n < count; ++n) {
      ++scratch.bins[digit(scratch.ranks[n])];
    }
    uint32_t next = 0;
    for (uint32_t& bin : scratch.bins) {
      next += std::exchange(bin, next);
    }
    for (uint32_t n = 0; n < count; ++n) {
      const uint32_t to = scratch.bins[digit(scratch.ranks[n])]++;
      scratch.other_ids[to] = scratch.ids[n];
      scratch.other_ranks[to] = scratch.ranks[n];
    }
    std::copy_n(scratch.other_ids.begin(), count, scratch.ids.begin());
    std::copy_n(scratch.other_ranks.begin(), count, scratch.ranks.begin());
  }
}

void QueryBatch::Emit(Block& block, uint32_t count, int32_t last_rank, uint32_t candidates, uint32_t flags,
                      Scratch& scratch) {
  const Taken& taken = taken_[block.operation];
  const Descriptor& d = taken.descriptor;
  if ((d.flags & layout::kFlagByRank) != 0 && d.select_op != layout::kSelectLatest) {
    SortByRank(block, count, scratch);
  }
  const uint64_t bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, taken.index->at.spec.dim);
  uint8_t* result = taken.result + block.position * bytes;
  const layout::ResultHeader header{count, candidates, last_rank, flags};
  std::memcpy(result, &header, sizeof(header));
  if (count != 0) std::memcpy(result + sizeof(header), scratch.ids.data(), size_t{count} * 4);
  block.bytes_written += sizeof(header) + uint64_t{count} * 4;
  if ((d.flags & layout::kFlagRanks) != 0 && count != 0) {
    std::memcpy(result + layout::RanksOffset(d.k), scratch.ranks.data(), size_t{count} * 4);
    block.bytes_written += uint64_t{count} * 4;
  }
  block.count = count;
}

void QueryBatch::SumWeighted(Block& block) {
  const Taken& taken = taken_[block.operation];
  const ResidentIndex& index = *taken.index;
  const uint32_t dim = index.at.spec.dim;
  const devices::cpu::BlockLayout at = devices::cpu::BlockOf(index.at.spec.record_format, dim);
  const uint64_t offset = index.at.BlockOffset(taken.descriptor.layer_slot, block.head);
  const auto page_of = [&](uint32_t page) { return index.pages[block.first_page + page] + offset; };
  layout::WeightedSumHeader header{};
  header.candidates = block.entries;
  for (uint32_t page = 0; page < block.page_count; ++page) {
    const auto* of = reinterpret_cast<const devices::cpu::BlockHeader*>(page_of(page));
    header.top_octave =
        std::max<uint32_t>({header.top_octave, of->top_octave, uint32_t{of->base_scale} >> 3});
  }
  const int32_t dot_shift = layout::DotShift(layout::CodeMax(index.at.spec.record_format), dim);
  uint8_t* sums = taken.result +
                  block.position * layout::ResultBlockBytes(layout::kSelectWeightedSum, 0, 0, dim) +
                  sizeof(header);
  std::memset(sums, 0, size_t{dim} * 8);
  std::array<int64_t, layout::kMaxDim> sum{};
  for (uint32_t j = block.skip; j < block.skip + block.entries; ++j) {
    const uint32_t weight = static_cast<uint32_t>(block.ranks[j]) >> 8;
    if (weight == 0) {
      continue;
    }
    ++header.count;
    header.weight_total += weight;
    const uint8_t* page = page_of(j / layout::kPageTokens);
    const auto* of = reinterpret_cast<const devices::cpu::BlockHeader*>(page);
    const uint32_t t = j % layout::kPageTokens;
    const uint32_t lane = (t / 32 * 2 + t % 32 / 4 % 2) * 16 + t % 32 / 8 * 4 + t % 4;
    uint16_t scale;
    std::memcpy(&scale, page + at.token_scales + t * 2, 2);
    // Octaves below the page's top. The limit of 31 changes nothing, since larger shifts give the same.
    const int32_t below = (scale >> 8) - dot_shift;
    const int32_t down =
        layout::Clamp(static_cast<int32_t>(header.top_octave) - of->top_octave + below, 0, 31);
    for (uint32_t i = 0; i < dim; ++i) {
      const auto base = static_cast<int8_t>(page[at.base + i] ^ 0x80);
      const auto code = static_cast<int8_t>(page[at.rows + i / 4 * 256 + lane * 4 + i % 4] ^ 0x80);
      sum[i] += int64_t{weight} * (layout::AlignedValue(base, of->base_scale, header.top_octave) +
                                   ((code * (scale & 255)) >> down));
    }
  }
  std::memcpy(sums, sum.data(), size_t{dim} * 8);
  std::memcpy(sums - sizeof(header), &header, sizeof(header));
  block.count = header.count;
  block.bytes_read += block.page_count * index.at.block_bytes;
  block.bytes_written += sizeof(header) + uint64_t{dim} * 8;
}

void QueryBatch::GatherListed(Block& block, Scratch& scratch) {
  const Taken& taken = taken_[block.operation];
  const Descriptor& d = taken.descriptor;
  const GatherAnswer answer =
      memory_device::GatherListed(ValuesOf(block), taken.index->kv_tokens[d.layer_slot], taken.payload,
                                  block.position, std::span(scratch.ids).first(d.k), RowsOf(block));
  block.status = answer.status;
  block.detail = answer.detail;
  block.count = answer.status == layout::kStatusOk ? d.k : 0;
}

HeadValues QueryBatch::ValuesOf(const Block& block) const {
  const Taken& taken = taken_[block.operation];
  return HeadValues::Of(taken.index->at, taken.index->kv_pages, taken.descriptor.layer_slot, block.head);
}

uint8_t* QueryBatch::RowsOf(const Block& block) const {
  const Taken& taken = taken_[block.operation];
  return taken.result + GatherOffset(taken.descriptor, taken.blocks, block.position, taken.index->at.spec);
}

}  // namespace mnemo::memory_device::cpu
