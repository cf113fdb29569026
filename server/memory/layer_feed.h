// K and V of one layer that a step's resident sequences lack, as pieces to fetch and to put into the cache.
#pragma once

#include <cstdint>
#include <span>

#include "devices/kv_cache.h"
#include "server/memory/hot_cache.h"
#include "server/memory/memory_client.h"

namespace mnemo::memory {

// Entries of one KV head of one index, each to be put to its place.
struct FetchList {
  IndexHandle index;
  int kv_head = 0;
  int entry_tokens = 1;
  std::span<const HotCache::Missing> entries;
  uint64_t* fetched_tokens = nullptr;  // added to
};

class LayerFeed final : public KvFeed {
 public:
  // `layer` of the model; `lists` stay as they are.
  LayerFeed(devices::KvCache* cache, int layer, std::span<const FetchList> lists);

  bool Next(int most_tokens, Piece* piece, uint32_t* ids) override;
  void Take(const uint8_t* kv) override;

 private:
  // Where asking, and taking behind it, has come to: both go the same way.
  struct Cursor {
    size_t list = 0;
    size_t entry = 0;
  };
  struct Run {
    const FetchList* list = nullptr;
    std::span<const HotCache::Missing> entries;
  };
  // The next run of a list, empty at the end of all.
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
