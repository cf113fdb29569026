// K and V of one layer that the resident sequences of a step lack, as pieces to fetch into the cache.
#pragma once

#include <cstdint>
#include <span>

#include "devices/kv_cache.h"
#include "server/memory/hot_cache.h"
#include "server/memory/memory_client.h"

namespace mnemo::memory {

// Entries of one KV head of one index, with the place that each is fetched into.
struct FetchList {
  IndexHandle index;
  int kv_head = 0;
  int entry_tokens = 1;
  std::span<const HotCache::Missing> entries;
  uint64_t* fetched_tokens = nullptr;  // counter to which the tokens are added
};

class LayerFeed final : public KvFeed {
 public:
  // `layer`: number within the model. `lists` stay unchanged while this lives.
  LayerFeed(devices::KvCache* cache, int layer, std::span<const FetchList> lists);

  bool Next(int most_tokens, Piece* piece, uint32_t* ids) override;
  void Take(const uint8_t* kv) override;

 private:
  // Position in the lists. Next and Take pass over the same runs, each with its own cursor.
  struct Cursor {
    size_t list = 0;
    size_t entry = 0;
  };
  struct Run {
    const FetchList* list = nullptr;
    std::span<const HotCache::Missing> entries;
  };
  // Returns the next run of entries; empty after the last list.
  Run Advance(Cursor* cursor) const;

  devices::KvCache* const cache_;
  const int layer_;
  const std::span<const FetchList> lists_;
  const size_t token_bytes_;
  int most_tokens_ = 0;
  Cursor asked_;
  Cursor taken_;
};

}  // namespace mnemo::memory
