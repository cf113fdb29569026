// The worker's side of the link: one session at a time, a connection and a thread for each.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "devices/base/unique_fd.h"
#include "mnemo/internal/worker.pb.h"
#include "server/worker/engine.h"
#include "server/worker/service/session.h"

namespace mnemo::worker_service {

// Thread-safe. The engine calls OnStep and BeforePause.
class WorkerService final : public worker::EngineSink, private SessionHost {
 public:
  // `ready` is what a session begins with, `progress` the counter that heartbeats carry.
  WorkerService(internal::v1::Ready ready, const std::atomic<uint64_t>* progress);
  // After StopSessions, and when the engine is gone.
  ~WorkerService() override;

  // Before Listen. `engine` has this object as its sink and lives until StopSessions returns.
  void Start(worker::Engine* engine);
  // Takes connections at `address`, see link::Listen.
  absl::Status Listen(const std::string& address);

  void OnStep(std::vector<worker::EngineEvent> events) override;
  void BeforePause() override;

  // Takes no more requests and tells the front end so; returns when the last one has ended and its events
  // are written, or at the timeout.
  void Drain(std::chrono::milliseconds timeout);
  // Ends the session, if there is one, and takes no other; returns when all connections are closed.
  void StopSessions();

 private:
  worker::Engine* engine() override { return engine_; }
  uint64_t NextEngineId() override { return next_engine_id_.fetch_add(1, std::memory_order_relaxed); }
  const internal::v1::Ready& ready() const override { return ready_; }
  internal::v1::Heartbeat MakeHeartbeat() const override;
  bool draining() const override { return draining_.load(std::memory_order_relaxed); }
  void SessionBegins(Session* session) override;
  void SessionChanged() override;

  std::shared_ptr<Session> current() const;
  void HeartbeatLoop();
  void AcceptLoop();
  void BeginConnection(UniqueFd socket);
  // On the session's thread, its last words.
  void ConnectionDone(Session* session);
  // Joins the threads of connections that are closed.
  void JoinDone();

  const internal::v1::Ready ready_;
  const std::atomic<uint64_t>* const progress_;
  worker::Engine* engine_ = nullptr;
  std::atomic<uint64_t> next_engine_id_{1};
  std::atomic<bool> draining_{false};

  struct Open {
    std::shared_ptr<Session> session;
    std::thread thread;
  };
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Session> current_;
  std::vector<Open> open_;         // current_ among them
  std::vector<std::thread> done_;  // to be joined
  uint64_t changes_ = 0;
  bool stopped_ = false;
  std::thread heartbeat_thread_;

  UniqueFd listener_;
  UniqueFd stop_;            // eventfd; ends the accepting thread
  std::string socket_path_;  // to be removed; empty = none
  std::thread accept_thread_;
};

}  // namespace mnemo::worker_service
