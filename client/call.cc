#include "client/call.h"

#include <absl/strings/cord.h>

#include <algorithm>
#include <charconv>

namespace mnemo::client {
namespace {

constexpr char kPushbackKey[] = "grpc-retry-pushback-ms";  // trailer, and the name of the status payload
constexpr int kMaxPushbackMs = 3'600'000;
constexpr std::chrono::seconds kStatusTimeout(2);  // from the last message to the status that follows it

}  // namespace

absl::Status FromGrpc(const grpc::Status& status, const grpc::ClientContext& context) {
  if (status.ok()) return absl::OkStatus();
  // Both enumerations have the same numbers; any other number is a peer's error.
  const int code = status.error_code();
  absl::Status result(
      code >= 1 && code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
      status.error_message());
  const auto& trailers = context.GetServerTrailingMetadata();
  if (const auto found = trailers.find(kPushbackKey); found != trailers.end()) {
    result.SetPayload(kPushbackKey,
                      absl::Cord(absl::string_view(found->second.data(), found->second.size())));
  }
  return result;
}

std::optional<int> RetryPushback(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPushbackKey);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // gRPC's retry design (gRFC A6): a value that is no number means "do not retry".
  if (error != std::errc() || end != text.data() + text.size()) return -1;
  return std::min(value, kMaxPushbackMs);
}

std::optional<std::chrono::milliseconds> RetryDelay(const RetryPolicy& policy, const absl::Status& status,
                                                    int attempt) {
  if (attempt > policy.max_attempts) return std::nullopt;
  const std::optional<int> pushback = RetryPushback(status);
  const bool wanted = (absl::IsUnavailable(status) && policy.on_unavailable) ||
                      (absl::IsResourceExhausted(status) && policy.on_overload && pushback.has_value());
  if (!wanted || (pushback.has_value() && *pushback < 0)) return std::nullopt;
  if (pushback.has_value()) return std::chrono::milliseconds(*pushback);
  const int doublings = std::clamp(attempt - 2, 0, 20);
  return std::min(policy.max_backoff, policy.backoff * (1 << doublings));
}

// One attempt of the call. A hold delays OnDone while reading is paused, so that Resume may start a read from
// any thread.
class StreamCall::Attempt final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  explicit Attempt(StreamCall* owner) : owner_(owner) {}

  void Start() {
    if (owner_->deadline_.has_value()) context_.set_deadline(*owner_->deadline_);
    owner_->stub_->async()->Generate(&context_, &owner_->request_, this);
    AddHold();
    StartRead(&message_);
    StartCall();
  }
  void Read() { StartRead(&message_); }
  void TryCancel() { context_.TryCancel(); }
  bool received() const { return received_; }
  const grpc::ClientContext& context() const { return context_; }

  void OnReadDone(bool ok) override {
    if (!ok) {
      owner_->WatchEnd(&end_alarm_);
      RemoveHold();
      return;
    }
    received_ = true;
    if (owner_->sink_->OnMessage(std::move(message_))) StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override { owner_->AttemptDone(status); }  // destroys this

 private:
  StreamCall* owner_;
  grpc::ClientContext context_;
  v1::GenerateResponse message_;
  bool received_ = false;
  grpc::Alarm end_alarm_;
};

StreamCall::StreamCall(v1::Generation::Stub* stub, std::shared_ptr<CallCount> count,
                       v1::GenerateRequest request, const CallOptions& options,
                       std::shared_ptr<MessageSink> sink)
    : stub_(stub),
      count_(std::move(count)),
      request_(std::move(request)),
      retry_(options.retry),
      sink_(std::move(sink)) {
  if (options.timeout.has_value()) {
    deadline_ = std::chrono::system_clock::now() +
                std::chrono::duration_cast<std::chrono::system_clock::duration>(*options.timeout);
  }
}

StreamCall::~StreamCall() = default;

void StreamCall::Start() {
  {
    std::lock_guard lock(mutex_);
    self_ = shared_from_this();
  }
  count_->Add();
  StartAttempt();
}

void StreamCall::StartAttempt() {
  std::unique_ptr<grpc::Alarm> fired;  // holds a reference to this call: it must not stay a member
  std::unique_lock lock(mutex_);
  fired = std::move(alarm_);
  if (cancelled_) {
    lock.unlock();
    Finish(absl::CancelledError("cancelled by the client"));
    return;
  }
  ++attempts_;
  attempt_ = std::make_unique<Attempt>(this);
  Attempt* const attempt = attempt_.get();
  lock.unlock();
  attempt->Start();  // it cannot end before it has begun; its context remembers a Cancel in between
}

void StreamCall::WatchEnd(grpc::Alarm* alarm) {
  std::lock_guard lock(mutex_);
  alarm->Set(std::chrono::system_clock::now() + kStatusTimeout,
             [self = shared_from_this(), number = attempts_](bool expired) {
               std::lock_guard inner_lock(self->mutex_);
               if (!expired || self->attempt_ == nullptr || self->attempts_ != number) return;
               self->malformed_ = true;
               self->attempt_->TryCancel();
             });
}

void StreamCall::AttemptDone(const grpc::Status& grpc_status) {
  std::unique_ptr<Attempt> attempt;
  {
    std::lock_guard lock(mutex_);
    attempt = std::move(attempt_);
  }
  absl::Status status = FromGrpc(grpc_status, attempt->context());
  const bool received = attempt->received();
  attempt.reset();  // its context refers to the channel, which may go as soon as the call has ended
  {
    std::lock_guard lock(mutex_);
    if (malformed_) status = Internal("the server sent a message that cannot be read");
    if (!received && !cancelled_) {
      const std::optional<std::chrono::milliseconds> delay = RetryDelay(retry_, status, attempts_ + 1);
      const auto when = std::chrono::system_clock::now() + delay.value_or(std::chrono::milliseconds(0));
      if (delay.has_value() && (!deadline_.has_value() || when < *deadline_)) {
        alarm_ = std::make_unique<grpc::Alarm>();
        // Fires early when cancelled: StartAttempt then finds cancelled_ set.
        alarm_->Set(when, [self = shared_from_this()](bool) { self->StartAttempt(); });
        return;
      }
    }
  }
  Finish(status);
}

void StreamCall::Finish(const absl::Status& status) {
  sink_->OnDone(status);
  std::shared_ptr<StreamCall> self;
  {
    std::lock_guard lock(mutex_);
    self = std::move(self_);
  }
  count_->Remove();
}

void StreamCall::Cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (attempt_ != nullptr) attempt_->TryCancel();
  if (alarm_ != nullptr) alarm_->Cancel();
}

void StreamCall::Resume() {
  std::lock_guard lock(mutex_);
  if (attempt_ != nullptr) attempt_->Read();
}

}  // namespace mnemo::client
