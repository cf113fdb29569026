// Counts of each token in prompt and output, kept up to date token by token for the sampler's penalties.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/sampling.h"

namespace mnemo::worker {

// Not thread-safe.
class TokenCounts {
 public:
  // Forgets all and allocates for `max_distinct` different ids; the other calls do not allocate.
  void Reserve(size_t max_distinct);
  void AddPrompt(int32_t id) { Entry(id); }
  void AddOutput(int32_t id) { ++Entry(id).in_output; }
  // Each id once, in order of first occurrence.
  std::span<const devices::TokenCount> counts() const { return counts_; }

 private:
  devices::TokenCount& Entry(int32_t id);

  std::vector<devices::TokenCount> counts_;
  std::vector<int32_t> slots_;  // open addressing: index into counts_ or -1; their number is a power of two
};

}  // namespace mnemo::worker
