#include "server/worker/resident_pages.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "devices/kv_cache.h"

namespace mnemo::worker {
namespace {

using devices::kPageTokens;
using memory::AttentionSettings;

AttentionSettings Sparse(int budget) {
  AttentionSettings settings;
  settings.method = AttentionSettings::Method::kTokenTopk;
  settings.token_budget = budget;
  settings.keep_first = 4;
  return settings;
}

constexpr RequestLimits kLimits{.extra_pages = 160, .any_placement_in_service = true};
constexpr Residency kShare{.sink_pages = 1, .recent_pages = 2, .hot_pages = 3};

// Pages 100, 101, .. in this order.
ResidentPages Taken(int page_count) {
  ResidentPages pages;
  pages.Prepare(kShare, page_count);
  pages.Take(kShare, page_count, [next = 100]() mutable { return next++; });
  return pages;
}

int LocalCount(const ResidentPages& pages) {
  return static_cast<int>(
      std::count_if(pages.indexed().begin(), pages.indexed().end(), [](int32_t page) { return page >= 0; }));
}

}  // namespace

TEST_CASE("a share of the pool: what a sequence needs however long it gets, or no residency at all") {
  const Residency residency = ResidencyOf(Sparse(256), 4000, kLimits);
  CHECK(residency.resident());
  CHECK(residency.sink_pages == 1);
  CHECK(residency.recent_pages == 5);
  CHECK(residency.hot_pages == 9);
  CHECK(ResidencyOf(Sparse(256), 4000, kLimits).pages() == ResidencyOf(Sparse(256), 2000, kLimits).pages());
  // The share would hold the whole sequence.
  CHECK_FALSE(ResidencyOf(Sparse(256), 15 * kPageTokens, kLimits).resident());
  AttentionSettings inline_placement = Sparse(256);
  inline_placement.placement = AttentionSettings::Placement::kInline;
  CHECK_FALSE(ResidencyOf(inline_placement, 4000, kLimits).resident());
  CHECK_FALSE(ResidencyOf({}, 4000, kLimits).resident());  // dense
  RequestLimits without = kLimits;
  without.extra_pages = 0;
  CHECK_FALSE(ResidencyOf(Sparse(256), 4000, without).resident());
}

TEST_CASE("a sequence that names no placement is resident only where that means the service") {
  RequestLimits limits = kLimits;
  limits.any_placement_in_service = false;
  CHECK_FALSE(ResidencyOf(Sparse(256), 4000, limits).resident());
  AttentionSettings in_service = Sparse(256);
  in_service.placement = AttentionSettings::Placement::kMemoryService;
  CHECK(ResidencyOf(in_service, 4000, limits).resident());
}

TEST_CASE("a share has at most as many hot pages as a hot cache can number") {
  const int last = 499 * kPageTokens;  // 2 * 499 + 1 hot pages
  CHECK(ResidencyOf(Sparse(last), 1 << 20, kLimits).hot_pages == 999);
  CHECK_FALSE(ResidencyOf(Sparse(last + 1), 1 << 20, kLimits).resident());
}

TEST_CASE("a share is taken hot pages first, and every page of it comes back") {
  ResidentPages pages = Taken(10);
  CHECK(pages.hot() == std::vector<int32_t>{100, 101, 102});
  CHECK(pages.free() == std::vector<int32_t>{103, 104, 105});
  CHECK(pages.indexed() == std::vector<int32_t>(10, -1));
  CHECK(pages.generation() == 1);
  pages.Secure(0, 70, 0);
  CHECK(LocalCount(pages) == 2);
  std::vector<int32_t> released;
  pages.Release([&](int32_t page) { released.push_back(page); });
  std::sort(released.begin(), released.end());
  std::vector<int32_t> share(6);
  std::iota(share.begin(), share.end(), 100);
  CHECK(released == share);
  CHECK(pages.indexed().empty());
  pages.Take(kShare, 10, [] { return 7; });
  CHECK(pages.generation() == 2);
  CHECK(pages.indexed() == std::vector<int32_t>(10, -1));
}

TEST_CASE("the oldest stored page after the sinks goes for new positions") {
  ResidentPages pages = Taken(10);
  pages.Secure(0, 3 * kPageTokens, 0);
  const std::vector<int32_t> before = pages.indexed();
  pages.Secure(3 * kPageTokens, 3 * kPageTokens + 1, 2);
  CHECK(pages.indexed()[0] == before[0]);  // a sink
  CHECK(pages.indexed()[1] == -1);
  CHECK(pages.indexed()[2] == before[2]);
  CHECK(pages.indexed()[3] == before[1]);
  // A position whose page is here already takes none.
  const std::vector<int32_t> after = pages.indexed();
  pages.Secure(3 * kPageTokens + 1, 4 * kPageTokens, 3);
  CHECK(pages.indexed() == after);
}

TEST_CASE("a prefill chunk is as long as free and stored pages allow") {
  ResidentPages pages = Taken(20);
  // Nothing is stored: the three free pages are all there is.
  CHECK(pages.FitChunk(0, 1000, 0, 20).row_count == 3 * kPageTokens);
  CHECK(pages.FitChunk(0, 100, 0, 20).row_count == 100);
  CHECK(pages.FitChunk(0, 100, 0, 0).staging_pages == 0);
  pages.Secure(0, 3 * kPageTokens, 0);
  const int computed = 3 * kPageTokens;
  CHECK(pages.FitChunk(computed, 1000, 0, 20).row_count == 0);
  CHECK(pages.FitChunk(computed, 1000, 2, 20).row_count == kPageTokens);
  // Pages that the service counts before the sequence began again are not here: only computed ones count.
  CHECK(pages.FitChunk(computed, 1000, 9, 20).row_count == 2 * kPageTokens);
  CHECK(pages.FitChunk(computed, 1000, 3, 20).staging_pages == 2);
  CHECK(pages.FitChunk(computed, 1000, 3, 1).row_count == 0);
  CHECK(pages.FitChunk(computed, kPageTokens, 3, 1).row_count == kPageTokens);
}

TEST_CASE("rows of the open page need no page and drop none") {
  ResidentPages pages = Taken(20);
  pages.Secure(0, 3 * kPageTokens - 10, 0);
  const ResidentPages::Chunk chunk = pages.FitChunk(3 * kPageTokens - 10, 1000, 0, 0);
  CHECK(chunk.row_count == 10);
  CHECK(chunk.staging_pages == 0);
}

TEST_CASE("prefill by random chunks: what is dropped is stored, and staging covers what is not here") {
  const uint64_t seed = GENERATE(range(uint64_t{1}, uint64_t{21}));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  constexpr int kPages = 40;
  ResidentPages pages = Taken(kPages);
  StagingArea staging(1000, kPages, kPages);
  int computed = 0;
  int staged_steps = 0;
  while (computed < kPages * kPageTokens) {
    const int kept = computed / kPageTokens;
    const int wanted = std::min(1 + static_cast<int>(random() % 300), kPages * kPageTokens - computed);
    const ResidentPages::Chunk chunk = pages.FitChunk(computed, wanted, kept, kPages);
    REQUIRE(chunk.row_count > 0);
    pages.Secure(computed, computed + chunk.row_count, kept);
    staging.Reset();
    const auto [table, staged] = staging.Place(pages.indexed(), devices::PagesFor(computed));
    REQUIRE(std::ssize(staged) == chunk.staging_pages);
    staged_steps += staged.empty() ? 0 : 1;
    for (const auto& page : staged) REQUIRE(page.page < kept);
    std::set<int32_t> places;
    for (int page = 0; page < devices::PagesFor(computed + chunk.row_count); ++page) {
      REQUIRE(table[page] >= 0);
      REQUIRE(places.insert(table[page]).second);
    }
    computed += chunk.row_count;
    REQUIRE(pages.indexed()[0] >= 0);
    REQUIRE(LocalCount(pages) + static_cast<int>(pages.free().size()) == 3);
  }
  CHECK(staged_steps > 5);
}

TEST_CASE("sequences of a step share the staging area, which each step has as a whole") {
  using Table = std::vector<int32_t>;
  StagingArea staging(50, 3, 7);
  const Table first = {4, -1, 5, -1};
  const Table second = {-1, 9, -1};
  const StagingArea::Placement of_first = staging.Place(first, 3);
  REQUIRE(of_first.staged.size() == 1);
  const StagingArea::Placement of_second = staging.Place(second, 3);
  REQUIRE(of_second.staged.size() == 2);
  CHECK(of_second.staged[1].page == 2);
  CHECK(of_second.staged[1].staging == 52);
  CHECK(Table(of_first.table, of_first.table + 4) == Table{4, 50, 5, -1});
  CHECK(Table(of_second.table, of_second.table + 3) == Table{51, 9, 52});
  staging.Reset();
  CHECK(staging.Place(second, 1).staged.front().staging == 50);
}

}  // namespace mnemo::worker
