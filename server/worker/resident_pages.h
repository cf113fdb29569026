// Resident sequences: their share of the worker's pool, the pages that they hold of it, and staging.
//
// A sequence is resident when the memory service keeps K and V of its indexed layers. The worker then holds
// only the first pages (keep_first), the newest pages and a cache of what was selected last ("hot pages"). A
// page may be given to other positions as soon as the service has stored its K and V.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/memory/attention_settings.h"
#include "server/memory/pipeline.h"
#include "server/worker/request_limits.h"

namespace mnemo::worker {

// Pages of the worker's pool that a resident sequence holds, however long it gets.
struct Residency {
  int sink_pages = 0;    // the first pages of the sequence, which never go
  int recent_pages = 0;  // the newest pages
  int hot_pages = 0;     // a cache of entries that were selected last
  bool resident() const { return hot_pages > 0; }
  int pages() const { return sink_pages + recent_pages + hot_pages; }
};

// The share of a sequence of `max_positions`. Not resident: attention is dense, the placement is inline, no
// service keeps K and V, or the share would hold the whole sequence.
Residency ResidencyOf(const memory::AttentionSettings& settings, int max_positions,
                      const RequestLimits& limits);

// The pages of one resident sequence, by number. The scheduler owns and writes it. Not thread-safe; only
// Prepare allocates.
//
// `kept_pages` below counts the first pages of the sequence whose K and V the service has stored. `computed`
// counts positions whose K and V are computed.
class ResidentPages {
 public:
  // Reserves memory for a sequence of `page_count` pages with this share.
  void Prepare(const Residency& share, int page_count);

  // Takes the share for a sequence of `page_count` pages, none of which is here. `take_page` returns a page
  // of the pool and is called share.pages() times.
  template <typename TakePage>
  void Take(const Residency& share, int page_count, TakePage take_page) {
    Open(share, page_count);
    for (int i = 0; i < share.hot_pages; ++i) hot_.push_back(take_page());
    for (int i = 0; i < share.sink_pages + share.recent_pages; ++i) free_.push_back(take_page());
  }

  // Gives every page of the share to `release_page`; the object is empty afterwards.
  template <typename ReleasePage>
  void Release(ReleasePage release_page) {
    for (const int32_t page : indexed_) {
      if (page >= 0) release_page(page);
    }
    for (const int32_t page : free_) release_page(page);
    for (const int32_t page : hot_) release_page(page);
    Clear();
  }

  // Gives pages of the share to positions [computed, end). When no page of the share is free, the oldest
  // stored page after the sinks goes.
  void Secure(int computed, int end, int kept_pages);

  // Rows of a prefill chunk that the share has room for, and the staging pages that they need.
  struct Chunk {
    int row_count = 0;
    int staging_pages = 0;
  };
  // At most `row_count` rows from position `computed` on. No rows: the share has no page for them, or they
  // need more than `free_staging_pages`.
  Chunk FitChunk(int computed, int row_count, int kept_pages, int free_staging_pages) const;

  // [page of the sequence] K and V of indexed layers are in this page of the pool; -1: not here.
  const std::vector<int32_t>& indexed() const { return indexed_; }
  // [share.hot_pages]
  const std::vector<int32_t>& hot() const { return hot_; }
  // Pages of the share that hold nothing.
  const std::vector<int32_t>& free() const { return free_; }
  // Counts calls of Take: another number means other hot pages. 0: there were none yet.
  uint64_t generation() const { return generation_; }

 private:
  void Open(const Residency& share, int page_count);
  void Clear();
  // Pages that may go for others now.
  int StoredPages(int computed, int kept_pages) const;

  std::vector<int32_t> indexed_;
  std::vector<int32_t> free_;  // a stack
  std::vector<int32_t> hot_;
  int sink_pages_ = 0;
  int oldest_local_ = 0;  // the first page after the sinks that is here, if any is
  uint64_t generation_ = 0;
};

// The staging pages of a step. Rows that attend to everything (a prompt's) need K and V of all pages: those
// that are not in the worker are fetched into staging pages, layer by layer. All sequences of a step share
// the area. Owned by the engine thread; does not allocate after it is made.
class StagingArea {
 public:
  // Pages [first_page, first_page + page_count) of the cache's indexed layers. `table_pages`: the most pages
  // that the sequences of a step have together.
  StagingArea(int first_page, int page_count, int table_pages);

  struct Placement {
    // [indexed.size()] `indexed` with staging pages for the pages that are not here. Valid until Reset.
    const int32_t* table = nullptr;
    // The pages to be fetched, and where to. Valid until the next call.
    std::span<const memory::Pipeline::StagedPage> staged;
  };

  // Begins a step: all pages are free.
  void Reset();
  // Gives staging pages to those of the sequence's first `page_count` pages that are not here.
  Placement Place(std::span<const int32_t> indexed, int page_count);

 private:
  const int first_page_;
  const int page_count_;
  int used_count_ = 0;
  std::vector<int32_t> tables_;  // of the step's sequences, one after the other
  std::vector<memory::Pipeline::StagedPage> staged_;
};

}  // namespace mnemo::worker
