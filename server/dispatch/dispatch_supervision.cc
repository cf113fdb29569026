// The part of DispatchCore that starts workers, watches over them and deals with their ends.
#include <absl/strings/str_cat.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <csignal>

#include "server/dispatch/dispatch_core.h"
#include "server/link/frame.h"

namespace mnemo::dispatch {
namespace {

using internal::v1::ToWorker;
using std::chrono::milliseconds;

// After SIGTERM; a worker whose requests are all cancelled has nothing to finish.
constexpr milliseconds kStopTime{3000};
constexpr milliseconds kIdleTick{60000};
constexpr int kMaxDeaths = 2;
// Workers that died before they said that they took it: it may be what they cannot even read.
constexpr int kMaxUntaken = 4;
// A worker that waits for a core is given so many times the bound, and once more.
constexpr int kMaxGraceFactor = 9;

}  // namespace

void DispatchCore::OnListening(int worker, uint64_t life) {
  std::lock_guard lock(mutex_);
  WorkerSlot& slot = slots_[worker];
  if (slot.life != life || slot.state != WorkerSlot::State::kStarting) return;
  slot.listening = true;
  host_->Wake();
}

void DispatchCore::OnExited(int worker, uint64_t life, const std::string& how) {
  Effects effects;
  {
    std::lock_guard lock(mutex_);
    WorkerSlot& slot = slots_[worker];
    if (slot.life != life || !slot.process_alive) return;
    slot.process_alive = false;
    if (slot.state == WorkerSlot::State::kEnding) {
      slot.detail += ", " + how;
    } else {
      EndLife(worker, how, Death::kYes, options_.now(), &effects);
    }
    Schedule(options_.now(), &effects);
    host_->Wake();
  }
  Run(effects);
}

void DispatchCore::OnLinkReady(int worker, uint64_t life, internal::v1::Ready ready) {
  Effects effects;
  {
    std::lock_guard lock(mutex_);
    WorkerSlot& slot = slots_[worker];
    if (slot.life != life || slot.state != WorkerSlot::State::kStarting) return;
    const TimePoint now = options_.now();
    if (ready.protocol() != link::kProtocolVersion) {
      EndLife(worker,
              fmt::format("protocol: the worker speaks version {}, this server version {}", ready.protocol(),
                          link::kProtocolVersion),
              Death::kNo, now, &effects);
    } else if (!options_.model_id.empty() && ready.model_id() != options_.model_id) {
      slot.refusal = fmt::format("it serves {}, and this server {}", ready.model_id(), options_.model_id);
      EndLife(worker, slot.refusal, Death::kNo, now, &effects);
    } else {
      spdlog::info("{}: ready, {} on {}", slot.spec.name, ready.model_id(), ready.numerics_id());
      slot.BecomeReady(std::move(ready), now);
      NoticeReadyChange();
      Schedule(now, &effects);
      host_->Wake();
    }
  }
  Run(effects);
}

void DispatchCore::OnLinkHeartbeat(int worker, uint64_t life, const internal::v1::Heartbeat& heartbeat) {
  std::lock_guard lock(mutex_);
  WorkerSlot* slot = LiveSlot(worker, life);
  if (slot == nullptr) return;
  const WorkerSlot::State before = slot->state;
  slot->TakeHeartbeat(heartbeat, options_.now());
  if (slot->state != before) NoticeReadyChange();
}

void DispatchCore::OnLinkClosed(int worker, uint64_t life, const absl::Status& status) {
  Effects effects;
  {
    std::lock_guard lock(mutex_);
    WorkerSlot& slot = slots_[worker];
    if (slot.life != life || !slot.link_open) return;
    slot.link_open = false;
    if (slot.state != WorkerSlot::State::kEnding) {
      const Death death = absl::IsAborted(status) ? Death::kNo : Death::kYes;
      EndLife(worker, fmt::format("connection closed: {}", std::string(status.message())), death,
              options_.now(), &effects);
      Schedule(options_.now(), &effects);
    }
    host_->Wake();
  }
  Run(effects);
}

void DispatchCore::EndLife(int worker, const std::string& why, Death death, TimePoint now, Effects* effects) {
  WorkerSlot& slot = slots_[worker];
  std::vector<RequestPtr> lost;
  for (const auto& [id, request] : requests_) {
    if (request->worker == worker) lost.push_back(request);
  }
  // A worker that ends the session on purpose goes by itself.
  const TimePoint kill_time = death == Death::kNo && slot.connected() ? now + kStopTime : now;
  slot.EndLife(why, options_.timing, now, kill_time);
  for (const RequestPtr& request : lost) {
    request->worker = -1;
    request->counted_tokens = request->counted_prompt_tokens = 0;
    if (request->cancelling) {
      EndRequest(request, absl::CancelledError("cancelled"), effects);
      continue;
    }
    if (death == Death::kYes) {
      ++(request->deaths == 0 || request->was_heard ? request->deaths : request->untaken);
      absl::StrAppend(&request->death_details, request->death_details.empty() ? "" : "; ", slot.spec.name,
                      ": ", why);
    }
    if (request->deaths >= kMaxDeaths || request->untaken >= kMaxUntaken) {
      EndRequest(request,
                 Internal("{} workers ended while the request ran on them ({})",
                          request->deaths + request->untaken, request->death_details),
                 effects);
      continue;
    }
    ++request->replays;
    effects->replays.push_back(slot.spec.name);
    Enqueue(request);
  }
  if (!stopping_) {
    effects->warnings.push_back(fmt::format("{}: {}; {} requests were on it, next start in {} ms",
                                            slot.spec.name, why, lost.size(), slot.backoff.last().count()));
  }
  NoticeReadyChange();
  host_->Wake();
}

void DispatchCore::Stop() {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  stopping_ = true;
  const TimePoint now = options_.now();
  Effects effects;  // links are closed, so nothing needs to be written
  std::vector<RequestPtr> requests;
  for (const auto& [id, request] : requests_) requests.push_back(request);
  for (const RequestPtr& request : requests) {
    request->worker = -1;
    EndRequest(request, Unavailable("the server is stopping"), &effects);
  }
  for (WorkerSlot& slot : slots_) {
    if (slot.state == WorkerSlot::State::kWaiting) slot.state = WorkerSlot::State::kStopped;
    if (slot.state == WorkerSlot::State::kStopped || slot.state == WorkerSlot::State::kEnding) continue;
    slot.EndLife("stopped", options_.timing, now, now + kStopTime);
    slot.term_due = true;
  }
  NoticeReadyChange();
  host_->Wake();
}

bool DispatchCore::stopped() const {
  std::lock_guard lock(mutex_);
  return stopping_ && undelivered_.empty() &&
         std::all_of(slots_.begin(), slots_.end(),
                     [](const WorkerSlot& slot) { return slot.state == WorkerSlot::State::kStopped; });
}

TimePoint DispatchCore::Tick() {
  Effects effects;
  std::vector<int> spawns, connects;
  std::vector<std::pair<int, int>> signals;  // worker, number
  std::vector<std::pair<int, uint64_t>> lives;
  std::vector<RequestPtr> deliver;
  {
    std::lock_guard lock(mutex_);
    const TimePoint now = options_.now();
    AdjustForSleep(now);
    for (size_t i = 0; i < slots_.size(); ++i) {
      StepSlot(static_cast<int>(i), now, &effects, &spawns, &connects, &signals);
    }
    ExpireRequests(now, &effects);
    ForgetIdleSessions(now, &effects);
    Schedule(now, &effects);
    for (RequestPtr& request : undelivered_) {
      if (request->delivering) continue;  // whoever does it finds the outbox
      request->delivering = true;
      deliver.push_back(std::move(request));
    }
    undelivered_.clear();
  }
  Run(effects);
  for (const auto& [worker, number] : signals) host_->Signal(worker, slots_[worker].life, number);
  for (const int worker : spawns) SpawnWorker(worker);
  for (const int worker : connects) ConnectWorker(worker);
  for (const RequestPtr& request : deliver) DrainOutbox(request);
  TellReadyChange();
  std::lock_guard lock(mutex_);
  next_wake_ = NextWake(options_.now());
  return next_wake_;
}

// Lives are begun on this thread alone, so that `life` can be read without the lock here.
void DispatchCore::SpawnWorker(int worker) {
  const uint64_t life = slots_[worker].life;
  const absl::StatusOr<int> pid = host_->Spawn(worker, life);
  Effects effects;
  {
    std::lock_guard lock(mutex_);
    WorkerSlot& slot = slots_[worker];
    if (pid.ok()) {
      slot.pid = *pid;
      slot.process_alive = true;
    } else if (slot.state == WorkerSlot::State::kStarting) {
      EndLife(worker, std::string(pid.status().message()), Death::kNo, options_.now(), &effects);
    }
  }
  Run(effects);
}

void DispatchCore::ConnectWorker(int worker) {
  const uint64_t life = slots_[worker].life;
  const std::shared_ptr<WorkerLink> link = host_->Connect(worker, life);
  if (link == nullptr) return OnLinkClosed(worker, life, ResourceExhausted("there is no thread for it"));
  {
    std::lock_guard lock(mutex_);
    slots_[worker].link = link;
    ToWorker message;
    message.mutable_hello()->set_protocol(link::kProtocolVersion);
    message.mutable_hello()->set_heartbeat_interval_ms(
        static_cast<uint32_t>(options_.timing.heartbeat_interval_ms));
    message.mutable_hello()->set_build(options_.version);
    message.mutable_hello()->set_event_interval_ms(static_cast<uint32_t>(options_.event_interval_ms));
    message.mutable_hello()->set_wants_spans(options_.observer != nullptr &&
                                             slots_[worker].spec.IsOfThisMachine());
    link->Queue(std::move(message));
  }
  link->Flush();
}

void DispatchCore::StepSlot(int worker, TimePoint now, Effects* effects, std::vector<int>* spawns,
                            std::vector<int>* connects, std::vector<std::pair<int, int>>* signals) {
  WorkerSlot& slot = slots_[worker];
  if (slot.state == WorkerSlot::State::kWaiting && now >= slot.resume_time) {
    slot.BeginLife(options_.timing, now);
    if (slot.spec.is_child) spawns->push_back(worker);
  }
  if (slot.state == WorkerSlot::State::kStarting) {
    if (slot.listening && !slot.link_open) {
      slot.link_open = true;
      connects->push_back(worker);
    } else if (now >= slot.start_deadline) {
      EndLife(worker, fmt::format("not ready within {} ms", options_.timing.start_timeout_ms), Death::kNo,
              now, effects);
    }
  }
  if (slot.connected() && IsHung(worker, now)) {
    const milliseconds bound(options_.timing.hang_timeout_ms);
    const char* what = now - slot.heartbeat_time >= bound ? "no heartbeat" : "no progress with work to do";
    EndLife(worker, fmt::format("hung: {} for {} ms", what, (bound + slot.grace).count()), Death::kYes, now,
            effects);
  }
  if (slot.state != WorkerSlot::State::kEnding) return;
  if (slot.link_open && !slot.close_sent && slot.link != nullptr) {
    slot.close_sent = true;
    effects->closes.push_back(slot.link);
  }
  if (slot.process_alive && slot.term_due) {
    slot.term_due = false;
    signals->emplace_back(worker, SIGTERM);
  }
  if (slot.process_alive && !slot.killed && now >= slot.kill_time) {
    slot.killed = true;
    signals->emplace_back(worker, SIGKILL);
  }
  if (slot.process_alive || slot.link_open) return;
  slot.link.reset();
  slot.state = stopping_ ? WorkerSlot::State::kStopped : WorkerSlot::State::kWaiting;
}

// Hang: a worker shows no life, unless it would run and is not let: then its threads wait for a core,
// which a stopped or blocked process does not. Such a worker gets time again and again, but not for ever.
bool DispatchCore::IsHung(int worker, TimePoint now) {
  WorkerSlot& slot = slots_[worker];
  const milliseconds timeout(options_.timing.hang_timeout_ms);
  if (now < slot.HangTime(timeout / 2)) {
    slot.core_wait.reset();
    slot.grace = milliseconds(0);
    return false;
  }
  if (!slot.core_wait) slot.core_wait = host_->CoreWait(worker, slot.life);
  if (now < slot.HangTime(timeout)) return false;
  const auto wait = host_->CoreWait(worker, slot.life);
  if (wait - *slot.core_wait < timeout / 4 || slot.grace >= kMaxGraceFactor * timeout) return true;
  slot.core_wait = wait;
  slot.grace += timeout / 2;
  return false;
}

// When this very process was stopped or starved, no worker is to blame for what was not heard meanwhile.
void DispatchCore::AdjustForSleep(TimePoint now) {
  const milliseconds tolerance(options_.timing.hang_timeout_ms / 2);
  const TimePoint last_tick = std::exchange(last_tick_, now);
  if (next_wake_ == TimePoint() || now < next_wake_ + tolerance) return;
  const auto lost = now - last_tick;
  for (WorkerSlot& slot : slots_) {
    slot.heartbeat_time += lost;
    slot.progress_time += lost;
    slot.start_deadline += lost;
  }
}

bool DispatchCore::AnyWorkerFor(const RequestState& request) const {
  return std::any_of(slots_.begin(), slots_.end(), [&](const WorkerSlot& slot) {
    return slot.state == WorkerSlot::State::kReady &&
           (request.numerics_id.empty() || request.numerics_id == slot.ready.numerics_id());
  });
}

void DispatchCore::ExpireRequests(TimePoint now, Effects* effects) {
  const milliseconds bound(options_.timing.no_worker_timeout_ms);
  std::vector<std::pair<RequestPtr, absl::Status>> ended;
  for (const auto& [id, request] : requests_) {
    if (request->deadline && now >= *request->deadline) {
      ended.emplace_back(request, absl::DeadlineExceededError("the deadline has passed"));
      continue;
    }
    if (request->worker >= 0) continue;
    if (AnyWorkerFor(*request)) {
      request->stranded_time.reset();
    } else if (!request->stranded_time) {
      request->stranded_time = now;
    } else if (now >= *request->stranded_time + bound) {
      std::string refusals;
      for (const WorkerSlot& slot : slots_) {
        if (!slot.refusal.empty()) absl::StrAppend(&refusals, "; ", slot.spec.name, ": ", slot.refusal);
      }
      ended.emplace_back(request, Unavailable("no worker{} within {} ms{}",
                                              request->numerics_id.empty() ? "" : " that could go on with it",
                                              options_.timing.no_worker_timeout_ms, refusals));
    }
  }
  for (auto& [request, status] : ended) EndRequest(request, std::move(status), effects);
}

TimePoint DispatchCore::NextWake(TimePoint now) const {
  TimePoint wake = std::min<TimePoint>(now + kIdleTick, sessions_.NextEnd());
  const milliseconds hang_timeout(options_.timing.hang_timeout_ms);
  for (const WorkerSlot& slot : slots_) {
    switch (slot.state) {
      case WorkerSlot::State::kWaiting:
        wake = std::min(wake, slot.resume_time);
        break;
      case WorkerSlot::State::kStarting:
        wake = std::min(wake, slot.start_deadline);
        break;
      case WorkerSlot::State::kReady:
      case WorkerSlot::State::kDraining:
        // Half-way IsHung takes a measure.
        wake = std::min(wake, slot.HangTime(slot.core_wait ? hang_timeout : hang_timeout / 2));
        if (!queue_.empty() && slot.refuse_time > now) wake = std::min(wake, slot.refuse_time);
        break;
      case WorkerSlot::State::kEnding:
        if (!slot.process_alive && !slot.link_open) wake = now;
        if (slot.process_alive && !slot.killed) wake = std::min(wake, slot.kill_time);
        break;
      case WorkerSlot::State::kStopped:
        break;
    }
  }
  const milliseconds bound(options_.timing.no_worker_timeout_ms);
  for (const auto& [id, request] : requests_) {
    if (request->deadline) wake = std::min(wake, *request->deadline);
    if (request->stranded_time) wake = std::min(wake, *request->stranded_time + bound);
  }
  return wake;
}

int DispatchCore::ReadyWorkers() const {
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const WorkerSlot& slot) {
    return slot.state == WorkerSlot::State::kReady;
  }));
}

void DispatchCore::NoticeReadyChange() {
  if (ready_callback_ != nullptr && ReadyWorkers() != told_ready_) host_->Wake();
}

void DispatchCore::OnReadyChange(std::function<void(int)> callback) {
  std::lock_guard lock(mutex_);
  ready_callback_ = std::make_shared<const std::function<void(int)>>(std::move(callback));
  told_ready_ = -1;
  host_->Wake();
}

void DispatchCore::TellReadyChange() {
  std::shared_ptr<const std::function<void(int)>> callback;
  int ready = 0;
  {
    std::lock_guard lock(mutex_);
    ready = ReadyWorkers();
    if (ready_callback_ == nullptr || ready == told_ready_) return;
    told_ready_ = ready;
    callback = ready_callback_;
  }
  if (*callback) (*callback)(ready);
}

}  // namespace mnemo::dispatch
