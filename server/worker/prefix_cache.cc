#include "server/worker/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <cstddef>

#include "devices/base/status.h"

namespace mnemo::worker {

using devices::kPageTokens;

PrefixCache::PrefixCache(int page_count, uint64_t hash_seed)
    : pool_(page_count),
      hash_seed_(hash_seed),
      nodes_(page_count),
      ids_(static_cast<size_t>(page_count) * kPageTokens),
      buckets_(std::bit_ceil(static_cast<size_t>(page_count)), -1) {}

uint64_t PrefixCache::Hash(int parent, PageIds ids) const {
  if (hash_seed_ == 0) return 0;
  // A hit is compared, so that any mixing does: multiply by an odd number and fold the high half down.
  uint64_t hash = parent < 0 ? hash_seed_ : nodes_[parent].hash;
  for (const int32_t id : ids) {
    hash = (hash ^ static_cast<uint32_t>(id)) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
  }
  return hash;
}

int PrefixCache::Find(int parent, PageIds ids, uint64_t hash) const {
  for (int page = buckets_[hash & (buckets_.size() - 1)]; page >= 0; page = nodes_[page].bucket_next) {
    const Node& node = nodes_[page];
    if (node.hash == hash && node.parent == parent &&
        std::equal(ids.begin(), ids.end(), ids_.begin() + static_cast<ptrdiff_t>(page) * kPageTokens)) {
      return page;
    }
  }
  return -1;
}

int PrefixCache::Allocate() {
  if (pool_.free_count() == 0) {
    if (oldest_ < 0) return -1;
    Evict(oldest_);
  }
  return pool_.Allocate();
}

int PrefixCache::Acquire(int parent, PageIds ids) {
  const int page = Find(parent, ids, Hash(parent, ids));
  if (page < 0) return -1;
  if (pool_.references(page) == 0) {
    --cached_count_;
    if (nodes_[page].keepers == 0) Unlist(page);
  }
  pool_.AddReference(page);
  return page;
}

int PrefixCache::Publish(int page, int parent, PageIds ids) {
  MNEMO_CHECK(!nodes_[page].published && pool_.references(page) == 1);
  MNEMO_CHECK(parent < 0 || (nodes_[parent].published && pool_.references(parent) > 0));
  if (const int same = Acquire(parent, ids); same >= 0) {
    Release(page);
    return same;
  }
  Node& node = nodes_[page];
  node = Node{.published = true, .parent = parent, .hash = Hash(parent, ids)};
  int32_t& bucket = buckets_[node.hash & (buckets_.size() - 1)];
  node.bucket_next = bucket;
  bucket = page;
  if (parent >= 0) ++nodes_[parent].children;
  std::copy(ids.begin(), ids.end(), ids_.begin() + static_cast<ptrdiff_t>(page) * kPageTokens);
  return page;
}

void PrefixCache::Release(int page) {
  if (!pool_.Release(page)) return;
  const Node& node = nodes_[page];
  if (!node.published) {
    pool_.Free(page);
    return;
  }
  ++cached_count_;
  if (node.keepers == 0) ListAsNewest(page);
}

void PrefixCache::Keep(int page) {
  for (; page >= 0; page = nodes_[page].parent) {
    Node& node = nodes_[page];
    MNEMO_CHECK(node.published);
    if (node.keepers++ == 0 && pool_.references(page) == 0) Unlist(page);
  }
}

void PrefixCache::Unkeep(int page) {
  for (; page >= 0; page = nodes_[page].parent) {
    Node& node = nodes_[page];
    MNEMO_CHECK(node.keepers > 0);
    if (--node.keepers == 0 && pool_.references(page) == 0) ListAsNewest(page);
  }
}

void PrefixCache::Unlist(int page) {
  Node& node = nodes_[page];
  (node.older >= 0 ? nodes_[node.older].newer : oldest_) = node.newer;
  (node.newer >= 0 ? nodes_[node.newer].older : newest_) = node.older;
  node.older = node.newer = -1;
}

void PrefixCache::ListAsNewest(int page) {
  Node& node = nodes_[page];
  node.older = newest_;
  node.newer = -1;
  (newest_ >= 0 ? nodes_[newest_].newer : oldest_) = page;
  newest_ = page;
}

void PrefixCache::Evict(int page) {
  Node& node = nodes_[page];
  MNEMO_CHECK(node.published && node.children == 0 && node.keepers == 0 && pool_.references(page) == 0);
  Unlist(page);
  int32_t* link = &buckets_[node.hash & (buckets_.size() - 1)];
  while (*link != page) link = &nodes_[*link].bucket_next;
  *link = node.bucket_next;
  if (node.parent >= 0) --nodes_[node.parent].children;
  node = Node{};
  --cached_count_;
  pool_.Free(page);
}

}  // namespace mnemo::worker
