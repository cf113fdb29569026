#include "server/worker/service/worker_service.h"

#include <algorithm>
#include <utility>

#include "server/worker/service/convert.h"

namespace mnemo::worker {
namespace {

// A session that ends has so long to take its last write.
constexpr std::chrono::milliseconds kEndTime{500};

// Refuses a session without one of ours behind it.
class RefusedSession final
    : public grpc::ServerBidiReactor<internal::v1::ToWorker, internal::v1::FromWorker> {
 public:
  explicit RefusedSession(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

WorkerService::WorkerService(internal::v1::Ready ready, const std::atomic<uint64_t>* progress)
    : ready_(std::move(ready)), progress_(progress) {}

WorkerService::~WorkerService() { MNEMO_CHECK(!heartbeat_thread_.joinable()); }

void WorkerService::Start(Engine* engine) {
  engine_ = engine;
  heartbeat_thread_ = std::thread([this] { HeartbeatLoop(); });
}

std::shared_ptr<SessionReactor> WorkerService::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

grpc::ServerBidiReactor<internal::v1::ToWorker, internal::v1::FromWorker>* WorkerService::Session(
    grpc::CallbackServerContext* context) {
  const auto session = std::make_shared<SessionReactor>(static_cast<SessionHost*>(this), context);
  std::shared_ptr<SessionReactor> older;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) {
      return new RefusedSession(grpc::Status(grpc::StatusCode::ABORTED, "the worker is stopping"));
    }
    older = std::exchange(current_, session);
    sessions_.push_back(session);
  }
  if (older != nullptr) older->End(grpc::Status(grpc::StatusCode::ABORTED, "another session has begun"));
  session->Begin();
  return session.get();
}

void WorkerService::OnStep(std::vector<EngineEvent> events) {
  if (const std::shared_ptr<SessionReactor> session = current()) session->AddEvents(events);
}

internal::v1::Heartbeat WorkerService::MakeHeartbeat() const {
  const EngineStats stats = engine_->Stats();
  internal::v1::Heartbeat heartbeat;
  heartbeat.set_progress(progress_->load(std::memory_order_relaxed));
  heartbeat.set_steps(stats.steps);
  heartbeat.set_running(stats.running);
  heartbeat.set_waiting(stats.waiting);
  heartbeat.set_kv_pages_used(stats.kv_pages_used);
  heartbeat.set_kv_pages_cached(stats.kv_pages_cached);
  heartbeat.set_kv_pages_total(stats.kv_pages_total);
  heartbeat.set_preemptions(stats.preemptions);
  heartbeat.set_prefix_query_tokens(stats.prefix_queries_tokens);
  heartbeat.set_prefix_hit_tokens(stats.prefix_hit_tokens);
  heartbeat.set_prompt_tokens(stats.prompt_tokens);
  heartbeat.set_generated_tokens(stats.generated_tokens);
  heartbeat.set_draining(draining());
  FillMemoryFigures(stats.memory, heartbeat.mutable_memory());
  return heartbeat;
}

void WorkerService::HeartbeatLoop() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    const std::shared_ptr<SessionReactor> session = current_;
    const uint64_t changes = changes_;
    lock.unlock();
    const int interval_ms = session != nullptr ? session->heartbeat_interval_ms() : 0;
    if (interval_ms > 0) session->SendHeartbeat();
    lock.lock();
    const auto woken = [&] { return stopped_ || changes_ != changes; };
    if (interval_ms > 0) {
      changed_.wait_for(lock, std::chrono::milliseconds(interval_ms), woken);
    } else {
      changed_.wait(lock, woken);
    }
  }
}

void WorkerService::SessionChanged() {
  {
    std::lock_guard lock(mutex_);
    ++changes_;
  }
  changed_.notify_all();
}

void WorkerService::SessionDone(SessionReactor* session) {
  std::shared_ptr<SessionReactor> last;  // destroyed without the lock
  {
    std::lock_guard lock(mutex_);
    const auto it = std::find_if(sessions_.begin(), sessions_.end(),
                                 [&](const auto& other) { return other.get() == session; });
    MNEMO_CHECK(it != sessions_.end());
    last = std::move(*it);
    sessions_.erase(it);
    if (current_ == last) current_.reset();
    ++changes_;
    // Under the lock: whoever waits for the last session may destroy this object next.
    changed_.notify_all();
  }
}

void WorkerService::Drain(std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  draining_.store(true, std::memory_order_relaxed);
  SessionChanged();
  std::unique_lock lock(mutex_);
  while (current_ != nullptr && std::chrono::steady_clock::now() < end) {
    const std::shared_ptr<SessionReactor> session = current_;
    const uint64_t changes = changes_;
    lock.unlock();
    const bool idle = session->idle();
    lock.lock();
    if (idle) return;
    changed_.wait_until(lock, end, [&] { return changes_ != changes; });
  }
}

void WorkerService::StopSessions() {
  std::shared_ptr<SessionReactor> session;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    session = current_;
  }
  changed_.notify_all();
  if (session != nullptr) {
    session->End(grpc::Status(grpc::StatusCode::ABORTED, "the worker is stopping"));
  }
  const auto all_done = [&] { return sessions_.empty(); };
  std::vector<std::shared_ptr<SessionReactor>> stuck;
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kEndTime, all_done)) stuck = sessions_;
  }
  for (const std::shared_ptr<SessionReactor>& other : stuck) other->Break();
  stuck.clear();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, all_done);
  }
  if (heartbeat_thread_.joinable()) heartbeat_thread_.join();
}

}  // namespace mnemo::worker
