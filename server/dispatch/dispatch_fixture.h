// A world for DispatchCore in tests: workers that say what the test has them say, and a clock that it moves.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "server/dispatch/dispatch_core.h"

namespace mnemo::dispatch::testing {

class FakeLink final : public WorkerLink {
 public:
  void Queue(internal::v1::ToWorker message) override {
    std::lock_guard lock(mutex_);
    queued_.push_back(std::move(message));
  }
  void Flush() override {
    std::lock_guard lock(mutex_);
    for (internal::v1::ToWorker& message : queued_) sent_.push_back(std::move(message));
    queued_.clear();
  }
  void Close() override { close_called = true; }
  // Messages written since the last call.
  std::vector<internal::v1::ToWorker> TakeSent() {
    std::lock_guard lock(mutex_);
    return std::exchange(sent_, {});
  }
  std::atomic<bool> close_called{false};

 private:
  std::mutex mutex_;
  std::vector<internal::v1::ToWorker> queued_, sent_;
};

class FakeHost final : public WorkerHost {
 public:
  absl::StatusOr<int> Spawn(int worker, uint64_t life) override {
    spawns.emplace_back(worker, life);
    if (!spawn_status.ok()) return spawn_status;
    return 100 * (worker + 1) + static_cast<int>(life);
  }
  std::shared_ptr<WorkerLink> Connect(int worker, uint64_t life) override {
    connects.emplace_back(worker, life);
    if (lacks_threads) return nullptr;
    const auto link = std::make_shared<FakeLink>();
    std::lock_guard lock(mutex_);
    links_[worker] = link;
    return link;
  }
  void Signal(int worker, uint64_t life, int number) override { signals.emplace_back(worker, life, number); }
  std::chrono::nanoseconds CoreWait(int, uint64_t) override { return core_wait; }
  void Wake() override { ++wakes; }
  std::shared_ptr<FakeLink> link(int worker) {
    std::lock_guard lock(mutex_);
    return links_[worker];
  }

  std::vector<std::pair<int, uint64_t>> spawns, connects;
  std::vector<std::tuple<int, uint64_t, int>> signals;
  std::atomic<int> wakes{0};
  std::chrono::nanoseconds core_wait{0};
  absl::Status spawn_status;
  bool lacks_threads = false;

 private:
  std::mutex mutex_;
  std::map<int, std::shared_ptr<FakeLink>> links_;
};

// Records, and complains about a repeated or skipped index, two calls at once, or a word after the end.
class RecordingSink final : public DispatchSink {
 public:
  void OnEvent(const internal::v1::Event& event) override {
    if (busy_.exchange(true)) Complain("two calls at once");
    if (done_) Complain("an event after the end");
    std::lock_guard lock(mutex_);
    if (event.token_ids_size() > 0 && event.first_index() != static_cast<int>(ids_.size())) {
      complaints_ += "wrong output index; ";
    }
    ids_.insert(ids_.end(), event.token_ids().begin(), event.token_ids().end());
    if (event.prompt_ids_size() > 0) {
      if (event.prompt_first() != static_cast<int>(prompt_ids_.size())) complaints_ += "wrong position; ";
      if (event.prompt_details_size() != event.prompt_ids_size()) complaints_ += "details missing; ";
    }
    prompt_ids_.insert(prompt_ids_.end(), event.prompt_ids().begin(), event.prompt_ids().end());
    ++events_;
    if (event.has_summary()) ++summaries_;
    if (event.has_finish()) finished_ = true;
    std::function<void()> hook = on_event;
    if (hook) hook();
    busy_ = false;
  }
  void OnDone(const absl::Status& status, int replays) override {
    if (busy_.exchange(true)) Complain("two calls at once");
    if (done_.exchange(true)) Complain("a second end");
    std::lock_guard lock(mutex_);
    status_ = status;
    replays_ = replays;
    busy_ = false;
  }

  bool done() const { return done_; }
  bool finished() const { return Locked(finished_); }
  absl::Status status() const { return Locked(status_); }
  int replays() const { return Locked(replays_); }
  std::vector<int> ids() const { return Locked(ids_); }
  std::vector<int> prompt_ids() const { return Locked(prompt_ids_); }
  int events() const { return Locked(events_); }
  int summaries() const { return Locked(summaries_); }
  std::string complaints() const { return Locked(complaints_); }
  std::function<void()> on_event;  // set before the request starts

 private:
  template <typename T>
  T Locked(const T& value) const {
    std::lock_guard lock(mutex_);
    return value;
  }
  void Complain(const std::string& what) {
    std::lock_guard lock(mutex_);
    complaints_ += what + "; ";
  }
  mutable std::mutex mutex_;
  std::atomic<bool> busy_{false}, done_{false};
  std::vector<int> ids_, prompt_ids_;
  int events_ = 0, summaries_ = 0, replays_ = -1;
  bool finished_ = false;
  absl::Status status_;
  std::string complaints_;
};

class World {
 public:
  explicit World(int workers, bool are_children = true, std::function<void(CoreOptions&)> change = {}) {
    CoreOptions options;
    for (int i = 0; i < workers; ++i) {
      const std::string name = "worker" + std::to_string(i);
      options.workers.push_back({name, "unix:/" + name, are_children});
    }
    options.now = [this] { return TimePoint(std::chrono::milliseconds(now_ms.load())); };
    options.on_replay = [this](const std::string& worker) { replays.push_back(worker); };
    options.model_id = "m";
    if (change) change(options);
    core = std::make_shared<DispatchCore>(options, &host);
    core->Tick();
  }

  // Moves the clock in steps that a supervising thread would have woken up for.
  void Advance(int ms) {
    for (const int64_t end = now_ms + ms; now_ms < end;) {
      now_ms += std::min<int64_t>(10, end - now_ms);
      core->Tick();
    }
  }
  uint64_t Life(int worker) { return host.connects.empty() ? 0 : lives[worker]; }

  // Spawned or not, the worker's present life goes on to ready.
  void MakeReady(int worker, const std::string& numerics = "n1", int max_running = 4) {
    const uint64_t life = ++lives[worker];
    core->OnListening(worker, life);
    core->Tick();
    host.link(worker)->TakeSent();
    internal::v1::Ready ready;
    ready.set_protocol(1);
    ready.set_model_id("m");
    ready.set_device("cpu0");
    ready.set_numerics_id(numerics);
    ready.set_max_running(max_running);
    ready.set_context_tokens(1000);
    ready.set_kv_pages_total(100);
    core->OnLinkReady(worker, life, ready);
    core->Tick();
  }
  void Heartbeat(int worker, uint64_t progress, int running = 0) {
    internal::v1::Heartbeat heartbeat;
    heartbeat.set_progress(progress);
    heartbeat.set_running(running);
    core->OnLinkHeartbeat(worker, lives[worker], heartbeat);
  }
  // Process and connection end at once.
  void Kill(int worker, const std::string& how = "signal 9") {
    core->OnLinkClosed(worker, lives[worker], absl::UnavailableError("gone"));
    core->OnExited(worker, lives[worker], how);
    core->Tick();
  }
  std::vector<internal::v1::Submit> Submits(int worker) {
    std::vector<internal::v1::Submit> submits;
    for (const internal::v1::ToWorker& message : host.link(worker)->TakeSent()) {
      if (message.has_submit()) submits.push_back(message.submit());
    }
    return submits;
  }
  std::pair<std::shared_ptr<Dispatch>, std::shared_ptr<RecordingSink>> Start(int max_tokens = 100,
                                                                             int priority = 0,
                                                                             int deadline_ms = 0) {
    internal::v1::Submit submit;
    for (int i = 0; i < 10; ++i) submit.add_prompt(i);
    submit.set_max_tokens(max_tokens);
    submit.set_priority(priority);
    return Start(submit, std::make_shared<RecordingSink>(), deadline_ms);
  }
  std::pair<std::shared_ptr<Dispatch>, std::shared_ptr<RecordingSink>> Start(
      const internal::v1::Submit& submit, std::shared_ptr<RecordingSink> sink, int deadline_ms = 0) {
    std::optional<TimePoint> deadline;
    if (deadline_ms > 0) deadline = TimePoint(std::chrono::milliseconds(now_ms + deadline_ms));
    return {core->Start(submit, deadline, sink), sink};
  }
  // An event of the attempt that `submit` began: `count` tokens from `first` on, whose ids are 1000 + index.
  static internal::v1::Event Tokens(const internal::v1::Submit& submit, int first, int count,
                                    bool finish = false) {
    internal::v1::Event event;
    event.set_id(submit.id());
    event.set_attempt(submit.attempt());
    event.set_first_index(first);
    for (int i = 0; i < count; ++i) event.add_token_ids(1000 + first + i);
    if (first == submit.generated_size()) event.mutable_summary();
    if (finish) event.mutable_finish()->set_reason(internal::v1::Finish::REASON_LENGTH);
    return event;
  }
  static internal::v1::Event Error(const internal::v1::Submit& submit, absl::StatusCode code) {
    internal::v1::Event event;
    event.set_id(submit.id());
    event.set_attempt(submit.attempt());
    event.mutable_finish()->set_reason(internal::v1::Finish::REASON_ERROR);
    event.mutable_finish()->set_status_code(static_cast<int>(code));
    event.mutable_finish()->set_status_message("as the worker says");
    return event;
  }
  void Send(int worker, internal::v1::Event event) { SendAs(worker, lives[worker], std::move(event)); }
  void SendAs(int worker, uint64_t life, internal::v1::Event event) {
    internal::v1::Events events;
    *events.add_events() = std::move(event);
    core->OnLinkEvents(worker, life, &events);
  }

  FakeHost host;
  std::atomic<int64_t> now_ms{1000000};
  std::vector<std::string> replays;
  std::map<int, uint64_t> lives;
  std::shared_ptr<DispatchCore> core;
};

// 1000, 1001, ... : what Tokens sends.
inline std::vector<int> Count(int n) {
  std::vector<int> ids;
  for (int i = 0; i < n; ++i) ids.push_back(1000 + i);
  return ids;
}

}  // namespace mnemo::dispatch::testing
