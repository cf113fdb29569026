// Prefix cache: full pages of prompts that outlive their request. They are found again by their token ids and
// all ids before them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/kv_cache.h"
#include "server/worker/page_pool.h"

namespace mnemo::worker {

// A page that is published has a parent (the page before it in its sequence, -1 for the first) and its ids.
// By the numeric invariant (devices/device.h) pages with equal ids all the way up are equal bit by bit, so
// one of them serves every request. Parents always outlive their children: a request that holds a page holds
// its parents, and releases them after it. So eviction in order of release takes leaves first, and a parent's
// number identifies all that is before the page.
//
// Not thread-safe; allocates only when made.
class PrefixCache {
 public:
  using PageIds = std::span<const int32_t, devices::kPageTokens>;

  // `hash_seed` keeps clients from choosing prompts that collide. Equal ids are found by comparison, never by
  // trusting a hash. With the seed 0, for tests, all hashes are equal.
  PrefixCache(int page_count, uint64_t hash_seed);

  int page_count() const { return pool_.page_count(); }
  // Pages that Allocate could give if no session kept any.
  int available_count() const { return pool_.free_count() + cached_count_; }
  // Published pages that no request holds.
  int cached_count() const { return cached_count_; }
  // Pages that requests hold.
  int used_count() const { return page_count() - available_count(); }

  // Returns a page of the caller's own: a free one, or the least recently used cached one. -1: sessions keep
  // all that requests do not hold.
  int Allocate();
  // Returns the published page with these ids after `parent`, with a reference for the caller; -1: there is
  // none.
  int Acquire(int parent, PageIds ids);
  // Publishes the caller's own full `page`, so that it is found from now on. The caller holds `parent`, which
  // is published. Returns the page that the caller holds afterwards: if there is a page of the same ids, the
  // caller gets that one and loses its own.
  int Publish(int page, int parent, PageIds ids);
  // Gives up a reference. A request releases its pages last page first.
  void Release(int page);

  // Keeps a published page and its parents from eviction. The caller holds the page or keeps it already.
  void Keep(int page);
  // Takes back one Keep.
  void Unkeep(int page);

 private:
  struct Node {
    bool published = false;
    int32_t parent = -1;
    int32_t children = 0;
    int32_t keepers = 0;  // sessions that keep the page or one after it
    uint64_t hash = 0;    // of the ids up to and in this page
    int32_t bucket_next = -1;
    int32_t older = -1;  // in the list of pages that no request holds and no session keeps
    int32_t newer = -1;
  };

  uint64_t Hash(int parent, PageIds ids) const;
  int Find(int parent, PageIds ids, uint64_t hash) const;
  void Unlist(int page);
  void ListAsNewest(int page);
  void Evict(int page);

  PagePool pool_;
  const uint64_t hash_seed_;
  int cached_count_ = 0;
  int oldest_ = -1;
  int newest_ = -1;
  std::vector<Node> nodes_;       // [page]
  std::vector<int32_t> ids_;      // [page, kPageTokens], of published pages
  std::vector<int32_t> buckets_;  // the first page of each; their number is a power of two
};

}  // namespace mnemo::worker
