#include "server/memory/hot_cache.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <set>

namespace mnemo::memory {
namespace {

// Drives a cache with random selections beside a model of its memory: place -> entry.
void Drive(int entry_tokens, unsigned seed) {
  std::mt19937 random(seed);
  constexpr int kEntryPages = 40;
  const int per_page = 64 / entry_tokens;
  const int entries = kEntryPages * per_page;
  const HotCacheShape shape{
      .layers = 2, .kv_heads = 2, .entry_tokens = entry_tokens, .entries = entries, .pages = 5};
  HotCache cache(shape);
  REQUIRE(cache.places() == 5 * per_page);
  const std::vector<int32_t> pages = {7, 3, 90, 41, 8};
  cache.Reset(pages);
  std::vector<int32_t> local(kEntryPages, -1);
  local[0] = 100;
  local[17] = 101;
  std::map<std::pair<int, int64_t>, uint32_t> memory;  // (set, place) -> entry
  size_t missed = 0;
  for (int look = 0; look < 300; ++look) {
    const int layer = static_cast<int>(random() % 2);
    const int head = static_cast<int>(random() % 2);
    std::set<uint32_t> wanted;
    const auto count = static_cast<size_t>(random() % static_cast<unsigned>(cache.places() + 1));
    while (wanted.size() < count)
      wanted.insert(static_cast<uint32_t>(random() % static_cast<unsigned>(entries)));
    const std::vector<uint32_t> ids(wanted.begin(), wanted.end());
    std::vector<int64_t> places(ids.size());
    std::vector<HotCache::Missing> missing;
    cache.Look(layer, head, ids, local, places.data(), &missing);
    missed += missing.size();
    for (const HotCache::Missing& m : missing) memory[{layer * 2 + head, m.place}] = m.entry;
    std::set<int64_t> taken;
    for (size_t i = 0; i < ids.size(); ++i) {
      const uint32_t token = ids[i] * static_cast<uint32_t>(entry_tokens);
      const int32_t page = local[token / 64];
      CHECK(taken.insert(places[i]).second);
      if (page >= 0) {
        CHECK(places[i] == int64_t{page} * 64 + token % 64);
        continue;
      }
      CHECK(memory.at({layer * 2 + head, places[i]}) == ids[i]);
      CHECK(std::count(pages.begin(), pages.end(), places[i] / 64) == 1);
      CHECK(places[i] % entry_tokens == 0);
    }
    // Asked again at once, all is there.
    missing.clear();
    std::vector<int64_t> again(ids.size());
    cache.Look(layer, head, ids, local, again.data(), &missing);
    CHECK(missing.empty());
    CHECK(again == places);
  }
  CHECK(missed > 100);
}

TEST_CASE("every selected entry stands at a place of its own, and is fetched when it is not there") {
  for (const int entry_tokens : {1, 16, 64}) Drive(entry_tokens, static_cast<unsigned>(entry_tokens));
}

TEST_CASE("what was selected last stays, what was not is given up") {
  HotCache cache({.layers = 1, .kv_heads = 1, .entry_tokens = 64, .entries = 100, .pages = 3});
  cache.Reset(std::vector<int32_t>{0, 1, 2});
  const std::vector<int32_t> local(100, -1);
  std::vector<int64_t> places(3);
  std::vector<HotCache::Missing> missing;
  const auto look = [&](std::vector<uint32_t> ids) {
    missing.clear();
    cache.Look(0, 0, ids, local, places.data(), &missing);
    return missing.size();
  };
  CHECK(look({10, 20, 30}) == 3);
  CHECK(look({10, 30}) == 0);
  CHECK(look({10, 30, 40}) == 1);  // in the place of 20
  CHECK(look({10, 20}) == 1);
  cache.Reset(std::vector<int32_t>{5, 6, 7});
  CHECK(look({10, 20}) == 2);
  CHECK(places[0] / 64 >= 5);
}

}  // namespace
}  // namespace mnemo::memory
