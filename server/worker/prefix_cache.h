// Pages that outlive their request: full pages of prompts, found again by the token ids they hold and those
// before them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/kv_cache.h"
#include "server/worker/page_pool.h"

namespace mnemo::worker {

// A page that is published has a parent (the page before it in its sequence, -1 for the first) and its ids.
// By the numeric invariant (devices/device.h) pages with equal ids all the way up are equal bit by bit, so
// one of them serves every request. Parents always outlive their children: whoever holds a page holds its
// parents, and releases them after it. So the pages that nobody holds are evicted leaves first by plain order
// of release, and a parent's number stays a name for all that is before the page.
//
// Not thread-safe; allocates only when made.
class PrefixCache {
 public:
  using PageIds = std::span<const int32_t, devices::kPageTokens>;

  // `hash_seed` keeps clients from choosing prompts that collide. Equal ids are found by comparison, never by
  // trusting a hash: with the seed 0, for tests, all hashes are equal.
  PrefixCache(int page_count, uint64_t hash_seed);

  int page_count() const { return pool_.page_count(); }
  // Pages that Allocate could give, if no session kept any.
  int available_count() const { return pool_.free_count() + cached_count_; }
  // Published pages that no request holds.
  int cached_count() const { return cached_count_; }
  // Pages that requests hold.
  int used_count() const { return page_count() - available_count(); }

  // A page of the caller's own, taken from the free ones or from the least recently used cached one; -1 when
  // there is none but those that sessions keep.
  int Allocate();
  // The published page with these ids after `parent`, with a reference for the caller; -1 when there is none.
  int Acquire(int parent, PageIds ids);
  // The caller's own `page` is full and shall be found from now on; the caller holds `parent`, which is
  // published. Where a page of the same ids exists already, the caller gets that one instead (returned) and
  // loses its own.
  int Publish(int page, int parent, PageIds ids);
  // Gives up a reference. A request releases its last page first.
  void Release(int page);

  // Keeps a published page and its parents from being evicted. The caller holds the page or keeps it already.
  void Keep(int page);
  void Unkeep(int page);

 private:
  struct Node {
    bool published = false;
    int32_t parent = -1;
    int32_t children = 0;
    int32_t keepers = 0;  // sessions that keep the page or one after it
    uint64_t hash = 0;    // of the ids up to here
    int32_t bucket_next = -1;
    int32_t older = -1;  // in the list of pages that nobody holds or keeps
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
  std::vector<int32_t> buckets_;  // first page of each; a power of two of them
};

}  // namespace mnemo::worker
