#include "server/worker/scheduler.h"

#include <algorithm>

#include "devices/base/status.h"

namespace mnemo::worker {
namespace {

using devices::kPageTokens;
using devices::PagesFor;

bool Senior(const Request* a, const Request* b) { return a->IsSenior(*b); }

void InsertSorted(Request* request, std::vector<Request*>* list) {
  list->insert(std::upper_bound(list->begin(), list->end(), request, Senior), request);
}

void EraseSorted(Request* request, std::vector<Request*>* list) {
  const auto found = std::lower_bound(list->begin(), list->end(), request, Senior);
  MNEMO_CHECK(found != list->end() && *found == request);
  list->erase(found);
}

PrefixCache::PageIds IdsOfPage(const Request& request, int page_index) {
  return PrefixCache::PageIds(request.progress.ids.data() + static_cast<size_t>(page_index) * kPageTokens,
                              kPageTokens);
}

int LastPublished(const Request& request) {
  return request.pages.published > 0 ? request.pages.table[request.pages.published - 1] : -1;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      cache_(options.kv_pages, options.hash_seed),
      sessions_(&cache_, options.prefix_cache ? options.max_sessions : 0),
      extra_(options.extra_pages) {
  running_.reserve(options.max_running);
  waiting_.reserve(options.max_live);
  plan_.reserve(options.max_running);
  decoders_.reserve(options.max_running);
}

void Scheduler::Add(Request* request) { InsertSorted(request, &waiting_); }

void Scheduler::Remove(Request* request) {
  if (request == blocked_) blocked_ = nullptr;
  if (!request->admission.running) {
    EraseSorted(request, &waiting_);
    return;
  }
  EraseSorted(request, &running_);
  if (!request->spec.session_id.empty() && request->pages.published > 0) {
    sessions_.Keep(request->spec.session_id, LastPublished(*request));
  }
  ReleasePages(request);
}

// A resident request takes its whole share of the pool, and extra pages for all positions it may have.
bool Scheduler::ReserveResident(Request* request) {
  const Residency& residency = request->residence.share;
  const int page_count = PagesFor(request->max_positions());
  if (!fits(residency.pages()) || extra_.free_count() < page_count) return false;
  for (int i = 0; i < page_count; ++i) request->pages.table.push_back(options_.kv_pages + extra_.Allocate());
  request->pages.resident.Take(residency, page_count, [this] { return TakePage(); });
  request->pages.reserved = residency.pages();
  return true;
}

void Scheduler::ReleaseResident(Request* request) {
  request->pages.resident.Release([this](int32_t page) { cache_.Release(page); });
  for (const int32_t page : request->pages.table) {
    extra_.Release(page - options_.kv_pages);
    extra_.Free(page - options_.kv_pages);
  }
  request->pages.table.clear();
}

// Rows of a resident request's prefill that this step has room for, at most `row_count`; their pages are in
// place.
int Scheduler::SecureChunk(Request* request, int row_count) {
  const ResidentPages::Chunk chunk =
      request->pages.resident.FitChunk(request->pages.computed, row_count, request->residence.kept_pages,
                                       options_.staging_pages - staged_count_);
  staged_count_ += chunk.staging_pages;
  request->pages.resident.Secure(request->pages.computed, request->pages.computed + chunk.row_count,
                                 request->residence.kept_pages);
  return chunk.row_count;
}

void Scheduler::Suspend(Request* request) {
  EraseSorted(request, &running_);
  ReleasePages(request);
}

void Scheduler::ReleasePages(Request* request) {
  if (request->resident()) {
    ReleaseResident(request);
  } else {
    outstanding_ -= request->pages.reserved - static_cast<int>(request->pages.table.size());
    while (!request->pages.table.empty()) {
      cache_.Release(request->pages.table.back());
      request->pages.table.pop_back();
    }
  }
  request->pages.reserved = 0;
  request->pages.published = 0;
  request->pages.computed = 0;
  request->admission.running = false;
  ++room_epoch_;
}

void Scheduler::Preempt(Request* request) {
  Suspend(request);
  ++request->admission.preemptions;
  ++preemptions_;
  InsertSorted(request, &waiting_);
}

void Scheduler::Admit(Request::Clock::time_point now) {
  while (!waiting_.empty() && TryAdmit(waiting_.front(), now)) {
  }
}

bool Scheduler::TryAdmit(Request* request, Request::Clock::time_point now) {
  if (request == blocked_ && room_epoch_ == blocked_epoch_) return false;
  request->Prepare();
  while (static_cast<int>(running_.size()) == options_.max_running || !Reserve(request)) {
    if (PreemptForAdmission(*request)) continue;
    blocked_ = request;
    blocked_epoch_ = room_epoch_;
    return false;
  }
  EraseSorted(request, &waiting_);
  InsertSorted(request, &running_);
  request->admission.running = true;
  if (!request->admission.was_admitted) {
    request->admission.was_admitted = true;
    request->admission.first_admitted = now;
    prompt_tokens_ += request->prompt_count();
    if (options_.prefix_cache) prefix_queries_tokens_ += request->prompt_count();
    if (!request->spec.session_id.empty()) sessions_.Touch(request->spec.session_id);
  }
  if (request->admission.preemptions == 0) {
    request->admission.cached_tokens = request->pages.computed;
    prefix_hit_tokens_ += request->pages.computed;
  }
  return true;
}

// Takes the cached pages of the prompt and reserves the other pages, or takes none at all.
bool Scheduler::Reserve(Request* request) {
  if (request->resident()) return ReserveResident(request);
  const int ahead = std::min(request->spec.max_tokens - request->output_count(), options_.reserve_tokens);
  const int known = request->token_count();
  const int wanted = PagesFor(std::min(known + ahead, request->max_positions()));
  AdoptCached(request);
  const int missing = wanted - static_cast<int>(request->pages.table.size());
  if (!fits(missing)) {
    // No page was reserved yet, but the adopted pages count as taken.
    request->pages.reserved = static_cast<int>(request->pages.table.size());
    ReleasePages(request);
    return false;
  }
  request->pages.reserved = wanted;
  outstanding_ += missing;
  return true;
}

// True when a running request of a worse priority was preempted.
bool Scheduler::PreemptForAdmission(const Request& request) {
  // None is preempted when all of them together would not do. Their reservations are an upper bound of the
  // gain.
  int gain = 0;
  int extra_gain = 0;
  for (const Request* other : running_) {
    if (other->spec.priority <= request.spec.priority) continue;
    gain += other->pages.reserved;
    if (other->resident()) extra_gain += static_cast<int>(other->pages.table.size());
  }
  const bool resident = request.resident();
  const int wanted = resident ? request.residence.share.pages() : PagesFor(request.token_count());
  if (gain == 0 || !fits(wanted - gain)) return false;
  if (resident && extra_.free_count() + extra_gain < PagesFor(request.max_positions())) return false;
  Preempt(running_.back());
  return true;
}

// Pages of the prompt that someone else has computed, from request->pages.computed on.
int Scheduler::AdoptCached(Request* request) {
  if (!options_.prefix_cache || request->resident()) return 0;
  int adopted = 0;
  while (request->pages.computed == request->pages.published * kPageTokens &&
         request->pages.computed + kPageTokens <= request->reuse_end()) {
    const int page = cache_.Acquire(LastPublished(*request), IdsOfPage(*request, request->pages.published));
    if (page < 0) break;
    request->pages.table.push_back(page);
    ++request->pages.published;
    request->pages.computed += kPageTokens;
    ++adopted;
  }
  return adopted;
}

// Adopts pages that a request admitted together with this one has computed in the meantime.
void Scheduler::AdoptLate(Request* request) {
  const int adopted = AdoptCached(request);
  if (adopted == 0) return;
  outstanding_ -= adopted;
  ++room_epoch_;
  if (request->admission.preemptions == 0) {
    request->admission.cached_tokens += adopted * kPageTokens;
    prefix_hit_tokens_ += adopted * kPageTokens;
  }
}

int Scheduler::TakePage() {
  for (;;) {
    const int page = cache_.Allocate();
    if (page >= 0) return page;
    MNEMO_CHECK(sessions_.ForgetOldest());  // reservations never exceed the pages that requests may take
  }
}

// Makes sure of a page for the next position. False when `request` itself was preempted.
bool Scheduler::SecurePage(Request* request) {
  if (request->resident()) {
    request->pages.resident.Secure(request->pages.computed, request->pages.computed + 1,
                                   request->residence.kept_pages);
    return true;
  }
  if (request->pages.computed < static_cast<int>(request->pages.table.size()) * kPageTokens) return true;
  while (static_cast<int>(request->pages.table.size()) == request->pages.reserved) {
    if (fits(1)) {
      ++request->pages.reserved;
      ++outstanding_;
      break;
    }
    Request* junior = running_.back();
    Preempt(junior);
    if (junior == request) return false;
  }
  request->pages.table.push_back(TakePage());
  --outstanding_;
  return true;
}

std::span<const PlannedSequence> Scheduler::Plan() {
  ++step_;
  // A pass is empty when it only found whole prefills in the cache.
  do {
    PlanOnce();
  } while (plan_.empty() && !running_.empty());
  return plan_;
}

void Scheduler::PlanOnce() {
  plan_.clear();
  staged_count_ = 0;
  const bool prefill_waits =
      std::any_of(running_.begin(), running_.end(), [](const Request* r) { return r->prefilling(); });
  ChooseDecoders(options_.max_batch_rows, prefill_waits);
  // Senior requests come first, so that a preempted one has no rows in the plan yet.
  for (Request* request : decoders_) {
    if (!request->admission.running || !SecurePage(request)) continue;
    request->admission.last_step = step_;
    plan_.push_back({.request = request, .row_count = 1});
  }
  int rows_left = options_.max_batch_rows - static_cast<int>(plan_.size());
  for (Request* request : running_) {
    if (rows_left == 0) break;
    if (!request->prefilling()) continue;
    AdoptLate(request);
    int row_count = std::min(rows_left, request->prefill_end() - request->pages.computed);
    if (request->resident()) row_count = SecureChunk(request, row_count);
    if (row_count == 0) continue;
    while (request->pages.computed + row_count >
           static_cast<int>(request->pages.table.size()) * kPageTokens) {
      MNEMO_CHECK(static_cast<int>(request->pages.table.size()) < request->pages.reserved);
      request->pages.table.push_back(TakePage());
      --outstanding_;
    }
    plan_.push_back({.request = request, .row_count = row_count});
    rows_left -= row_count;
  }
}

void Scheduler::ChooseDecoders(int rows, bool prefill_waits) {
  decoders_.clear();
  for (Request* request : running_) {
    if (!request->prefilling()) decoders_.push_back(request);
  }
  // When not all have a place, part of the step goes to prefill, and decoders take turns.
  size_t places = rows;
  if (prefill_waits) places = rows > 1 ? rows - std::max(1, rows / 8) : step_ % 2;
  if (decoders_.size() <= places) return;
  const auto longest_ago = [](const Request* a, const Request* b) {
    return a->admission.last_step != b->admission.last_step ? a->admission.last_step < b->admission.last_step
                                                            : a->IsSenior(*b);
  };
  std::nth_element(decoders_.begin(), decoders_.begin() + static_cast<ptrdiff_t>(places), decoders_.end(),
                   longest_ago);
  decoders_.resize(places);
  std::sort(decoders_.begin(), decoders_.end(), Senior);
}

void Scheduler::Commit() {
  for (const PlannedSequence& sequence : plan_) {
    Request* request = sequence.request;
    request->pages.computed += sequence.row_count;
    if (!options_.prefix_cache || request->resident()) continue;
    const int publishable = std::min(request->pages.computed, request->prefill_end()) / kPageTokens;
    while (request->pages.published < publishable) {
      int& page = request->pages.table[request->pages.published];
      page = cache_.Publish(page, LastPublished(*request), IdsOfPage(*request, request->pages.published));
      ++request->pages.published;
      ++room_epoch_;  // a waiting request may find it
    }
  }
}

}  // namespace mnemo::worker
