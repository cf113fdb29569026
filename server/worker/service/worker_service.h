// The worker's side of the link: one session at a time, over gRPC's callback API.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "mnemo/internal/worker.grpc.pb.h"
#include "server/worker/engine.h"
#include "server/worker/service/session_reactor.h"

namespace mnemo::worker {

// Thread-safe. The engine calls OnStep; gRPC calls Session.
class WorkerService final : public internal::v1::Worker::CallbackService,
                            public EngineSink,
                            private SessionHost {
 public:
  // `ready` is what a session begins with, `progress` the counter that heartbeats carry.
  WorkerService(internal::v1::Ready ready, const std::atomic<uint64_t>* progress);
  // After StopSessions, and when server and engine are gone.
  ~WorkerService() override;

  // Before the server starts. `engine` has this object as its sink and lives until StopSessions returns.
  void Start(Engine* engine);

  grpc::ServerBidiReactor<internal::v1::ToWorker, internal::v1::FromWorker>* Session(
      grpc::CallbackServerContext* context) override;
  void OnStep(std::vector<EngineEvent> events) override;

  // Takes no more requests and tells the front end so; returns when the last one has ended and its events
  // are written, or at the timeout.
  void Drain(std::chrono::milliseconds timeout);
  // Ends the session, if there is one, and refuses others; returns when gRPC is done with all of them.
  void StopSessions();

 private:
  Engine* engine() override { return engine_; }
  uint64_t NextEngineId() override { return next_engine_id_.fetch_add(1, std::memory_order_relaxed); }
  const internal::v1::Ready& ready() const override { return ready_; }
  internal::v1::Heartbeat MakeHeartbeat() const override;
  bool draining() const override { return draining_.load(std::memory_order_relaxed); }
  void SessionChanged() override;
  void SessionDone(SessionReactor* session) override;

  std::shared_ptr<SessionReactor> current() const;
  void HeartbeatLoop();

  const internal::v1::Ready ready_;
  const std::atomic<uint64_t>* const progress_;
  Engine* engine_ = nullptr;
  std::atomic<uint64_t> next_engine_id_{1};
  std::atomic<bool> draining_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<SessionReactor> current_;
  std::vector<std::shared_ptr<SessionReactor>> sessions_;  // that gRPC is not done with; current_ among them
  uint64_t changes_ = 0;
  bool stopped_ = false;
  std::thread heartbeat_thread_;
};

}  // namespace mnemo::worker
