// Directory of the entries of a resident sequence that the worker holds as well as the service. Each indexed
// layer and KV head has a fixed number of places, which hold the most recently selected entries.
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
  int entries = 0;       // entries of the sequence at its greatest length
  int pages = 0;         // pages of 64 tokens that hold the places
};

// One sequence. Threads may use distinct layers and heads at once.
class HotCache {
 public:
  // An entry that the caller fetches into its place.
  struct Missing {
    uint32_t entry = 0;
    int64_t place = 0;
  };

  explicit HotCache(const HotCacheShape& shape);

  // Sets the pages that hold the places: page ids of the KV cache, [shape.pages]. All entries are forgotten.
  void Reset(std::span<const int32_t> pages);
  // Writes the position of each entry's first token (page id * 64 + slot) to places[entries.size()].
  // `entries` are ascending, distinct and no more than places(). `local`: pages of the sequence that the
  // worker has, -1 for others; entries in them take no place of the cache. Entries that the worker lacks are
  // added to `missing` with the place assigned to them, where the caller puts them.
  void Look(int layer, int kv_head, std::span<const uint32_t> entries, std::span<const int32_t> local,
            int64_t* places, std::vector<Missing>* missing);

  int places() const { return places_; }

 private:
  struct Set {
    std::vector<uint16_t> place_of;  // [entries], place + 1; 0: the entry has none
    std::vector<uint32_t> entry_of;  // [places]
    std::vector<uint32_t> used;      // [places], number of the last Look that used the place; 0: free
    uint32_t look = 0;               // number of the current Look
    uint32_t hand = 0;               // next place that the search for a free one examines
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
