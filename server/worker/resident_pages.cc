#include "server/worker/resident_pages.h"

#include <algorithm>
#include <memory>

#include "devices/base/status.h"
#include "devices/kv_cache.h"
#include "server/memory/placement.h"

namespace mnemo::worker {
namespace {

using devices::kPageTokens;
using devices::PagesFor;

// The most pages that the directory of a hot cache can number.
constexpr int kMaxHotPages = 1000;

}  // namespace

Residency ResidencyOf(const memory::AttentionSettings& settings, int max_positions,
                      const RequestLimits& limits) {
  using memory::AttentionSettings;
  const memory::PlacementRules rules = {.any_in_service = limits.any_placement_in_service,
                                        .has_service = limits.extra_pages > 0};
  const bool in_service = memory::ChoosePlacement(settings.placement, rules, /*begun=*/false).in_service;
  if (limits.extra_pages == 0 || settings.method == AttentionSettings::Method::kDense || !in_service)
    return {};
  const int budget = std::min(settings.token_budget, max_positions);
  Residency residency;
  residency.sink_pages = PagesFor(settings.keep_first);
  // Positions within the budget attend to everything, and nothing is fetched for them. Later positions attend
  // to the tail.
  residency.recent_pages =
      std::max(PagesFor(budget) + 1, PagesFor(settings.keep_last + settings.reuse_interval) + 3);
  residency.hot_pages = 2 * PagesFor(budget) + 1;
  if (residency.pages() >= PagesFor(max_positions) || residency.hot_pages > kMaxHotPages) return {};
  return residency;
}

void ResidentPages::Prepare(const Residency& share, int page_count) {
  indexed_.reserve(static_cast<size_t>(page_count));
  free_.reserve(static_cast<size_t>(share.pages()));
  hot_.reserve(static_cast<size_t>(share.hot_pages));
}

void ResidentPages::Open(const Residency& share, int page_count) {
  MNEMO_CHECK(indexed_.empty() && free_.empty() && hot_.empty());
  indexed_.assign(static_cast<size_t>(page_count), -1);
  sink_pages_ = share.sink_pages;
  oldest_local_ = share.sink_pages;
  ++generation_;
}

void ResidentPages::Clear() {
  indexed_.clear();
  free_.clear();
  hot_.clear();
}

int ResidentPages::StoredPages(int computed, int kept_pages) const {
  return std::min(kept_pages, computed / kPageTokens);
}

void ResidentPages::Secure(int computed, int end, int kept_pages) {
  for (int page = computed / kPageTokens; page < PagesFor(end); ++page) {
    int32_t& local = indexed_[static_cast<size_t>(page)];
    if (local >= 0) continue;
    if (free_.empty()) {
      MNEMO_CHECK(oldest_local_ < StoredPages(computed, kept_pages));
      int32_t& oldest = indexed_[static_cast<size_t>(oldest_local_++)];
      MNEMO_CHECK(oldest >= 0);
      free_.push_back(oldest);
      oldest = -1;
    }
    local = free_.back();
    free_.pop_back();
  }
}

ResidentPages::Chunk ResidentPages::FitChunk(int computed, int row_count, int kept_pages,
                                             int free_staging_pages) const {
  // Every page but the sinks and those that are not stored yet may be given to the rows.
  const int free_count = static_cast<int>(free_.size());
  const int droppable = std::max(0, StoredPages(computed, kept_pages) - oldest_local_);
  const int open_rows = (kPageTokens - computed % kPageTokens) % kPageTokens;
  row_count = std::min(row_count, open_rows + (free_count + droppable) * kPageTokens);
  if (row_count == 0) return {};
  // After that the pages before the oldest local one, but for the sinks, are in the service only.
  const int needed = PagesFor(computed + row_count) - PagesFor(computed);
  const int dropped = std::max(0, needed - free_count);
  const int staging_pages = oldest_local_ + dropped - sink_pages_;
  if (staging_pages > free_staging_pages) return {};
  return {.row_count = row_count, .staging_pages = staging_pages};
}

StagingArea::StagingArea(int first_page, int page_count, int table_pages)
    : first_page_(first_page), page_count_(page_count) {
  tables_.reserve(static_cast<size_t>(table_pages));
  staged_.reserve(static_cast<size_t>(page_count));
}

void StagingArea::Reset() {
  used_count_ = 0;
  tables_.clear();
}

StagingArea::Placement StagingArea::Place(std::span<const int32_t> indexed, int page_count) {
  // Tables of earlier sequences stay where they are.
  MNEMO_CHECK(tables_.size() + indexed.size() <= tables_.capacity());
  const auto table = tables_.insert(tables_.end(), indexed.begin(), indexed.end());
  staged_.clear();
  for (int page = 0; page < page_count; ++page) {
    if (table[page] >= 0) continue;
    MNEMO_CHECK(used_count_ < page_count_);
    table[page] = first_page_ + used_count_++;
    staged_.push_back({.page = page, .staging = table[page]});
  }
  return {.table = std::to_address(table), .staged = staged_};
}

}  // namespace mnemo::worker
