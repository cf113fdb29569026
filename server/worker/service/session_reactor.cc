#include "server/worker/service/session_reactor.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "server/worker/service/convert.h"

namespace mnemo::worker {
namespace {

// A front end that reads nothing while so much is made for it is taken for dead.
constexpr size_t kMaxPendingBytes = 64 << 20;

// Events show life as well as a heartbeat, and each message costs the front end a wake-up.
constexpr int kMaxSkipped = 10;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace

SessionReactor::SessionReactor(SessionHost* host, grpc::CallbackServerContext* context)
    : host_(host), context_(context) {}

void SessionReactor::Begin() { StartRead(&incoming_); }

void SessionReactor::AddEvents(std::span<const EngineEvent> events) {
  bool overflow = false;
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    for (const EngineEvent& event : events) {
      const auto it = live_.find(event.id);
      if (it == live_.end()) continue;  // of an older session
      outbox_.Add(event, it->second.id, it->second.attempt);
      if (event.finish == EngineFinish::kNone) continue;
      const auto number = engine_ids_.find(it->second.id);
      if (number != engine_ids_.end() && number->second == event.id) engine_ids_.erase(number);
      live_.erase(it);
    }
    overflow = outbox_.bytes() > kMaxPendingBytes;
  }
  if (overflow) {
    End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                     fmt::format("the front end has not read {} bytes of events", kMaxPendingBytes)));
    Break();
    return;
  }
  Pump();
}

void SessionReactor::SendHeartbeat() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(events_sent_, false) && !host_->draining() && ++heartbeats_skipped_ < kMaxSkipped)
      return;
    heartbeats_skipped_ = 0;
    heartbeat_due_ = true;
  }
  Pump();
}

void SessionReactor::End(const grpc::Status& status) {
  std::vector<std::pair<uint64_t, uint32_t>> cancelled;
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    ending_ = true;
    end_status_ = status;
    for (const auto& [engine_id, live] : live_) cancelled.emplace_back(engine_id, live.attempt);
    live_.clear();
    engine_ids_.clear();
  }
  for (const auto& [engine_id, attempt] : cancelled) host_->engine()->Cancel(engine_id, attempt);
  Pump();
  host_->SessionChanged();
}

void SessionReactor::Break() {
  {
    std::lock_guard lock(mutex_);
    if (finished_ || !ending_) return;
    // Keeps the call from being finished, and its context from being freed, before it is cancelled.
    ++pins_;
  }
  context_->TryCancel();
  {
    std::lock_guard lock(mutex_);
    --pins_;
  }
  Pump();
}

bool SessionReactor::idle() const {
  std::lock_guard lock(mutex_);
  return ending_ || (live_.empty() && outbox_.empty() && !writing_);
}

int SessionReactor::heartbeat_interval_ms() const {
  std::lock_guard lock(mutex_);
  return heartbeat_interval_ms_;
}

void SessionReactor::Pump() {
  const internal::v1::FromWorker* message = nullptr;
  bool make_heartbeat = false;
  {
    std::lock_guard lock(mutex_);
    if (writing_ || pins_ > 0 || finished_) return;
    if (ending_) {
      finished_ = true;
    } else if (ready_due_) {
      ready_due_ = false;
      *outgoing_other_.mutable_ready() = host_->ready();
      message = &outgoing_other_;
    } else if (heartbeat_due_ && heartbeat_interval_ms_ > 0) {
      heartbeat_due_ = false;
      make_heartbeat = true;
      message = &outgoing_other_;
    } else if (!outbox_.empty()) {
      outbox_.TakeInto(outgoing_events_.mutable_events());
      events_sent_ = true;
      message = &outgoing_events_;
    } else {
      return;
    }
    writing_ = message != nullptr;
  }
  // From here on `writing_` or `finished_` keeps others out.
  if (make_heartbeat) *outgoing_other_.mutable_heartbeat() = host_->MakeHeartbeat();
  if (message != nullptr) {
    StartWrite(message);
  } else {
    Finish(end_status_);
  }
}

void SessionReactor::OnWriteDone(bool ok) {
  bool idle_now = false;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    idle_now = live_.empty() && outbox_.empty();
  }
  if (!ok) {
    End(grpc::Status::CANCELLED);
  } else if (idle_now && host_->draining()) {
    host_->SessionChanged();
  }
  Pump();
}

void SessionReactor::OnReadDone(bool ok) {
  if (!ok) {
    End(grpc::Status::OK);  // the front end has closed its side
    return;
  }
  const absl::Status status = HandleMessage();
  if (!status.ok()) {
    End(ToGrpc(status));
    return;
  }
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
  }
  StartRead(&incoming_);
}

void SessionReactor::OnCancel() { End(grpc::Status::CANCELLED); }

void SessionReactor::OnDone() { host_->SessionDone(this); }

absl::Status SessionReactor::HandleMessage() {
  using internal::v1::ToWorker;
  if (incoming_.message_case() == ToWorker::kHello) return HandleHello(incoming_.hello());
  if (heartbeat_interval_ms() == 0) return FailedPrecondition("the first message is not Hello");
  switch (incoming_.message_case()) {
    case ToWorker::kSubmit:
      HandleSubmit(incoming_.submit());
      break;
    case ToWorker::kCancel:
      HandleCancel(incoming_.cancel());
      break;
    case ToWorker::kEndSession:
      host_->engine()->EndSession(incoming_.end_session().session_id());
      break;
    default:
      break;  // of a newer front end
  }
  return absl::OkStatus();
}

absl::Status SessionReactor::HandleHello(const internal::v1::Hello& hello) {
  if (hello.protocol() != kProtocolVersion) {
    return FailedPrecondition("protocol: the front end ({}) speaks version {}, this worker version {}",
                              hello.build(), hello.protocol(), kProtocolVersion);
  }
  constexpr uint32_t kMinIntervalMs = 10, kMaxIntervalMs = 60000;
  const uint32_t interval_ms = hello.heartbeat_interval_ms();
  if (interval_ms < kMinIntervalMs || interval_ms > kMaxIntervalMs) {
    return InvalidArgument("heartbeat_interval_ms: {} is not in [{}, {}]", interval_ms, kMinIntervalMs,
                           kMaxIntervalMs);
  }
  {
    std::lock_guard lock(mutex_);
    if (heartbeat_interval_ms_ != 0) return InvalidArgument("a second Hello");
    heartbeat_interval_ms_ = static_cast<int>(interval_ms);
    ready_due_ = true;
  }
  host_->SessionChanged();
  Pump();
  return absl::OkStatus();
}

void SessionReactor::HandleSubmit(const internal::v1::Submit& submit) {
  if (host_->draining()) {
    Refuse(submit, Unavailable("the worker is draining"));
    return;
  }
  EngineRequest request = ToEngineRequest(submit, std::chrono::steady_clock::now());
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
    live_[engine_id] = {submit.id(), submit.attempt()};
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

void SessionReactor::Refuse(const internal::v1::Submit& submit, const absl::Status& status) {
  EngineEvent event;
  event.finish = EngineFinish::kError;
  event.status = status;
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    outbox_.Add(event, submit.id(), submit.attempt());
  }
  Pump();
}

void SessionReactor::HandleCancel(const internal::v1::Cancel& cancel) {
  uint64_t engine_id = 0;
  {
    std::lock_guard lock(mutex_);
    const auto it = engine_ids_.find(cancel.id());
    if (it == engine_ids_.end() || live_[it->second].attempt != cancel.attempt()) return;
    engine_id = it->second;
  }
  host_->engine()->Cancel(engine_id, cancel.attempt());
}

}  // namespace mnemo::worker
