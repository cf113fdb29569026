#include "server/worker/prefix_cache.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "server/worker/page_pool.h"
#include "server/worker/session_table.h"

namespace mnemo::worker {
namespace {

using devices::kPageTokens;
using Ids = std::vector<int32_t>;

// A page full of one number.
Ids Page(int32_t value) { return Ids(kPageTokens, value); }
PrefixCache::PageIds Span(const Ids& ids) { return PrefixCache::PageIds(ids.data(), kPageTokens); }

// Takes and publishes a chain of pages; the caller holds them.
std::vector<int> PublishChain(PrefixCache* cache, const Ids& values) {
  std::vector<int> pages;
  int parent = -1;
  for (const int32_t value : values) {
    const int page = cache->Allocate();
    REQUIRE(page >= 0);
    parent = cache->Publish(page, parent, Span(Page(value)));
    pages.push_back(parent);
  }
  return pages;
}

void ReleaseChain(PrefixCache* cache, std::vector<int> pages) {
  for (; !pages.empty(); pages.pop_back()) cache->Release(pages.back());
}

// Returns the length of the chain that is found, and holds none of it.
int FoundLength(PrefixCache* cache, const Ids& values) {
  std::vector<int> pages;
  for (const int32_t value : values) {
    const int page = cache->Acquire(pages.empty() ? -1 : pages.back(), Span(Page(value)));
    if (page < 0) break;
    pages.push_back(page);
  }
  const int length = static_cast<int>(pages.size());
  ReleaseChain(cache, pages);
  return length;
}

}  // namespace

TEST_CASE("page pool hands out every page once") {
  PagePool pool(3);
  std::set<int> pages = {pool.Allocate(), pool.Allocate(), pool.Allocate()};
  CHECK(pages == std::set<int>{0, 1, 2});
  CHECK(pool.Allocate() == -1);
  pool.AddReference(1);
  CHECK_FALSE(pool.Release(1));
  CHECK(pool.Release(1));
  CHECK(pool.free_count() == 0);
  pool.Free(1);
  CHECK(pool.Allocate() == 1);
}

TEST_CASE("a prefix is found by all its ids, not by its last page") {
  const uint64_t hash_seed = GENERATE(0, 1);
  PrefixCache cache(8, hash_seed);
  ReleaseChain(&cache, PublishChain(&cache, {1, 2, 3}));
  CHECK(FoundLength(&cache, {1, 2, 3, 4}) == 3);
  CHECK(FoundLength(&cache, {1, 3}) == 1);
  CHECK(FoundLength(&cache, {2, 3}) == 0);
  Ids almost = Page(1);
  almost.back() = 2;
  CHECK(cache.Acquire(-1, Span(almost)) == -1);
  CHECK(cache.cached_count() == 3);
  CHECK(cache.used_count() == 0);
}

TEST_CASE("a page published twice becomes one") {
  PrefixCache cache(4, 1);
  const std::vector<int> first = PublishChain(&cache, {7});
  const std::vector<int> second = PublishChain(&cache, {7});
  CHECK(first == second);
  CHECK(cache.used_count() == 1);
  cache.Release(first[0]);
  CHECK(cache.used_count() == 1);
  cache.Release(second[0]);
  CHECK(cache.used_count() == 0);
  CHECK(cache.cached_count() == 1);
}

TEST_CASE("eviction takes the least recently released chain, its end first") {
  PrefixCache cache(4, 1);
  ReleaseChain(&cache, PublishChain(&cache, {1, 2}));
  ReleaseChain(&cache, PublishChain(&cache, {3, 4}));
  CHECK(FoundLength(&cache, {1, 2}) == 2);  // a use: now the other one is older
  const int page = cache.Allocate();
  CHECK(FoundLength(&cache, {3, 4}) == 1);
  CHECK(FoundLength(&cache, {1, 2}) == 2);
  cache.Release(page);
  CHECK(cache.available_count() == 4);
}

TEST_CASE("sessions keep their prefix until they are forgotten") {
  PrefixCache cache(4, 1);
  SessionTable sessions(&cache, 2);
  const std::vector<int> chain = PublishChain(&cache, {1, 2});
  sessions.Keep("a", chain.back());
  ReleaseChain(&cache, chain);
  ReleaseChain(&cache, PublishChain(&cache, {3}));
  const int first = cache.Allocate();
  const int second = cache.Allocate();
  CHECK(FoundLength(&cache, {3}) == 0);
  CHECK(FoundLength(&cache, {1, 2}) == 2);
  CHECK(cache.Allocate() == -1);
  CHECK(cache.available_count() == 2);
  SECTION("for want of pages") {
    CHECK(sessions.ForgetOldest());
    CHECK_FALSE(sessions.ForgetOldest());
    CHECK(cache.Allocate() >= 0);
    CHECK(FoundLength(&cache, {1, 2}) == 1);
  }
  SECTION("by name") {
    sessions.Forget("b");
    CHECK(cache.Allocate() == -1);
    sessions.Forget("a");
    CHECK(cache.Allocate() >= 0);
  }
  SECTION("by what the session keeps next") {
    cache.Release(second);
    sessions.Keep("a", PublishChain(&cache, {1}).back());
    cache.Release(chain.front());
    CHECK(cache.Allocate() >= 0);
    CHECK(cache.Allocate() >= 0);  // the second page of the old prefix
    CHECK(cache.Allocate() == -1);
    CHECK(FoundLength(&cache, {1, 2}) == 1);
  }
  SECTION("by newer sessions than the table holds") {
    cache.Release(second);
    const std::vector<int> other = PublishChain(&cache, {5});
    sessions.Keep("b", other.back());
    sessions.Touch("a");
    sessions.Keep("c", other.back());  // forgets b
    sessions.Keep("d", other.back());  // forgets a
    CHECK(sessions.size() == 2);
    cache.Release(other.back());
    CHECK(cache.Allocate() >= 0);
    CHECK(cache.Allocate() >= 0);
    CHECK(cache.Allocate() == -1);
    CHECK(FoundLength(&cache, {5}) == 1);
  }
  cache.Release(first);
}

namespace {

// The rules of the cache in a slow form: chains of ids with users, keepers and time of last release.
struct NaiveCache {
  struct Entry {
    int users = 0;
    int keepers = 0;
    uint64_t released = 0;
  };
  int page_count = 0;
  int private_pages = 0;
  uint64_t clock = 0;
  std::map<Ids, Entry> entries;

  int Count(bool held) const {
    return static_cast<int>(std::count_if(entries.begin(), entries.end(),
                                          [&](const auto& e) { return (e.second.users > 0) == held; }));
  }
  int Free() const { return page_count - private_pages - static_cast<int>(entries.size()); }
  // Takes a page of the caller's own; false: there is none.
  bool Allocate() {
    if (Free() == 0) {
      auto oldest = entries.end();
      for (auto it = entries.begin(); it != entries.end(); ++it) {
        if (it->second.users > 0 || it->second.keepers > 0) continue;
        if (oldest == entries.end() || it->second.released < oldest->second.released) oldest = it;
      }
      if (oldest == entries.end()) return false;
      entries.erase(oldest);
    }
    ++private_pages;
    return true;
  }
};

struct Holder {
  Ids values;
  std::vector<int> pages;
};

}  // namespace

TEST_CASE("random use of the cache agrees with a naive model") {
  const uint64_t seed = GENERATE(1, 2, 3, 4, 5, 6);
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const int page_count = 5 + static_cast<int>(random() % 20);
  PrefixCache cache(page_count, seed / 2);  // also with all hashes equal
  NaiveCache naive{.page_count = page_count};
  std::vector<Holder> holders;
  std::map<int, Holder> kept;  // by session

  for (int round = 0; round < 5000; ++round) {
    const int action = static_cast<int>(random() % 8);
    if (action < 4 && holders.size() < 8) {
      // A request takes the cached pages of a chain and computes the rest, as long as there are pages.
      Holder holder;
      const size_t length = 1 + random() % 6;
      while (holder.values.size() < length) {
        Ids values = holder.values;
        values.push_back(static_cast<int32_t>(random() % 2));
        const int parent = holder.pages.empty() ? -1 : holder.pages.back();
        int page = cache.Acquire(parent, Span(Page(values.back())));
        const bool known = naive.entries.contains(values);
        REQUIRE((page >= 0) == known);
        if (!known) {
          page = cache.Allocate();
          REQUIRE((page >= 0) == naive.Allocate());
          if (page < 0) break;
          REQUIRE(cache.Publish(page, parent, Span(Page(values.back()))) == page);
          --naive.private_pages;
        }
        ++naive.entries[values].users;
        holder.values = values;
        holder.pages.push_back(page);
      }
      holders.push_back(holder);
    } else if (action < 6 && !holders.empty()) {
      const size_t victim = random() % holders.size();
      Holder holder = holders[victim];
      holders.erase(holders.begin() + static_cast<ptrdiff_t>(victim));
      const int session = static_cast<int>(random() % 3);
      if (!holder.values.empty() && random() % 2 == 0 && !kept.contains(session)) {
        cache.Keep(holder.pages.back());
        for (Ids v = holder.values; !v.empty(); v.pop_back()) ++naive.entries[v].keepers;
        kept[session] = holder;
      }
      ReleaseChain(&cache, holder.pages);
      for (Ids v = holder.values; !v.empty(); v.pop_back()) {
        auto& entry = naive.entries.at(v);
        if (--entry.users == 0) entry.released = ++naive.clock;
      }
    } else if (action == 6 && !kept.empty()) {
      const Holder holder = kept.begin()->second;
      kept.erase(kept.begin());
      cache.Unkeep(holder.pages.back());
      for (Ids v = holder.values; !v.empty(); v.pop_back()) {
        auto& entry = naive.entries.at(v);
        if (--entry.keepers == 0 && entry.users == 0) entry.released = ++naive.clock;
      }
    } else if (action == 7) {
      // A page that is never published.
      const int page = cache.Allocate();
      REQUIRE((page >= 0) == naive.Allocate());
      if (page >= 0) {
        cache.Release(page);
        --naive.private_pages;
      }
    }
    REQUIRE(cache.used_count() == naive.Count(true));
    REQUIRE(cache.cached_count() == naive.Count(false));
  }
}

}  // namespace mnemo::worker
