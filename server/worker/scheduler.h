// Scheduling: which requests run, which rows the next step computes, and in which pages. Pure bookkeeping: it
// knows no device, no thread and no clock.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/worker/prefix_cache.h"
#include "server/worker/request.h"
#include "server/worker/session_table.h"

namespace mnemo::worker {

// The fields that EngineOptions has too mean the same here.
struct SchedulerOptions {
  int max_batch_rows = 0;
  int max_running = 0;
  int max_live = 0;  // requests, running and waiting
  int kv_pages = 0;
  int extra_pages = 0;    // ids [kv_pages, kv_pages + extra_pages), for resident sequences
  int staging_pages = 0;  // shared by the resident sequences of a step
  int reserve_tokens = 0;
  bool prefix_cache = true;
  int max_sessions = 0;
  uint64_t hash_seed = 0;  // of PrefixCache
};

// Rows of one request in a step: positions from request->pages.computed on.
struct PlannedSequence {
  Request* request = nullptr;
  int row_count = 0;
};

// Requests are ordered by seniority (priority, then arrival); both lists below are in that order. The rules:
//   - The senior waiting request is admitted next; none overtakes it. Admission reserves pages for the known
//     tokens of the sequence and reserve_tokens more, so that an admitted request gets on that far.
//   - A request beyond its reservation takes a page that nobody has reserved. When there is none, the junior
//     running request is preempted: its pages are freed, its tokens kept. The senior request can get every
//     page in this way, and each request fits an empty pool, so the senior one always gets on.
//   - A preempted request is queued by its seniority, in front of all that arrived later.
//   - A waiting request may preempt running ones of a worse priority.
//   - A resident request takes its share and all its extra pages when it is admitted.
// Not thread-safe. Plan and Commit do not allocate. Writes RequestPages and RequestAdmission.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // `request` waits from now on. The caller owns it and removes it before it is destroyed. It has passed
  // CheckRequest.
  void Add(Request* request);
  // Forgets the request and frees its pages; its session keeps the prefix.
  void Remove(Request* request);
  // Moves waiting requests to the running ones, as far as there is room.
  void Admit(Request::Clock::time_point now);
  // A running request is to begin again later: frees its pages and forgets it until the next Add.
  void Suspend(Request* request);

  // The rows of the next step, decode rows first, with pages for them. Empty only when no request runs. Valid
  // until the next call.
  std::span<const PlannedSequence> Plan();
  // After the planned rows are computed: counts them and publishes full prompt pages.
  void Commit();

  std::span<Request* const> running() const { return running_; }
  std::span<Request* const> waiting() const { return waiting_; }
  SessionTable& sessions() { return sessions_; }
  const PrefixCache& cache() const { return cache_; }
  int extra_pages_used() const { return extra_.page_count() - extra_.free_count(); }
  // Pages reserved by running requests and not yet taken.
  int outstanding_count() const { return outstanding_; }
  uint64_t preemptions() const { return preemptions_; }
  uint64_t prefix_queries_tokens() const { return prefix_queries_tokens_; }
  uint64_t prefix_hit_tokens() const { return prefix_hit_tokens_; }
  uint64_t prompt_tokens() const { return prompt_tokens_; }

 private:
  bool TryAdmit(Request* request, Request::Clock::time_point now);
  bool Reserve(Request* request);
  bool ReserveResident(Request* request);
  void ReleaseResident(Request* request);
  int SecureChunk(Request* request, int row_count);
  bool PreemptForAdmission(const Request& request);
  void Preempt(Request* request);
  void ReleasePages(Request* request);
  int AdoptCached(Request* request);
  void AdoptLate(Request* request);
  int TakePage();
  bool SecurePage(Request* request);
  void PlanOnce();
  void ChooseDecoders(int rows, bool prefill_waits);
  bool fits(int page_count) const { return cache_.available_count() - outstanding_ >= page_count; }

  const SchedulerOptions options_;
  PrefixCache cache_;
  SessionTable sessions_;
  PagePool extra_;        // page 0 of it has the id options_.kv_pages
  int staged_count_ = 0;  // staging pages that the step's plan needs
  std::vector<Request*> running_;
  std::vector<Request*> waiting_;
  int outstanding_ = 0;
  uint64_t step_ = 0;

  // A waiting request that found no room is not tried again before there is more room.
  uint64_t room_epoch_ = 0;
  uint64_t blocked_epoch_ = 0;
  const Request* blocked_ = nullptr;

  std::vector<PlannedSequence> plan_;
  std::vector<Request*> decoders_;

  uint64_t preemptions_ = 0;
  uint64_t prefix_queries_tokens_ = 0;
  uint64_t prefix_hit_tokens_ = 0;
  uint64_t prompt_tokens_ = 0;
};

}  // namespace mnemo::worker
