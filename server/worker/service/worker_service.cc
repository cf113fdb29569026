#include "server/worker/service/worker_service.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "devices/base/address.h"
#include "server/link/socket.h"
#include "server/telemetry/logging.h"
#include "server/worker/service/convert.h"

namespace mnemo::worker_service {
namespace {

// One front end has one connection, and for a moment the one before it. Connections beyond that are
// strangers'.
constexpr size_t kMaxConnections = 16;
// After an accept that failed for want of something.
constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

WorkerService::WorkerService(internal::v1::Ready ready, const std::atomic<uint64_t>* progress)
    : ready_(std::move(ready)), progress_(progress) {}

WorkerService::~WorkerService() { MNEMO_CHECK(!heartbeat_thread_.joinable()); }

void WorkerService::Start(worker::Engine* engine) {
  engine_ = engine;
  heartbeat_thread_ = std::thread([this] { HeartbeatLoop(); });
}

absl::Status WorkerService::Listen(const std::string& address) {
  stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!stop_.valid()) return ResourceExhausted("eventfd: {}", std::strerror(errno));
  MNEMO_ASSIGN_OR_RETURN(listener_, link::Listen(address));
  socket_path_ = UnixSocketPath(address).value_or("");
  accept_thread_ = std::thread([this] { AcceptLoop(); });
  return absl::OkStatus();
}

void WorkerService::AcceptLoop() {
  bool is_short = false;
  pollfd fds[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (true) {
    bool are_others = false;
    {
      std::lock_guard lock(mutex_);
      are_others = open_.size() > 1 || !done_.empty();
    }
    ::poll(fds, 2, are_others ? static_cast<int>(Session::kEndTime.count()) : -1);
    if (fds[1].revents != 0) return;
    JoinDone();
    {
      std::lock_guard lock(mutex_);
      for (const Open& open : open_) open.session->BreakIfStuck(std::chrono::steady_clock::now());
    }
    if (fds[0].revents == 0) continue;
    absl::StatusOr<UniqueFd> socket = link::Accept(listener_.get(), {});
    if (socket.ok()) {
      is_short = false;
      BeginConnection(*std::move(socket));
    } else if (!absl::IsNotFound(socket.status())) {
      if (!std::exchange(is_short, true)) {
        spdlog::warn("{}; front ends wait until that has passed", std::string(socket.status().message()));
      }
      std::this_thread::sleep_for(kAcceptPause);
    }
  }
}

void WorkerService::BeginConnection(UniqueFd socket) {
  std::lock_guard lock(mutex_);
  if (open_.size() >= kMaxConnections) {
    spdlog::warn("a connection is refused: {} are open", open_.size());
    return;
  }
  const auto session = std::make_shared<Session>(static_cast<SessionHost*>(this), std::move(socket));
  // The thread waits for the lock before it looks for itself in open_.
  try {
    std::thread thread([this, session] {
      session->Run();
      ConnectionDone(session.get());
    });
    open_.push_back({session, std::move(thread)});
  } catch (const std::system_error& error) {
    spdlog::warn("a connection is refused: starting its thread: {}", error.what());
  }
}

void WorkerService::ConnectionDone(Session* session) {
  std::lock_guard lock(mutex_);
  const auto it = std::find_if(open_.begin(), open_.end(),
                               [&](const Open& open) { return open.session.get() == session; });
  MNEMO_CHECK(it != open_.end());
  if (current_ == it->session) current_.reset();
  done_.push_back(std::move(it->thread));
  open_.erase(it);
  ++changes_;
  changed_.notify_all();
}

void WorkerService::JoinDone() {
  std::vector<std::thread> done;
  {
    std::lock_guard lock(mutex_);
    done.swap(done_);
  }
  for (std::thread& thread : done) thread.join();
}

void WorkerService::SessionBegins(Session* session) {
  std::shared_ptr<Session> older;
  bool is_late = false;
  {
    std::lock_guard lock(mutex_);
    is_late = stopped_;
    const auto it = std::find_if(open_.begin(), open_.end(),
                                 [&](const Open& open) { return open.session.get() == session; });
    MNEMO_CHECK(it != open_.end());
    if (!is_late) older = std::exchange(current_, it->session);
    ++changes_;
  }
  if (older != nullptr) older->End(absl::AbortedError("another session has begun"));
  if (is_late) session->End(absl::AbortedError("the worker is stopping"));
  changed_.notify_all();
}

std::shared_ptr<Session> WorkerService::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

void WorkerService::OnStep(std::vector<worker::EngineEvent> events) {
  if (const std::shared_ptr<Session> session = current()) session->AddEvents(events);
}

void WorkerService::BeforePause() {
  if (const std::shared_ptr<Session> session = current()) session->Flush();
}

internal::v1::Heartbeat WorkerService::MakeHeartbeat() const {
  const worker::EngineStats stats = engine_->Stats();
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
  heartbeat.set_log_lines_dropped(telemetry::LogLinesDropped());
  FillMemoryFigures(stats.memory, heartbeat.mutable_memory());
  heartbeat.mutable_memory()->set_extra_pages_used(stats.extra_pages_used);
  heartbeat.mutable_memory()->set_extra_pages_total(stats.extra_pages_total);
  return heartbeat;
}

void WorkerService::HeartbeatLoop() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    const std::shared_ptr<Session> session = current_;
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

void WorkerService::Drain(std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  draining_.store(true, std::memory_order_relaxed);
  SessionChanged();
  std::unique_lock lock(mutex_);
  while (current_ != nullptr && std::chrono::steady_clock::now() < end) {
    const std::shared_ptr<Session> session = current_;
    const uint64_t changes = changes_;
    lock.unlock();
    const bool idle = session->idle();
    lock.lock();
    if (idle) return;
    changed_.wait_until(lock, end, [&] { return changes_ != changes; });
  }
}

void WorkerService::StopSessions() {
  if (accept_thread_.joinable()) {
    const uint64_t one = 1;
    MNEMO_CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
    accept_thread_.join();
    if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
    listener_.Reset();
  }
  std::vector<std::shared_ptr<Session>> sessions;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    for (const Open& open : open_) sessions.push_back(open.session);
  }
  changed_.notify_all();
  for (const auto& session : sessions) session->End(absl::AbortedError("the worker is stopping"));
  {
    std::unique_lock lock(mutex_);
    const auto all_closed = [&] { return open_.empty(); };
    if (!changed_.wait_for(lock, Session::kEndTime, all_closed)) {
      for (const auto& session : sessions) session->BreakIfStuck(std::chrono::steady_clock::now());
      changed_.wait(lock, all_closed);
    }
  }
  JoinDone();
  if (heartbeat_thread_.joinable()) heartbeat_thread_.join();
}

}  // namespace mnemo::worker_service
