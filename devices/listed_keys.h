// The order in which a row with a SparseSelection lists its positions: the first positions, the selected
// entries, the last positions.
#pragma once

#include <algorithm>
#include <cstdint>

#include "devices/device.h"

namespace mnemo::devices {

class ListedKeys {
 public:
  // The list of a KV head, for the row at `position`.
  ListedKeys(const SparseSelection& sparse, int kv_head, int position)
      : sparse_(sparse),
        entries_(sparse.heads[kv_head]),
        entries_end_(sparse.first_end + int64_t{entries_.count} * sparse.entry_tokens),
        count_(entries_end_ + position + 1 - sparse.tail_begin) {}

  int64_t count() const { return count_; }
  int splits() const { return static_cast<int>((count_ + kKvSplitTokens - 1) / kKvSplitTokens); }

  static constexpr int64_t kInPages = -1;

  // Calls run(position, count, place) for each run of consecutive positions in the part [begin, end) of the
  // list, in ascending order. `place` is the place of `position` in the cache, or kInPages when the
  // sequence's pages give it.
  template <typename Run>
  void EachRun(int64_t begin, int64_t end, Run run) const {
    const int64_t first_end = std::min<int64_t>(end, sparse_.first_end);
    if (begin < first_end) run(static_cast<int>(begin), static_cast<int>(first_end - begin), kInPages);
    const int64_t entries_end = std::min(end, entries_end_);
    const int width = sparse_.entry_tokens;
    int64_t i = std::max<int64_t>(begin, sparse_.first_end);
    const int64_t first_entry = (i - sparse_.first_end) / width;
    const uint32_t* id = entries_.ids + first_entry;
    const int64_t* place = entries_.places == nullptr ? nullptr : entries_.places + first_entry;
    if (width == 1 && place == nullptr) {
      for (; i < entries_end; ++i) run(static_cast<int>(*id++), 1, kInPages);
    }
    for (int skipped = static_cast<int>((i - sparse_.first_end) % width); i < entries_end; skipped = 0) {
      const int size = static_cast<int>(std::min<int64_t>(width - skipped, entries_end - i));
      run(static_cast<int>(*id++) * width + skipped, size, place == nullptr ? kInPages : *place++ + skipped);
      i += size;
    }
    const int64_t tail = std::max(begin, entries_end_);
    if (tail < end) {
      run(static_cast<int>(sparse_.tail_begin + tail - entries_end_), static_cast<int>(end - tail), kInPages);
    }
  }

 private:
  const SparseSelection& sparse_;
  const TokenSelection entries_;
  // End of the entries, as an index into the list.
  const int64_t entries_end_;
  const int64_t count_;
};

}  // namespace mnemo::devices
