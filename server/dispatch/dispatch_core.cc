#include "server/dispatch/dispatch_core.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "server/dispatch/router.h"

namespace mnemo::dispatch {
namespace {

using internal::v1::Event;
using internal::v1::Finish;
using internal::v1::ToWorker;
using std::chrono::milliseconds;

// Requests beyond what a worker runs that are sent to it all the same, so that it need not wait for the next
// one. The others wait here, where any worker can take them.
constexpr int kSendAhead = 2;
// A worker that was full is not asked again before, unless a request ends on it.
constexpr milliseconds kRefusalPause{50};
// Idle sessions that are forgotten at a time, with the lock held.
constexpr size_t kMaxForgotten = 256;

}  // namespace

class DispatchCore::Handle final : public Dispatch {
 public:
  Handle(std::weak_ptr<DispatchCore> core, RequestPtr request)
      : core_(std::move(core)), request_(std::move(request)) {}
  void Cancel() override {
    if (const std::shared_ptr<DispatchCore> core = core_.lock()) core->Cancel(request_);
  }

 private:
  const std::weak_ptr<DispatchCore> core_;
  const RequestPtr request_;
};

void DispatchCore::Effects::Flush(const std::shared_ptr<WorkerLink>& link) {
  if (std::find(flushes.begin(), flushes.end(), link) == flushes.end()) flushes.push_back(link);
}

DispatchCore::DispatchCore(CoreOptions options, WorkerHost* host)
    : options_(std::move(options)),
      host_(host),
      sessions_(static_cast<size_t>(options_.max_sessions), options_.session_ttl) {
  for (const WorkerSpec& spec : options_.workers) slots_.emplace_back(spec);
}

std::shared_ptr<Dispatch> DispatchCore::Start(internal::v1::Submit submit, std::optional<TimePoint> deadline,
                                              std::shared_ptr<DispatchSink> sink) {
  const auto request = std::make_shared<RequestState>();
  request->submit = std::move(submit);
  request->prefix_hashes =
      PrefixHashes({request->submit.prompt().data(), static_cast<size_t>(request->submit.prompt_size())});
  request->deadline = deadline;
  request->sink = std::move(sink);
  request->id = next_id_++;
  if (options_.observer != nullptr) options_.observer->OnRequestBegin(request->id, request->submit);
  Effects effects;
  {
    std::lock_guard lock(mutex_);
    const TimePoint now = options_.now();
    if (stopping_) {
      EndRequest(request, Unavailable("the server is stopping"), &effects);
    } else {
      requests_[request->id] = request;
      Enqueue(request);
      Schedule(now, &effects);
      const bool queued = request->worker < 0;
      if (queued && !AnyWorkerFor(*request)) request->stranded_time = now;
      if (queued || (deadline && *deadline < next_wake_)) host_->Wake();
    }
  }
  Run(effects);
  return std::make_shared<Handle>(weak_from_this(), request);
}

void DispatchCore::Cancel(const RequestPtr& request) {
  Effects effects;
  {
    std::lock_guard lock(mutex_);
    if (request->ended || request->cancelling) return;
    if (WantsLastEvent(*request)) {
      request->cancelling = true;
      TellCancel(*request, &effects);
    } else {
      EndRequest(request, absl::CancelledError("cancelled"), &effects);
    }
    Schedule(options_.now(), &effects);
  }
  Run(effects);
}

bool DispatchCore::EndSession(const std::string& session_id) {
  Effects effects;
  bool known = false;
  {
    std::lock_guard lock(mutex_);
    const SessionMap::Place place = sessions_.Find(session_id);
    known = place.worker >= 0 && LiveSlot(place.worker, place.life) != nullptr;
    sessions_.Erase(session_id);
    EndSessionAtWorkers(session_id, &effects);
  }
  Run(effects);
  return known;
}

// At all of them: it may have been at several, one after the other.
void DispatchCore::EndSessionAtWorkers(const std::string& session_id, Effects* effects) {
  for (WorkerSlot& slot : slots_) {
    if (!slot.connected()) continue;
    ToWorker message;
    message.mutable_end_session()->set_session_id(session_id);
    slot.link->Queue(std::move(message));
    effects->Flush(slot.link);
  }
}

void DispatchCore::ForgetIdleSessions(TimePoint now, Effects* effects) {
  if (sessions_.NextEnd() > now) return;
  absl::flat_hash_set<std::string_view> busy;
  for (const auto& [id, request] : requests_) {
    if (!request->submit.session_id().empty()) busy.insert(request->submit.session_id());
  }
  for (const std::string& session : sessions_.TakeIdle(now, busy, kMaxForgotten)) {
    EndSessionAtWorkers(session, effects);
  }
}

std::vector<WorkerSnapshot> DispatchCore::Workers() const {
  std::lock_guard lock(mutex_);
  std::vector<WorkerSnapshot> snapshots;
  for (const WorkerSlot& slot : slots_) snapshots.push_back(slot.Snapshot());
  return snapshots;
}

std::vector<RunningRequest> DispatchCore::RunningRequests() const {
  std::lock_guard lock(mutex_);
  std::vector<RunningRequest> running;
  for (const auto& [id, request] : requests_)
    running.push_back({id, static_cast<int>(request->generated.size())});
  return running;
}

std::vector<int> DispatchCore::ProcessIds() const {
  std::lock_guard lock(mutex_);
  std::vector<int> pids;
  for (const WorkerSlot& slot : slots_) {
    if (slot.process_alive) {
      pids.push_back(slot.pid);
    } else if (!slot.spec.is_child && slot.connected() && slot.spec.IsOfThisMachine()) {
      pids.push_back(slot.ready.pid());
    }
  }
  return pids;
}

// The slot while that life goes on with a session, else nullptr.
WorkerSlot* DispatchCore::LiveSlot(int worker, uint64_t life) {
  WorkerSlot& slot = slots_[worker];
  return slot.life == life && slot.connected() ? &slot : nullptr;
}

void DispatchCore::Enqueue(const RequestPtr& request) {
  request->stranded_time.reset();
  queue_[{request->submit.priority(), request->id}] = request;
}

void DispatchCore::Schedule(TimePoint now, Effects* effects) {
  const auto has_room = [](const WorkerSlot& slot) {
    return slot.state == WorkerSlot::State::kReady &&
           slot.outstanding_requests < slot.ready.max_running() + kSendAhead;
  };
  for (auto it = queue_.begin(); it != queue_.end();) {
    if (std::none_of(slots_.begin(), slots_.end(), has_room)) return;
    const RequestPtr request = it->second;
    ++it;  // sending takes the request out of the queue
    if (!TrySend(request, now, effects)) continue;
  }
}

bool DispatchCore::TrySend(const RequestPtr& request, TimePoint now, Effects* effects) {
  const internal::v1::Submit& submit = request->submit;
  const SessionMap::Place session =
      submit.session_id().empty() ? SessionMap::Place() : sessions_.Find(submit.session_id());
  RouteQuery query;
  query.prompt_tokens = submit.prompt_size();
  query.numerics_id = request->numerics_id;
  std::vector<RouteCandidate> candidates(slots_.size());
  int longest_context = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const WorkerSlot& slot = slots_[i];
    RouteCandidate& candidate = candidates[i];
    candidate.ready = slot.state == WorkerSlot::State::kReady && now >= slot.refuse_time;
    candidate.numerics_id = slot.ready.numerics_id();
    candidate.context_tokens = slot.ready.context_tokens();
    candidate.outstanding_requests = slot.outstanding_requests;
    candidate.max_requests = slot.ready.max_running() + kSendAhead;
    candidate.outstanding_tokens = slot.outstanding_tokens;
    candidate.prefix_tokens = slot.prefixes.MatchTokens(request->prefix_hashes);
    candidate.holds_session = session.worker == static_cast<int>(i) && session.life == slot.life;
    if (candidate.ready) longest_context = std::max(longest_context, candidate.context_tokens);
  }
  // A request that fits no worker goes to the roomiest, which says what is wrong with it.
  query.sequence_tokens =
      std::min<int64_t>(query.prompt_tokens + std::max(0, submit.max_tokens()), longest_context);
  const std::optional<size_t> choice = Route(candidates, query);
  if (!choice) return false;
  Send(request, static_cast<int>(*choice), now, effects);
  return true;
}

void DispatchCore::Send(const RequestPtr& request, int worker, TimePoint now, Effects* effects) {
  WorkerSlot& slot = slots_[worker];
  queue_.erase({request->submit.priority(), request->id});
  if (request->submitted) ++request->attempt;
  request->submitted = true;
  request->was_heard = false;
  request->worker = worker;
  request->stranded_time.reset();
  const int64_t cached = slot.prefixes.MatchTokens(request->prefix_hashes);
  request->counted_tokens = request->OutstandingTokens(cached);
  request->counted_prompt_tokens = request->counted_tokens - std::max(0, request->submit.max_tokens());
  if (!slot.HasWork()) slot.progress_time = now;
  ++slot.outstanding_requests;
  slot.outstanding_tokens += request->counted_tokens;
  slot.prefixes.Insert(request->prefix_hashes);
  if (!request->submit.session_id().empty()) {
    sessions_.Set(request->submit.session_id(), {worker, slot.life}, now);
    if (now + options_.session_ttl < next_wake_) host_->Wake();
  }
  ToWorker message;
  internal::v1::Submit* submit = message.mutable_submit();
  *submit = request->submit;
  submit->set_id(request->id);
  submit->set_attempt(request->attempt);
  // Workers that others run may have less of the context than the front end knows.
  if (const int left = slot.ready.context_tokens() - submit->prompt_size();
      submit->lower_to_pool() && left > 0 && submit->max_tokens() > left) {
    submit->set_max_tokens(left);
  }
  submit->set_begun(!request->numerics_id.empty());
  submit->set_acknowledge(request->deaths > 0);
  submit->mutable_generated()->Assign(request->generated.begin(), request->generated.end());
  if (request->deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(*request->deadline - now);
    submit->set_time_left_us(std::max<int64_t>(1, left.count()));
  } else {
    submit->set_time_left_us(0);
  }
  slot.link->Queue(std::move(message));
  effects->Flush(slot.link);
}

void DispatchCore::Unassign(RequestState& request) {
  if (request.worker < 0) return;
  WorkerSlot& slot = slots_[request.worker];
  --slot.outstanding_requests;
  slot.outstanding_tokens -= request.counted_tokens;
  request.counted_tokens = request.counted_prompt_tokens = 0;
  request.worker = -1;
}

void DispatchCore::Forget(const RequestPtr& request) {
  request->ended = true;
  queue_.erase({request->submit.priority(), request->id});
  requests_.erase(request->id);
  if (!request->submit.session_id().empty()) sessions_.Touch(request->submit.session_id(), options_.now());
  internal::v1::Submit().Swap(&request->submit);  // the caller may keep the handle for long
}

// The cost of memory processing comes with the last event, one step later.
bool DispatchCore::WantsLastEvent(const RequestState& request) const {
  return request.submit.has_attention() && request.worker >= 0 && slots_[request.worker].connected();
}

void DispatchCore::TellCancel(const RequestState& request, Effects* effects) {
  WorkerSlot& slot = slots_[request.worker];
  if (!slot.connected()) return;
  ToWorker message;
  message.mutable_cancel()->set_id(request.id);
  message.mutable_cancel()->set_attempt(request.attempt);
  slot.link->Queue(std::move(message));
  effects->Flush(slot.link);
}

void DispatchCore::EndRequest(const RequestPtr& request, absl::Status status, Effects* effects) {
  if (request->worker >= 0) {
    if (!request->cancelling) TellCancel(*request, effects);
    Unassign(*request);
  }
  Forget(request);
  request->outbox.emplace_back(std::move(status));
  if (request->delivering) return;
  undelivered_.push_back(request);
  host_->Wake();
}

void DispatchCore::GiveBack(const RequestPtr& request, const absl::Status& status, TimePoint now) {
  WorkerSlot& slot = slots_[request->worker];
  Unassign(*request);
  if (absl::IsUnavailable(status)) {
    // It says so before its heartbeat does.
    if (slot.state == WorkerSlot::State::kReady) {
      slot.state = WorkerSlot::State::kDraining;
      slot.detail = "draining";
      NoticeReadyChange();
    }
  } else {
    slot.refuse_time = now + kRefusalPause;
  }
  Enqueue(request);
  host_->Wake();  // the pause has an end
}

absl::Status DispatchCore::TakeEvent(WorkerSlot& slot, Event* event, TimePoint now,
                                     std::vector<Delivery>* deliveries) {
  const auto it = requests_.find(event->id());
  if (it == requests_.end()) return absl::OkStatus();  // ended here meanwhile
  const RequestPtr request = it->second;
  if (request->worker < 0 || &slots_[request->worker] != &slot || request->attempt != event->attempt()) {
    return absl::OkStatus();
  }
  request->was_heard = true;
  MNEMO_RETURN_IF_ERROR(request->Accept(event));
  const bool tells_something = event->token_ids_size() > 0 || event->prompt_ids_size() > 0;
  if (tells_something && request->numerics_id.empty()) request->numerics_id = slot.ready.numerics_id();
  if (event->token_ids_size() > 0) {
    const int64_t worked_off =
        std::min(request->counted_tokens, request->counted_prompt_tokens + event->token_ids_size());
    request->counted_prompt_tokens = 0;
    request->counted_tokens -= worked_off;
    slot.outstanding_tokens -= worked_off;
  }
  Delivery delivery;
  if (event->has_finish()) {
    slot.refuse_time = TimePoint();
    if (event->finish().reason() == Finish::REASON_ERROR) {
      const absl::Status status(static_cast<absl::StatusCode>(event->finish().status_code()),
                                event->finish().status_message());
      const bool refused = event->finish().refused();
      event->clear_finish();
      if (!request->cancelling) {
        // Its work is part of what the request cost; its times count for nothing.
        internal::v1::Summary spent;
        spent.mutable_memory_steps()->Swap(event->mutable_summary()->mutable_memory_steps());
        event->mutable_summary()->Swap(&spent);
      }
      // CANCELLED: not by us, who have forgotten what we cancel or wait for it.
      if (request->cancelling) {
        delivery.done = absl::CancelledError("cancelled");
      } else if (!refused && (absl::IsResourceExhausted(status) || absl::IsUnavailable(status) ||
                              absl::IsCancelled(status))) {
        GiveBack(request, status, now);
      } else {
        delivery.done = status.ok() ? Internal("the worker sent an error without a code") : status;
      }
    } else {
      delivery.done = absl::OkStatus();
    }
  }
  if (delivery.done) {
    Unassign(*request);
    Forget(request);
  }
  const bool tells_memory = event->has_summary() && event->summary().memory_steps_size() > 0;
  if (tells_something || event->has_finish() || tells_memory ||
      (request->cancelling && event->has_summary())) {
    delivery.event = event;
  }
  if (delivery.event == nullptr && !delivery.done) return absl::OkStatus();
  if (request->delivering) {
    if (delivery.event != nullptr) request->outbox.emplace_back(*event);
    if (delivery.done) request->outbox.emplace_back(*delivery.done);
    return absl::OkStatus();
  }
  request->delivering = true;
  delivery.request = request;
  deliveries->push_back(std::move(delivery));
  return absl::OkStatus();
}

void DispatchCore::OnLinkEvents(int worker, uint64_t life, internal::v1::Events* events) {
  Effects effects;
  std::string device;  // that spans of the worker's own are about
  std::vector<Delivery> deliveries;
  deliveries.reserve(static_cast<size_t>(events->events_size()));
  {
    std::lock_guard lock(mutex_);
    WorkerSlot* slot = LiveSlot(worker, life);
    if (slot == nullptr) return;
    const TimePoint now = options_.now();
    slot->heartbeat_time = slot->progress_time = now;
    if (events->spans_size() > 0) device = slot->ready.device();
    const int outstanding = slot->outstanding_requests;
    for (Event& event : *events->mutable_events()) {
      const absl::Status status = TakeEvent(*slot, &event, now, &deliveries);
      if (status.ok()) continue;
      EndLife(worker, std::string(status.message()), Death::kYes, now, &effects);
      break;
    }
    if (slot->outstanding_requests < outstanding || !slot->connected()) Schedule(now, &effects);
  }
  Run(effects);
  // Before the events: a Final that one of them brings wants them.
  if (options_.observer != nullptr && events->spans_size() > 0)
    options_.observer->OnSpans(device, events->spans());
  Deliver(std::move(deliveries));
}

void DispatchCore::Deliver(std::vector<Delivery> deliveries) {
  if (deliveries.empty()) return;
  for (Delivery& delivery : deliveries) {
    RequestState& request = *delivery.request;
    if (delivery.event != nullptr) request.sink->OnEvent(*delivery.event);
    if (delivery.done) TellDone(request, *delivery.done);
  }
  std::vector<RequestPtr> more;
  {
    std::lock_guard lock(mutex_);
    for (Delivery& delivery : deliveries) {
      if (delivery.request->outbox.empty()) {
        delivery.request->delivering = false;
      } else {
        more.push_back(std::move(delivery.request));
      }
    }
  }
  for (const RequestPtr& request : more) DrainOutbox(request);
}

// `replays` and `generated` do not change any more once the request has ended.
void DispatchCore::TellDone(RequestState& request, const absl::Status& status) {
  if (options_.observer != nullptr) {
    options_.observer->OnRequestEnd(request.id, static_cast<int>(request.generated.size()));
  }
  const std::shared_ptr<DispatchSink> sink = std::move(request.sink);
  sink->OnDone(status, request.replays);
}

// The caller has set `delivering`.
void DispatchCore::DrainOutbox(const RequestPtr& request) {
  while (true) {
    std::vector<std::variant<Event, absl::Status>> batch;
    {
      std::lock_guard lock(mutex_);
      batch.swap(request->outbox);
      if (batch.empty()) {
        request->delivering = false;
        return;
      }
    }
    for (const auto& entry : batch) {
      if (const Event* event = std::get_if<Event>(&entry)) {
        request->sink->OnEvent(*event);
      } else {
        TellDone(*request, std::get<absl::Status>(entry));
      }
    }
  }
}

void DispatchCore::Run(const Effects& effects) {
  for (const std::shared_ptr<WorkerLink>& link : effects.flushes) link->Flush();
  for (const std::shared_ptr<WorkerLink>& link : effects.closes) link->Close();
  for (const std::string& warning : effects.warnings) spdlog::warn("{}", warning);
  if (options_.on_replay) {
    for (const std::string& worker : effects.replays) options_.on_replay(worker);
  }
}

}  // namespace mnemo::dispatch
