#include "server/memory/hot_cache.h"

#include <algorithm>

#include "devices/base/status.h"

namespace mnemo::memory {

using devices::kPageTokens;

HotCache::HotCache(const HotCacheShape& shape)
    : shape_(shape),
      places_(shape.pages * (kPageTokens / shape.entry_tokens)),
      sets_(static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.kv_heads)) {
  MNEMO_CHECK(places_ > 0 && places_ < UINT16_MAX);
  pages_.reserve(static_cast<size_t>(shape.pages));
  for (Set& set : sets_) {
    set.place_of.resize(static_cast<size_t>(shape.entries));
    set.entry_of.resize(static_cast<size_t>(places_));
    set.used.resize(static_cast<size_t>(places_));
  }
}

void HotCache::Reset(std::span<const int32_t> pages) {
  MNEMO_CHECK(static_cast<int>(pages.size()) == shape_.pages);
  pages_.assign(pages.begin(), pages.end());
  for (Set& set : sets_) {
    std::fill(set.place_of.begin(), set.place_of.end(), uint16_t{0});
    std::fill(set.used.begin(), set.used.end(), 0U);
    set.look = set.hand = 0;
  }
}

void HotCache::Look(int layer, int kv_head, std::span<const uint32_t> entries, std::span<const int32_t> local,
                    int64_t* places, std::vector<Missing>* missing) {
  Set& set =
      sets_[static_cast<size_t>(layer) * static_cast<size_t>(shape_.kv_heads) + static_cast<size_t>(kv_head)];
  MNEMO_CHECK(static_cast<int>(entries.size()) <= places_);
  const auto width = static_cast<uint32_t>(shape_.entry_tokens);
  if (++set.look == 0) {  // the counter has wrapped: forget all entries, since their ages are unknown
    std::fill(set.used.begin(), set.used.end(), 0U);
    std::fill(set.place_of.begin(), set.place_of.end(), uint16_t{0});
    set.look = 1;
  }
  constexpr int64_t kNowhere = -1;
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint32_t token = entries[i] * width;
    if (const int32_t page = local[token / kPageTokens]; page >= 0) {
      places[i] = int64_t{page} * kPageTokens + token % kPageTokens;
    } else if (const uint16_t held = set.place_of[entries[i]]; held != 0) {
      set.used[held - 1U] = set.look;
      places[i] = PlaceAt(held - 1U);
    } else {
      places[i] = kNowhere;
    }
  }
  // A second pass, since no place that the first one found may be reassigned.
  for (size_t i = 0; i < entries.size(); ++i) {
    if (places[i] != kNowhere) continue;
    while (set.used[set.hand] == set.look) set.hand = (set.hand + 1) % static_cast<uint32_t>(places_);
    const uint32_t place = set.hand;
    if (set.used[place] != 0) set.place_of[set.entry_of[place]] = 0;
    set.used[place] = set.look;
    set.entry_of[place] = entries[i];
    set.place_of[entries[i]] = static_cast<uint16_t>(place + 1);
    places[i] = PlaceAt(place);
    missing->push_back({entries[i], places[i]});
  }
}

}  // namespace mnemo::memory
