// Directory of the entries of a resident sequence that the worker has as well. Each indexed layer and KV head
// has a bounded set of places, which the most recently selected entries get.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/kv_cache.h"

namespace mnemo::memory {

struct HotCacheShape {
  int layers = 0;
  int kv_heads = 0;
  int entry_tokens = 1;  // 1, 16 or 64
  int entries = 0;       // of the longest the sequence may get
  int pages = 0;         // of 64 tokens, that hold the places
};

// One sequence. Threads may use distinct layers and heads at once.
class HotCache {
 public:
  // An entry that has to be brought to its place.
  struct Missing {
    uint32_t entry = 0;
    int64_t place = 0;
  };

  explicit HotCache(const HotCacheShape& shape);

  // The pages that hold the places, page ids of the KV cache, [shape.pages]. What was there is forgotten.
  void Reset(std::span<const int32_t> pages);
  // For each of the entries, ascending and distinct and at most as many as there are places: where its first
  // token stands (page id * 64 + slot), to places[entries.size()]. `local`: pages of the sequence that the
  // worker has, -1 for others; what they hold takes no place of the cache. What is not in the worker is added
  // to `missing`, with the place that it is expected at from now on.
  void Look(int layer, int kv_head, std::span<const uint32_t> entries, std::span<const int32_t> local,
            int64_t* places, std::vector<Missing>* missing);

  int places() const { return places_; }

 private:
  struct Set {
    std::vector<uint16_t> place_of;  // [entries], one more than the place, 0: none
    std::vector<uint32_t> entry_of;  // [places]
    std::vector<uint32_t> used;      // [places], the look that used it last, 0: free
    uint32_t look = 0;
    uint32_t hand = 0;  // where the search for a place goes on
  };
  int64_t PlaceAt(uint32_t place) const {
    const uint32_t token = place * static_cast<uint32_t>(shape_.entry_tokens);
    return int64_t{pages_[token / devices::kPageTokens]} * devices::kPageTokens +
           token % devices::kPageTokens;
  }

  const HotCacheShape shape_;
  const int places_;
  std::vector<int32_t> pages_;
  std::vector<Set> sets_;  // [layers][kv_heads]
};

}  // namespace mnemo::memory
