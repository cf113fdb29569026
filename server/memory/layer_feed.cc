#include "server/memory/layer_feed.h"

#include <algorithm>

namespace mnemo::memory {

LayerFeed::LayerFeed(devices::KvCache* cache, int layer, std::span<const FetchList> lists)
    : cache_(cache),
      layer_(layer),
      lists_(lists),
      token_bytes_(static_cast<size_t>(
          devices::StoredKvBytes(devices::StoredForm(cache->shape().type), cache->shape().head_dim))) {}

bool LayerFeed::Next(int most_tokens, Piece* piece, uint32_t* ids) {
  most_tokens_ = most_tokens;
  const Run run = Advance(&asked_);
  if (run.entries.empty()) return false;
  piece->index = run.list->index;
  piece->kv_head = run.list->kv_head;
  piece->tokens = static_cast<int>(run.entries.size()) * run.list->entry_tokens;
  const auto width = static_cast<uint32_t>(run.list->entry_tokens);
  for (const HotCache::Missing& missing : run.entries) {
    for (uint32_t t = 0; t < width; ++t) *ids++ = missing.entry * width + t;
  }
  *run.list->fetched_tokens += static_cast<uint64_t>(piece->tokens);
  return true;
}

void LayerFeed::Take(const uint8_t* kv) {
  const Run run = Advance(&taken_);
  for (const HotCache::Missing& missing : run.entries) {
    const auto page = static_cast<int>(missing.place / devices::kPageTokens);
    const auto slot = static_cast<int>(missing.place % devices::kPageTokens);
    cache_->CopyIn(layer_, run.list->kv_head, page, slot, run.list->entry_tokens, kv);
    kv += token_bytes_ * static_cast<size_t>(run.list->entry_tokens);
  }
}

LayerFeed::Run LayerFeed::Advance(Cursor* cursor) const {
  for (; cursor->list < lists_.size(); ++cursor->list, cursor->entry = 0) {
    const FetchList& list = lists_[cursor->list];
    std::span<const HotCache::Missing> left = list.entries.subspan(cursor->entry);
    if (left.empty()) continue;
    left =
        left.first(std::min(left.size(), static_cast<size_t>(std::max(1, most_tokens_ / list.entry_tokens))));
    cursor->entry += left.size();
    return {&list, left};
  }
  return {};
}

}  // namespace mnemo::memory
