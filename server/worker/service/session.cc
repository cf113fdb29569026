#include "server/worker/service/session.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "server/link/frame.h"
#include "server/worker/service/convert.h"

namespace mnemo::worker_service {
namespace {

// A front end that reads nothing while so much is made for it is taken for dead.
constexpr size_t kMaxPendingBytes = 64 << 20;

// Tokens of each request that never wait for each other: the beginning of an answer is what is waited for,
// and a short one is not worth saving on.
constexpr size_t kTokensAtOnce = 32;

// Events show life as well as a heartbeat, and each message costs the front end a wake-up.
constexpr int kMaxSkipped = 10;

// A connection that begins with silence, or goes on with it, is nobody's session.
constexpr int kHelloTimeMs = 5000;

}  // namespace

Session::Session(SessionHost* host, UniqueFd socket)
    : host_(host), connection_(std::move(socket), [this] { OnWritten(); }) {}

void Session::Run() {
  connection_.SetReadTimeout(kHelloTimeMs);
  internal::v1::ToWorker incoming;
  absl::Status status;
  while (status.ok()) {
    status = connection_.Read(&incoming);
    if (status.ok()) status = HandleMessage(incoming);
  }
  // A front end that is gone is nothing to tell of.
  bool is_news = !absl::IsUnavailable(status);
  {
    std::lock_guard lock(mutex_);
    is_news = is_news && !ending_;
  }
  if (is_news) spdlog::warn("a connection is closed: {}", std::string(status.message()));
  End(status);
  std::unique_lock lock(mutex_);
  written_.wait_for(lock, kEndTime, [&] { return finished_ && !writing_; });
  connection_.Break();
}

void Session::AddEvents(std::span<const worker::EngineEvent> events) {
  bool overflow = false;
  bool may_wait = false;
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    bool is_urgent = false;
    for (const worker::EngineEvent& event : events) {
      const auto it = live_.find(event.id);
      if (it == live_.end()) continue;  // of an older session
      Live& live = it->second;
      is_urgent = is_urgent || live.at_once || live.tokens < kTokensAtOnce ||
                  event.finish != worker::EngineFinish::kNone;
      live.tokens += event.tokens.size();
      outbox_.Add(event, live.id, live.attempt);
      if (event.finish == worker::EngineFinish::kNone) continue;
      const auto number = engine_ids_.find(live.id);
      if (number != engine_ids_.end() && number->second == event.id) engine_ids_.erase(number);
      live_.erase(it);
    }
    overflow = outbox_.bytes() > kMaxPendingBytes;
    may_wait = pacing_.MayWait(is_urgent, std::chrono::steady_clock::now());
  }
  if (overflow) {
    End(ResourceExhausted("the front end has not read {} bytes of events", kMaxPendingBytes));
    connection_.Break();
    return;
  }
  if (!may_wait) Pump();
}

void Session::SendHeartbeat() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(events_sent_, false) && !host_->draining() && ++heartbeats_skipped_ < kMaxSkipped)
      return;
    heartbeats_skipped_ = 0;
    heartbeat_due_ = true;
  }
  Pump();
}

void Session::End(const absl::Status& status) {
  std::vector<std::pair<uint64_t, uint32_t>> cancelled;
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    ending_ = true;
    end_status_ = status;
    end_time_ = std::chrono::steady_clock::now();
    for (const auto& [engine_id, live] : live_) cancelled.emplace_back(engine_id, live.attempt);
    live_.clear();
    engine_ids_.clear();
  }
  for (const auto& [engine_id, attempt] : cancelled) host_->engine()->Cancel(engine_id, attempt);
  Pump();
  host_->SessionChanged();
}

void Session::BreakIfStuck(std::chrono::steady_clock::time_point now) {
  std::lock_guard lock(mutex_);
  if (ending_ && now - end_time_ >= kEndTime) connection_.Break();
}

bool Session::idle() const {
  std::lock_guard lock(mutex_);
  return ending_ || (live_.empty() && outbox_.empty() && !writing_);
}

int Session::heartbeat_interval_ms() const {
  std::lock_guard lock(mutex_);
  return heartbeat_interval_ms_;
}

const internal::v1::FromWorker* Session::NextMessage() {
  if (ending_) {
    finished_ = true;
    internal::v1::End* end = outgoing_other_.mutable_end();
    end->set_status_code(static_cast<int>(end_status_.code()));
    end->set_status_message(std::string(end_status_.message()));
    return &outgoing_other_;
  }
  if (ready_due_) {
    ready_due_ = false;
    *outgoing_other_.mutable_ready() = host_->ready();
    return &outgoing_other_;
  }
  if (heartbeat_due_ && heartbeat_interval_ms_ > 0) {
    heartbeat_due_ = false;
    outgoing_other_.mutable_heartbeat();
    return &outgoing_other_;
  }
  if (outbox_.empty()) return nullptr;
  outbox_.TakeInto(outgoing_events_.mutable_events());
  events_sent_ = true;
  pacing_.Taken(std::chrono::steady_clock::now());
  return &outgoing_events_;
}

void Session::Pump() {
  while (true) {
    const internal::v1::FromWorker* message = nullptr;
    {
      std::lock_guard lock(mutex_);
      if (writing_ || finished_) return;
      message = NextMessage();
      if (message == nullptr) return;
      writing_ = true;
    }
    if (message->has_heartbeat()) *outgoing_other_.mutable_heartbeat() = host_->MakeHeartbeat();
    outgoing_.clear();
    const absl::Status status = link::AppendFrame(*message, &outgoing_);
    const bool done = connection_.Write(outgoing_);
    if (!status.ok()) {
      spdlog::error("a session is closed: {}", std::string(status.message()));
      connection_.Break();
    }
    if (!done) return;
    AfterWrite();
  }
}

void Session::OnWritten() {
  AfterWrite();
  Pump();
}

void Session::AfterWrite() {
  bool idle_now = false;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    idle_now = live_.empty() && outbox_.empty();
    if (finished_) connection_.Break();
    written_.notify_all();
  }
  if (idle_now && host_->draining()) host_->SessionChanged();
}

absl::Status Session::HandleMessage(const internal::v1::ToWorker& message) {
  using internal::v1::ToWorker;
  if (message.message_case() == ToWorker::kHello) return HandleHello(message.hello());
  if (heartbeat_interval_ms() == 0) return FailedPrecondition("the first message is not Hello");
  switch (message.message_case()) {
    case ToWorker::kSubmit:
      HandleSubmit(message.submit());
      break;
    case ToWorker::kCancel:
      HandleCancel(message.cancel());
      break;
    case ToWorker::kEndSession:
      host_->engine()->EndSession(message.end_session().session_id());
      break;
    default:
      break;  // of a newer front end
  }
  return absl::OkStatus();
}

absl::Status Session::HandleHello(const internal::v1::Hello& hello) {
  if (hello.protocol() != link::kProtocolVersion) {
    return FailedPrecondition("protocol: the front end ({}) speaks version {}, this worker version {}",
                              hello.build(), hello.protocol(), link::kProtocolVersion);
  }
  constexpr uint32_t kMinIntervalMs = 10, kMaxIntervalMs = 60000;
  const uint32_t interval_ms = hello.heartbeat_interval_ms();
  if (interval_ms < kMinIntervalMs || interval_ms > kMaxIntervalMs) {
    return InvalidArgument("heartbeat_interval_ms: {} is not in [{}, {}]", interval_ms, kMinIntervalMs,
                           kMaxIntervalMs);
  }
  constexpr uint32_t kMaxEventIntervalMs = 1000;
  if (hello.event_interval_ms() > kMaxEventIntervalMs) {
    return InvalidArgument("event_interval_ms: {} is not in [0, {}]", hello.event_interval_ms(),
                           kMaxEventIntervalMs);
  }
  {
    std::lock_guard lock(mutex_);
    if (heartbeat_interval_ms_ != 0) return InvalidArgument("a second Hello");
    heartbeat_interval_ms_ = static_cast<int>(interval_ms);
    pacing_ = EventPacing(std::chrono::milliseconds(hello.event_interval_ms()));
    ready_due_ = true;
  }
  connection_.SetReadTimeout(0);
  host_->SessionBegins(this);
  host_->engine()->SetReportsSpans(hello.wants_spans());
  Pump();
  return absl::OkStatus();
}

void Session::HandleSubmit(const internal::v1::Submit& submit) {
  if (submit.acknowledge()) Tell(submit, {});
  if (host_->draining()) {
    Refuse(submit, Unavailable("the worker is draining"));
    return;
  }
  worker::EngineRequest request = ToEngineRequest(submit, std::chrono::steady_clock::now());
  request.id = host_->NextEngineId();
  uint64_t replaced = 0;
  uint32_t replaced_attempt = 0;
  const uint64_t engine_id = request.id;
  {
    // Known before the engine takes it, since its first event may come before Submit returns.
    std::lock_guard lock(mutex_);
    if (ending_) return;
    const auto older = engine_ids_.find(submit.id());
    if (older != engine_ids_.end()) {
      replaced = older->second;
      replaced_attempt = live_[replaced].attempt;
      live_.erase(replaced);
    }
    live_[engine_id] = {.id = submit.id(), .attempt = submit.attempt(), .at_once = submit.at_once()};
    live_[engine_id].in_crash_reports.emplace(submit.request_id());
    engine_ids_[submit.id()] = engine_id;
  }
  if (replaced != 0) host_->engine()->Cancel(replaced, replaced_attempt);
  const absl::Status status = host_->engine()->Submit(std::move(request));
  bool ending = false;
  {
    std::lock_guard lock(mutex_);
    ending = ending_;
    if (!status.ok() && live_.erase(engine_id) > 0) engine_ids_.erase(submit.id());
  }
  if (!status.ok()) {
    Refuse(submit, status);
  } else if (ending) {
    // The session ended after the request was listed and before the engine knew it.
    host_->engine()->Cancel(engine_id, submit.attempt());
  }
}

void Session::Refuse(const internal::v1::Submit& submit, const absl::Status& status) {
  worker::EngineEvent event;
  event.finish = worker::EngineFinish::kError;
  event.status = status;
  Tell(submit, event);
}

void Session::Tell(const internal::v1::Submit& submit, const worker::EngineEvent& event) {
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    outbox_.Add(event, submit.id(), submit.attempt());
  }
  Pump();
}

void Session::HandleCancel(const internal::v1::Cancel& cancel) {
  uint64_t engine_id = 0;
  {
    std::lock_guard lock(mutex_);
    const auto it = engine_ids_.find(cancel.id());
    if (it == engine_ids_.end() || live_[it->second].attempt != cancel.attempt()) return;
    engine_id = it->second;
  }
  host_->engine()->Cancel(engine_id, cancel.attempt());
}

}  // namespace mnemo::worker_service
