#include "server/worker/token_counts.h"

#include <bit>

#include "devices/base/status.h"

namespace mnemo::worker {

void TokenCounts::Reserve(size_t max_distinct) {
  counts_.clear();
  counts_.reserve(max_distinct);
  slots_.assign(std::bit_ceil(2 * max_distinct + 1), -1);
}

devices::TokenCount& TokenCounts::Entry(int32_t id) {
  const size_t mask = slots_.size() - 1;
  // The multiplier of Fibonacci hashing spreads neighbouring ids apart.
  size_t slot = (static_cast<uint32_t>(id) * 0x9E3779B1u) & mask;
  while (slots_[slot] >= 0 && counts_[slots_[slot]].id != id) slot = (slot + 1) & mask;
  if (slots_[slot] < 0) {
    MNEMO_CHECK(counts_.size() < counts_.capacity());
    slots_[slot] = static_cast<int32_t>(counts_.size());
    counts_.push_back({.id = id, .in_output = 0});
  }
  return counts_[slots_[slot]];
}

}  // namespace mnemo::worker
