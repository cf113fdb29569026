#include "server/dispatch/prefix_table.h"

#include <algorithm>
#include <bit>

namespace mnemo::dispatch {

std::vector<uint64_t> PrefixHashes(std::span<const int32_t> prompt) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
  std::vector<uint64_t> hashes;
  hashes.reserve(prompt.size() / kPrefixPageTokens);
  uint64_t hash = kMultiplier;
  for (size_t i = 0; i < prompt.size(); ++i) {
    hash = (hash ^ static_cast<uint32_t>(prompt[i])) * kMultiplier;
    hash ^= hash >> 32;
    if ((i + 1) % kPrefixPageTokens == 0) hashes.push_back(hash | 1);  // 0 marks an empty slot
  }
  return hashes;
}

PrefixTable::PrefixTable(int entries) : slots_(std::bit_ceil(static_cast<unsigned>(std::max(entries, 2)))) {}

void PrefixTable::Insert(std::span<const uint64_t> hashes) {
  for (const uint64_t hash : hashes) slots_[(hash >> 1) & (slots_.size() - 1)] = hash;
}

int64_t PrefixTable::MatchTokens(std::span<const uint64_t> hashes) const {
  int64_t pages = 0;
  for (const uint64_t hash : hashes) {
    if (slots_[(hash >> 1) & (slots_.size() - 1)] != hash) break;
    ++pages;
  }
  return pages * kPrefixPageTokens;
}

void PrefixTable::Clear() { std::fill(slots_.begin(), slots_.end(), 0); }

}  // namespace mnemo::dispatch
