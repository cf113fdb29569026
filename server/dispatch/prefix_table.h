// Which prompt prefixes a worker has likely cached: hashes of whole pages of prompts sent to it lately.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace mnemo::dispatch {

// Page of the affinity, not of any worker: a guess needs no more than a like grain.
inline constexpr int kPrefixPageTokens = 64;

// Hash of each leading run of whole pages of `prompt`: [i] covers tokens [0, (i + 1) * kPrefixPageTokens).
std::vector<uint64_t> PrefixHashes(std::span<const int32_t> prompt);

// A table of fixed size; a newer prefix takes the place of an older one with the same slot.
class PrefixTable {
 public:
  explicit PrefixTable(int entries);  // rounded up to a power of two
  void Insert(std::span<const uint64_t> hashes);
  // Tokens of the longest leading run of `hashes` that is in the table.
  int64_t MatchTokens(std::span<const uint64_t> hashes) const;
  void Clear();

 private:
  std::vector<uint64_t> slots_;
};

}  // namespace mnemo::dispatch
