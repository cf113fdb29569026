#include "server/dispatch/worker_slot.h"

#include <algorithm>
#include <utility>

namespace mnemo::dispatch {
namespace {

using std::chrono::milliseconds;

constexpr int kMaxPrefixEntries = 1 << 16;

}  // namespace

void WorkerCounters::Add(const internal::v1::Heartbeat& process) {
  preemptions += process.preemptions();
  prefix_query_tokens += process.prefix_query_tokens();
  prefix_hit_tokens += process.prefix_hit_tokens();
}

bool WorkerSpec::IsOfThisMachine() const {
  return address.starts_with("unix:") || address.starts_with("127.") || address.starts_with("localhost:") ||
         address.starts_with("[::1]:");
}

WorkerSlot::WorkerSlot(WorkerSpec worker_spec) : spec(std::move(worker_spec)) {}

TimePoint WorkerSlot::HangTime(milliseconds timeout) const {
  const TimePoint alive = HasWork() ? std::min(heartbeat_time, progress_time) : heartbeat_time;
  return alive + grace + timeout;
}

void WorkerSlot::BeginLife(const config::Config::Workers& timing, TimePoint now) {
  MNEMO_CHECK(state == State::kWaiting && link == nullptr && !process_alive && !link_open);
  ++life;
  if (life > 1 && spec.is_child) ++restarts;
  state = State::kStarting;
  listening = !spec.is_child;
  close_sent = term_due = killed = false;
  start_deadline = now + milliseconds(timing.start_timeout_ms);
}

void WorkerSlot::BecomeReady(internal::v1::Ready new_ready, TimePoint now) {
  if (spec.is_child) BeginProcess();
  ready = std::move(new_ready);
  heartbeat.Clear();
  state = State::kReady;
  detail.clear();
  refusal.clear();
  ready_time = heartbeat_time = progress_time = now;
  refuse_time = TimePoint();
  const int64_t pages = std::clamp<int64_t>(ready.kv_pages_total(), 1, kMaxPrefixEntries / 2);
  prefixes = PrefixTable(static_cast<int>(2 * pages));
}

void WorkerSlot::BeginProcess() {
  ended_processes.Add(counted);
  counted.Clear();
}

void WorkerSlot::TakeHeartbeat(const internal::v1::Heartbeat& newest, TimePoint now) {
  const bool had_work = HasWork();
  if (newest.progress() != heartbeat.progress()) progress_time = now;
  // A worker that someone else starts may be the same process after its connection broke.
  if (newest.steps() < counted.steps()) BeginProcess();
  counted = newest;
  heartbeat = newest;
  if (!had_work && HasWork()) progress_time = now;
  heartbeat_time = now;
  if (newest.draining() && state == State::kReady) {
    state = State::kDraining;
    detail = "draining";
  }
}

void WorkerSlot::EndLife(const std::string& why, const config::Config::Workers& timing, TimePoint now,
                         TimePoint when_killed) {
  resume_time = now + backoff.Next(connected() ? now - ready_time : std::chrono::nanoseconds(0),
                                   milliseconds(timing.restart_backoff_ms),
                                   milliseconds(timing.restart_backoff_max_ms));
  kill_time = when_killed;
  state = State::kEnding;
  detail = why;
  outstanding_requests = 0;
  outstanding_tokens = 0;
  heartbeat.Clear();
}

WorkerSnapshot WorkerSlot::Snapshot() const {
  WorkerSnapshot snapshot;
  snapshot.name = spec.name;
  snapshot.address = spec.address;
  switch (state) {
    case State::kStarting:
      snapshot.state = WorkerSnapshot::State::kStarting;
      break;
    case State::kReady:
      snapshot.state = WorkerSnapshot::State::kReady;
      break;
    case State::kDraining:
      snapshot.state = WorkerSnapshot::State::kDraining;
      break;
    case State::kWaiting:
    case State::kEnding:
    case State::kStopped:
      // Before its first life a worker is on its way, not down.
      snapshot.state = life == 0 ? WorkerSnapshot::State::kStarting : WorkerSnapshot::State::kDown;
      break;
  }
  snapshot.detail = detail;
  snapshot.pid = process_alive ? pid : 0;
  snapshot.restarts = restarts;
  snapshot.requests_running = outstanding_requests;
  if (connected()) snapshot.ready = ready;
  snapshot.heartbeat = heartbeat;
  snapshot.counters = ended_processes;
  snapshot.counters.Add(counted);
  return snapshot;
}

}  // namespace mnemo::dispatch
