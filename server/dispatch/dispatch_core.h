// The dispatcher's state machine: requests, workers, replay. No gRPC, no processes, no clock of its own, so
// that every order of events can be tested.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "server/dispatch/dispatcher.h"
#include "server/dispatch/link.h"
#include "server/dispatch/request_state.h"
#include "server/dispatch/session_map.h"
#include "server/dispatch/worker_slot.h"

namespace mnemo::dispatch {

struct CoreOptions {
  std::vector<WorkerSpec> workers;
  config::Config::Workers timing;
  int max_sessions = 4096;
  std::chrono::milliseconds session_ttl{600000};  // a session without a request for so long is forgotten
  int event_interval_ms = 0;                      // see Hello
  std::string model_id;  // a worker that serves another model is not used; empty = any
  std::string version;
  std::function<TimePoint()> now = std::chrono::steady_clock::now;
  std::function<void(const std::string& worker)> on_replay;
  WorkObserver* observer = nullptr;
};

// Thread-safe. One mutex, held briefly; sinks, links, the host and callbacks are called without it. Events of
// one request are delivered by one thread at a time: a thread that finds another one at it leaves its event
// behind.
class DispatchCore final : public LinkListener, public std::enable_shared_from_this<DispatchCore> {
 public:
  // `host` outlives the last call of Tick, and of the links.
  DispatchCore(CoreOptions options, WorkerHost* host);

  // As in Dispatcher. The sink may hear before Start returns, but not from within Start.
  std::shared_ptr<Dispatch> Start(internal::v1::Submit submit, std::optional<TimePoint> deadline,
                                  std::shared_ptr<DispatchSink> sink);
  bool EndSession(const std::string& session_id);
  std::vector<WorkerSnapshot> Workers() const;
  std::vector<RunningRequest> RunningRequests() const;
  std::vector<int> ProcessIds() const;
  void OnReadyChange(std::function<void(int ready_workers)> callback);
  // Ends all requests with UNAVAILABLE and all workers' lives; Tick does the rest until stopped().
  void Stop();
  bool stopped() const;

  // The supervising thread. Does what is due; returns when it wants to be called again at the latest.
  TimePoint Tick();
  // The child takes connections.
  void OnListening(int worker, uint64_t life);
  // The child has ended and is reaped; `how`: "exit code 1", "signal 9".
  void OnExited(int worker, uint64_t life, const std::string& how);

  void OnLinkReady(int worker, uint64_t life, internal::v1::Ready ready) override;
  void OnLinkEvents(int worker, uint64_t life, internal::v1::Events* events) override;
  void OnLinkHeartbeat(int worker, uint64_t life, const internal::v1::Heartbeat& heartbeat) override;
  void OnLinkClosed(int worker, uint64_t life, const absl::Status& status) override;

 private:
  using RequestPtr = std::shared_ptr<RequestState>;
  class Handle;
  // Calls to make once the lock is released.
  struct Effects {
    std::vector<std::shared_ptr<WorkerLink>> flushes;
    std::vector<std::shared_ptr<WorkerLink>> closes;
    std::vector<std::string> replays;
    std::vector<std::string> warnings;
    void Flush(const std::shared_ptr<WorkerLink>& link);
  };
  struct Delivery {
    RequestPtr request;
    internal::v1::Event* event = nullptr;  // nullptr = none
    std::optional<absl::Status> done;
  };
  enum class Death { kYes, kNo };  // whether requests on the worker may have caused its end

  void Cancel(const RequestPtr& request);

  // All below: with the lock held, unless they say otherwise.
  WorkerSlot* LiveSlot(int worker, uint64_t life);
  void Enqueue(const RequestPtr& request);
  void Schedule(TimePoint now, Effects* effects);
  bool TrySend(const RequestPtr& request, TimePoint now, Effects* effects);
  void Send(const RequestPtr& request, int worker, TimePoint now, Effects* effects);
  // Takes the request off its worker's account.
  void Unassign(RequestState& request);
  void Forget(const RequestPtr& request);
  // Ends a request from outside a delivery of its own; the sink hears of it on another thread.
  bool WantsLastEvent(const RequestState& request) const;
  void TellCancel(const RequestState& request, Effects* effects);
  void EndRequest(const RequestPtr& request, absl::Status status, Effects* effects);
  // The worker has not taken the request, or given it back.
  void GiveBack(const RequestPtr& request, const absl::Status& status, TimePoint now);
  absl::Status TakeEvent(WorkerSlot& slot, internal::v1::Event* event, TimePoint now,
                         std::vector<Delivery>* deliveries);
  void EndLife(int worker, const std::string& why, Death death, TimePoint now, Effects* effects);
  void ExpireRequests(TimePoint now, Effects* effects);
  void ForgetIdleSessions(TimePoint now, Effects* effects);
  void EndSessionAtWorkers(const std::string& session_id, Effects* effects);
  bool AnyWorkerFor(const RequestState& request) const;
  void AdjustForSleep(TimePoint now);
  bool IsHung(int worker, TimePoint now);
  void StepSlot(int worker, TimePoint now, Effects* effects, std::vector<int>* spawns,
                std::vector<int>* connects, std::vector<std::pair<int, int>>* signals);
  TimePoint NextWake(TimePoint now) const;
  void NoticeReadyChange();
  int ReadyWorkers() const;

  // Without the lock.
  void Run(const Effects& effects);
  void Deliver(std::vector<Delivery> deliveries);
  void DrainOutbox(const RequestPtr& request);
  void TellDone(RequestState& request, const absl::Status& status);
  void TellReadyChange();
  void SpawnWorker(int worker);
  void ConnectWorker(int worker);

  const CoreOptions options_;
  WorkerHost* const host_;

  std::atomic<uint64_t> next_id_ = 1;

  mutable std::mutex mutex_;
  std::vector<WorkerSlot> slots_;
  absl::flat_hash_map<uint64_t, RequestPtr> requests_;
  std::map<std::pair<int32_t, uint64_t>, RequestPtr> queue_;  // by priority, then arrival
  std::vector<RequestPtr> undelivered_;                       // the supervising thread delivers
  SessionMap sessions_;
  TimePoint next_wake_;
  TimePoint last_tick_;
  bool stopping_ = false;
  std::shared_ptr<const std::function<void(int)>> ready_callback_;
  int told_ready_ = -1;
};

}  // namespace mnemo::dispatch
