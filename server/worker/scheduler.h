// Which requests run, which rows the next step computes and which pages they are in. Pure bookkeeping: knows
// no device, no thread and no clock but what it is told.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/worker/prefix_cache.h"
#include "server/worker/request.h"
#include "server/worker/session_table.h"

namespace mnemo::worker {

struct SchedulerOptions {
  int max_batch_rows = 0;
  int max_running = 0;
  int max_live = 0;  // requests, running and waiting
  int kv_pages = 0;
  // Of resident sequences (ResidencyOf): ids [kv_pages, kv_pages + extra_pages), and pages of the staging
  // area, which sequences share in each step.
  int extra_pages = 0;
  int staging_pages = 0;
  int reserve_tokens = 0;
  bool prefix_cache = true;
  int max_sessions = 0;
  uint64_t hash_seed = 0;
};

// Rows of one request in a step: positions from request->computed on.
struct PlannedSequence {
  Request* request = nullptr;
  int row_count = 0;
};

// Requests are ordered by seniority (priority, then arrival); both lists below are in that order. The rules:
//   - The senior waiting request is admitted next; none overtakes it. Admission reserves pages for what is
//     known of the sequence and reserve_tokens more, so that a request once admitted gets on that far.
//   - A request beyond its reservation takes a page nobody has reserved; when there is none, the junior
//   running
//     request is preempted: its pages are freed, its tokens kept. The senior one can so get every page, and
//     each fits an empty pool: it always gets on.
//   - A preempted request stands where its seniority puts it, so in front of all that arrived later.
//   - A waiting request may preempt running ones of a worse priority.
//   - A resident request takes all that it will ever need when it is admitted.
// Not thread-safe. Plan and Commit do not allocate.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // The caller owns `request` and removes it before it goes. It has passed CheckRequest.
  void Add(Request* request);
  // Frees all that it holds; its session keeps the prefix.
  void Remove(Request* request);
  void Admit(Request::Clock::time_point now);
  // A running request is to begin again, or to wait for something: frees all that it holds.
  void Suspend(Request* request);

  // The rows of the next step, decode rows first; pages for them are in place. Empty only when nothing runs.
  std::span<const PlannedSequence> Plan();
  // The planned rows are computed: counts them, publishes full prompt pages.
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
  PagePool extra_;        // its pages' ids count from options_.kv_pages
  int staged_count_ = 0;  // staging pages that the step's plan needs
  std::vector<Request*> running_;
  std::vector<Request*> waiting_;
  int outstanding_ = 0;
  uint64_t step_ = 0;

  // A waiting request that found no room is not tried again before room was made.
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
