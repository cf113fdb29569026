#include "server/frontend/generate_reactor.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "server/frontend/out_of_memory.h"
#include "server/frontend/output_builder.h"
#include "server/frontend/status_mapping.h"
#include "server/frontend/status_text.h"
#include "server/telemetry/logging.h"

namespace mnemo::frontend {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

// A stream that a drain cuts gets so long to take its status.
constexpr std::chrono::milliseconds kCutGrace{1000};

void SetDuration(nanoseconds value, google::protobuf::Duration* duration) {
  const int64_t count = std::max<int64_t>(0, value.count());
  duration->set_seconds(count / 1'000'000'000);
  duration->set_nanos(static_cast<int32_t>(count % 1'000'000'000));
}

const char* ReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_EOS:
      return "eos";
    case v1::FINISH_REASON_STOP:
      return "stop";
    default:
      return "length";
  }
}

using MemorySteps = google::protobuf::RepeatedPtrField<internal::v1::MemoryStep>;

// What was done by the same method on the same device is one entry.
void AddMemorySteps(const MemorySteps& more, MemorySteps* sums) {
  for (const internal::v1::MemoryStep& step : more) {
    const auto same = std::find_if(sums->begin(), sums->end(), [&](const internal::v1::MemoryStep& sum) {
      return sum.step() == step.step() && sum.method() == step.method() && sum.device() == step.device();
    });
    if (same == sums->end()) {
      *sums->Add() = step;
      continue;
    }
    same->set_time_ns(same->time_ns() + step.time_ns());
    same->set_bytes_moved(same->bytes_moved() + step.bytes_moved());
    same->set_count(same->count() + step.count());
    same->set_round_trips(same->round_trips() + step.round_trips());
  }
}

double Milliseconds(nanoseconds value) { return static_cast<double>(value.count()) / 1e6; }

// What is left of the time that the call has, or nothing when it has no deadline or one that is never
// reached. gRPC's deadline() counts nanoseconds, which end in the year 2262: what clients send for "for ever"
// (292 years in Go and Java) wraps around there and would be over at once.
std::optional<nanoseconds> TimeLeft(const grpc::CallbackServerContext& call) {
  constexpr std::chrono::seconds kNever = std::chrono::hours(24) * 365 * 100;
  const gpr_timespec deadline = call.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return std::nullopt;
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  if (left.tv_sec >= kNever.count()) return std::nullopt;
  return std::chrono::seconds(left.tv_sec) + nanoseconds(left.tv_nsec);
}

// States: preparing (tokenizing, maybe on the text pool), admitted (queued, then at a worker), ended (end_ is
// set: what is still to be said is decided), finished (gRPC was told), done (gRPC forgot the call).
//
// Locks: mutex_ may be held while taking Admission's (Admit), never the other way round. Cancel of a dispatch
// and Release of a ticket call into other objects and are done without it. So are writes, for which
// is_writing_ is set before: their end is told on a thread of gRPC that would wake up only to wait for the
// lock.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public Stream,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  GenerateReactor(ServiceContext* context, grpc::CallbackServerContext* call,
                  const v1::GenerateRequest* request, Drawn drawn)
      : context_(context), call_(call), request_(request), drawn_(std::move(drawn)) {}

  void Begin(std::shared_ptr<GenerateReactor> self);

  // gRPC:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Stream:
  void Sweep(Clock::time_point now) override;
  bool Cut(const absl::Status& status) override;

 private:
  // A dispatch's view of the reactor; both have an OnDone.
  class Sink final : public dispatch::DispatchSink {
   public:
    explicit Sink(std::shared_ptr<GenerateReactor> reactor) : reactor_(std::move(reactor)) {}
    void OnEvent(const internal::v1::Event& event) override { reactor_->OnEvent(event); }
    void OnDone(const absl::Status& status, int replays) override {
      reactor_->OnDispatchDone(status, replays);
    }

   private:
    const std::shared_ptr<GenerateReactor> reactor_;
  };
  // What must be called without the lock.
  struct Unlocked {
    enum class Call { kNone, kWrite, kWriteAndFinish, kFinish };
    Call call = Call::kNone;
    grpc::Status status;  // of kFinish
    std::shared_ptr<dispatch::Dispatch> cancel;
    Admission::Ticket release;
    std::string log;
    telemetry::LogLevel log_level = telemetry::LogLevel::kInfo;
  };

  void Prepare();
  bool IsCancelled() {
    std::lock_guard lock(mutex_);
    return is_cancelled_;
  }
  bool Admit(absl::StatusOr<ValidRequest>* valid, Unlocked* unlocked);
  void StartDispatch();
  void OnEvent(const internal::v1::Event& event);
  void OnDispatchDone(const absl::Status& status, int replays);
  void Run(Unlocked unlocked);

  // With mutex_ held:
  void Refuse(const absl::Status& status, RefusalReason reason, Unlocked* unlocked);
  void NoteSummary(const internal::v1::Event& event);
  void NoteTokens(int count, Clock::time_point now);
  void CheckSlowReader(Unlocked* unlocked);
  void End(const absl::Status& status, Unlocked* unlocked);
  void Succeed(int replays, Unlocked* unlocked);
  void Stop(Unlocked* unlocked);
  void Kill();
  void Pump(Unlocked* unlocked);
  v1::GenerateResponse MakeFinal(int replays, const telemetry::RequestTimes& times) const;
  telemetry::RequestTimes Times() const;

  ServiceContext* const context_;
  const Clock::time_point arrived_ = Clock::now();
  std::shared_ptr<GenerateReactor> self_;  // gRPC's reference, until OnDone

  std::mutex mutex_;
  grpc::CallbackServerContext* call_;   // null once gRPC forgot the call
  const v1::GenerateRequest* request_;  // the same
  Drawn drawn_;
  std::optional<Clock::time_point> deadline_;
  internal::v1::Submit submit_;  // until dispatched
  std::string request_id_;
  int prompt_tokens_ = 0;
  std::unique_ptr<OutputBuilder> output_;
  Admission::Ticket ticket_;
  std::shared_ptr<dispatch::Dispatch> dispatch_;

  bool is_preparing_ = true;
  bool is_cancelled_ = false;  // by the client, its deadline or its connection
  bool was_admitted_ = false;
  bool is_dispatched_ = false;
  bool is_dispatch_done_ = false;
  bool wants_dispatch_cancelled_ = false;
  bool is_writing_ = false;
  bool is_finished_ = false;
  bool is_cut_ = false;
  bool was_ended_by_cut_ = false;  // it had not ended before
  std::optional<absl::Status> end_;
  ResponseQueue queue_;
  v1::GenerateResponse writing_;
  Clock::time_point write_began_;

  Clock::time_point dispatched_at_ = arrived_;
  std::optional<Clock::time_point> first_token_at_;
  Clock::time_point last_token_at_;
  bool has_summary_ = false;
  internal::v1::Summary summary_;
  uint32_t memory_attempt_ = 0;
  MemorySteps memory_steps_;          // of that attempt
  MemorySteps earlier_memory_steps_;  // of those before
};

void GenerateReactor::Begin(std::shared_ptr<GenerateReactor> self) {
  self_ = std::move(self);
  if (const std::optional<nanoseconds> left = TimeLeft(*call_)) deadline_ = arrived_ + *left;
  const bool is_long = TextBytes(*request_) > TextPool::kLongTextBytes;
  if (!is_long && !request_->has_chat()) {
    Prepare();
    return;
  }
  TextPool* const pool = is_long ? context_->text_pool : context_->chat_pool;
  if (pool->Run([reactor = shared_from_this()] { reactor->Prepare(); })) return;
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    Refuse(is_long
               ? ResourceExhausted("queue full: {} long prompts wait to be tokenized", TextPool::kMaxQueued)
               : ResourceExhausted("queue full: {} chats wait to be rendered", TextPool::kMaxQueuedChats),
           RefusalReason::kQueueFull, &unlocked);
  }
  Run(std::move(unlocked));
}

// Tokenizes without the lock: while is_preparing_, nobody finishes the call, so that the request stays.
void GenerateReactor::Prepare() {
  auto valid = FailWithoutMemory([this]() -> absl::StatusOr<ValidRequest> {
    if (IsCancelled()) return absl::CancelledError("cancelled by the client");
    return Validate(*request_, *context_->model, *context_->attention, context_->tunables->max_tokens.load(),
                    drawn_);
  });
  context_->streams->Add(shared_from_this());
  Unlocked unlocked;
  const bool admitted = Admit(&valid, &unlocked);
  Run(std::move(unlocked));
  if (admitted) context_->admission->StartReady();
}

bool GenerateReactor::Admit(absl::StatusOr<ValidRequest>* valid, Unlocked* unlocked) {
  std::lock_guard lock(mutex_);
  if (!valid->ok()) {
    Refuse(valid->status(), RefusalReason::kNone, unlocked);
    return false;
  }
  submit_ = std::move((*valid)->submit);
  request_id_ = submit_.request_id();
  prompt_tokens_ = submit_.prompt_size();
  if (is_cancelled_) {
    Refuse(absl::CancelledError("cancelled by the client"), RefusalReason::kNone, unlocked);
    return false;
  }
  // Who names no bound gets all that the context leaves, and seldom takes it: it counts as workers' pools
  // count it, or a few such requests would fill a long context's limit.
  int output_tokens = submit_.max_tokens();
  if (submit_.lower_to_pool()) output_tokens = std::min(output_tokens, context_->reserve_tokens);
  Admission::Outcome outcome =
      context_->admission->Admit(int64_t{prompt_tokens_} + output_tokens, submit_.priority(),
                                 [reactor = shared_from_this()] { reactor->StartDispatch(); });
  if (!outcome.status.ok()) {
    Refuse(outcome.status, outcome.reason, unlocked);
    return false;
  }
  ticket_ = std::move(outcome.ticket);
  was_admitted_ = true;
  is_preparing_ = false;
  output_ = std::make_unique<OutputBuilder>(*context_->model, (*valid)->text, submit_);
  v1::GenerateResponse started;
  started.mutable_started()->set_request_id(request_id_);
  started.mutable_started()->set_model(context_->model->name);
  started.mutable_started()->set_seed(submit_.sampling().seed());
  started.mutable_started()->set_prompt_token_count(prompt_tokens_);
  queue_.Push(std::move(started));
  Pump(unlocked);
  return true;
}

void GenerateReactor::Refuse(const absl::Status& status, RefusalReason reason, Unlocked* unlocked) {
  is_preparing_ = false;
  end_ = status;
  if (reason == RefusalReason::kTooManyTokens) {
    AddPushback(call_, -1);
  } else if (reason == RefusalReason::kQueueFull || reason == RefusalReason::kTokensInFlight) {
    AddPushback(call_, context_->tunables->retry_pushback_ms.load());
  }
  switch (reason) {
    case RefusalReason::kQueueFull:
      context_->metrics->RequestRejected("queue_full");
      break;
    case RefusalReason::kTokensInFlight:
    case RefusalReason::kTooManyTokens:
      context_->metrics->RequestRejected("tokens_in_flight");
      break;
    case RefusalReason::kDraining:
      context_->metrics->RequestRejected("draining");
      break;
    case RefusalReason::kNone:
      CountRefusal(status, context_->metrics);
      break;
  }
  telemetry::LogRequest(telemetry::LogLevel::kDebug, request_id_.empty() ? drawn_.request_id : request_id_,
                        fmt::format("refused: {}: {}", CodeName(status.code()), StatusMessage(status)));
  Pump(unlocked);
}

// Admission lets it run.
void GenerateReactor::StartDispatch() {
  internal::v1::Submit submit;
  {
    std::unique_lock lock(mutex_);
    if (end_.has_value()) {
      Admission::Ticket ticket = std::move(ticket_);
      lock.unlock();
      return;  // the ticket is released
    }
    is_dispatched_ = true;
    dispatched_at_ = Clock::now();
    submit = std::move(submit_);
  }
  context_->metrics->AddPromptTokens(prompt_tokens_);
  auto dispatch =
      context_->dispatcher->Start(std::move(submit), deadline_, std::make_shared<Sink>(shared_from_this()));
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    if (is_dispatch_done_) return;
    dispatch_ = dispatch;
    cancel = wants_dispatch_cancelled_;
  }
  // It was cancelled while it started, when there was nothing yet to cancel.
  if (cancel) dispatch->Cancel();
}

void GenerateReactor::OnEvent(const internal::v1::Event& event) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    if (end_.has_value()) return;
    NoteSummary(event);
    if (output_->is_finished()) return;
    const Clock::time_point now = Clock::now();
    const int before = output_->completion_tokens();
    if (const absl::Status status = output_->Add(event, &queue_); !status.ok()) {
      End(status, &unlocked);
      Stop(&unlocked);
    } else {
      NoteTokens(output_->completion_tokens() - before, now);
      if (output_->is_finished() && !event.has_finish()) Stop(&unlocked);
      CheckSlowReader(&unlocked);
    }
    // With the last event, too: the last token does not wait for what the end takes.
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void GenerateReactor::OnDispatchDone(const absl::Status& status, int replays) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    is_dispatch_done_ = true;
    dispatch_ = nullptr;
    unlocked.release = std::move(ticket_);
    if (!end_.has_value()) {
      // Decided by the tokens: what became of the worker after that does not matter.
      if (output_->is_finished()) {
        Succeed(replays, &unlocked);
      } else if (status.ok()) {
        End(Internal("a worker ended the request without saying why"), &unlocked);
      } else {
        End(status, &unlocked);
      }
    }
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void GenerateReactor::Run(Unlocked unlocked) {
  switch (unlocked.call) {
    case Unlocked::Call::kNone:
      break;
    case Unlocked::Call::kWrite:
      StartWrite(&writing_);
      break;
    case Unlocked::Call::kWriteAndFinish:
      StartWriteAndFinish(&writing_, grpc::WriteOptions(), grpc::Status::OK);
      break;
    case Unlocked::Call::kFinish:
      Finish(unlocked.status);
      break;
  }
  if (unlocked.cancel) unlocked.cancel->Cancel();
  unlocked.release.Release();
  if (!unlocked.log.empty()) telemetry::LogRequest(unlocked.log_level, request_id_, unlocked.log);
}

void GenerateReactor::OnWriteDone(bool ok) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    is_writing_ = false;
    // A write fails when the call is gone; OnCancel comes, too, and says so.
    if (!ok) queue_.Clear();
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void GenerateReactor::OnCancel() {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    queue_.Clear();
    if (is_preparing_) return;  // Prepare ends it
    if (!end_.has_value()) {
      // gRPC rounds a deadline up on its way here, so that the client's own end of the call may come first.
      const Clock::time_point now = Clock::now();
      const bool is_late = deadline_.has_value() && now + (*deadline_ - arrived_) / 32 >= *deadline_;
      End(is_late ? absl::DeadlineExceededError("the deadline of the call has passed")
                  : absl::CancelledError("cancelled by the client"),
          &unlocked);
      Stop(&unlocked);
    }
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void GenerateReactor::OnDone() {
  Streams::End end = Streams::End::kRefused;
  {
    std::lock_guard lock(mutex_);
    call_ = nullptr;
    request_ = nullptr;
    if (was_admitted_) end = was_ended_by_cut_ ? Streams::End::kCut : Streams::End::kFinished;
  }
  context_->streams->Remove(this, end);
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
}

void GenerateReactor::Sweep(Clock::time_point now) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    if (call_ == nullptr || !(is_writing_ || is_finished_)) return;
    const auto timeout =
        is_cut_ ? kCutGrace : std::chrono::milliseconds(context_->tunables->slow_reader_timeout_ms.load());
    if (now - write_began_ < timeout) return;
    if (!end_.has_value()) {
      End(absl::CancelledError(fmt::format(
              "the client has taken nothing for {} ms (server.slow_reader_timeout_ms)", timeout.count())),
          &unlocked);
      Stop(&unlocked);
    }
    Kill();
  }
  Run(std::move(unlocked));
}

bool GenerateReactor::Cut(const absl::Status& status) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    is_cut_ = true;
    if (end_.has_value() || is_preparing_) return false;
    was_ended_by_cut_ = true;
    End(status, &unlocked);
    Stop(&unlocked);
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
  return true;
}

void GenerateReactor::NoteSummary(const internal::v1::Event& event) {
  if (!event.has_summary()) return;
  // Of an attempt the latest one, of all attempts the sum.
  if (event.summary().memory_steps_size() > 0) {
    if (event.attempt() != memory_attempt_) AddMemorySteps(memory_steps_, &earlier_memory_steps_);
    memory_attempt_ = event.attempt();
    memory_steps_ = event.summary().memory_steps();
  }
  // The first one counts: after a replay the worker's figures are those of the repeated work.
  if (has_summary_ || (event.token_ids_size() == 0 && !event.has_finish())) return;
  has_summary_ = true;
  summary_ = event.summary();
}

void GenerateReactor::NoteTokens(int count, Clock::time_point now) {
  if (count <= 0) return;
  context_->metrics->AddGenerationTokens(count);
  if (!first_token_at_.has_value()) {
    first_token_at_ = now;
    context_->metrics->ObserveTimeToFirstToken(now - arrived_);
    --count;  // its gap is the time to first token
    last_token_at_ = now;
  }
  for (int i = 0; i < count; ++i) context_->metrics->ObserveInterTokenLatency((now - last_token_at_) / count);
  last_token_at_ = now;
}

void GenerateReactor::CheckSlowReader(Unlocked* unlocked) {
  const int most = context_->tunables->slow_reader_max_tokens.load();
  if (queue_.waiting_tokens() <= most || end_.has_value()) return;
  End(absl::CancelledError(fmt::format(
          "the client reads too slowly: more than {} tokens wait for it (server.slow_reader_max_tokens)",
          most)),
      unlocked);
  Stop(unlocked);
  Kill();
}

// The one place where an admitted request ends without success.
void GenerateReactor::End(const absl::Status& status, Unlocked* unlocked) {
  end_ = status;
  context_->metrics->RequestFailed(CodeName(status.code()));
  const bool is_own_fault = status.code() == absl::StatusCode::kInternal ||
                            status.code() == absl::StatusCode::kDataLoss ||
                            status.code() == absl::StatusCode::kUnavailable;
  unlocked->log_level = is_own_fault ? telemetry::LogLevel::kWarn : telemetry::LogLevel::kInfo;
  unlocked->log = fmt::format("ended: {}: {}, after {} tokens", CodeName(status.code()),
                              StatusMessage(status), output_->completion_tokens());
}

void GenerateReactor::Succeed(int replays, Unlocked* unlocked) {
  end_ = absl::OkStatus();
  const telemetry::RequestTimes times = Times();
  queue_.Push(MakeFinal(replays, times));
  context_->metrics->RequestSucceeded(ReasonName(output_->reason()), times);
  unlocked->log = fmt::format(
      "finished: {}, {} prompt tokens ({} cached), {} tokens, first after {:.1f} ms, total {:.1f} ms, "
      "{} replays",
      ReasonName(output_->reason()), prompt_tokens_, summary_.cached_prompt_tokens(), times.completion_tokens,
      Milliseconds(times.time_to_first_token), Milliseconds(times.total), replays);
}

// Has the worker drop the request, or gives up its place in the queue.
void GenerateReactor::Stop(Unlocked* unlocked) {
  if (is_dispatch_done_) return;
  if (is_dispatched_) {
    wants_dispatch_cancelled_ = true;
    unlocked->cancel = dispatch_;
  } else {
    unlocked->release = std::move(ticket_);
  }
}

// For a client that reads nothing: a status would wait behind the data that it does not take, so the call is
// reset.
void GenerateReactor::Kill() {
  queue_.Clear();
  if (call_ != nullptr) call_->TryCancel();
}

// Decides what gRPC is told next; Run does it.
void GenerateReactor::Pump(Unlocked* unlocked) {
  if (is_preparing_ || is_writing_ || is_finished_) return;
  if (!queue_.empty()) {
    queue_.Pop(&writing_);
    write_began_ = Clock::now();
    if (queue_.empty() && end_.has_value() && end_->ok()) {
      is_finished_ = true;
      unlocked->call = Unlocked::Call::kWriteAndFinish;
    } else {
      is_writing_ = true;
      unlocked->call = Unlocked::Call::kWrite;
    }
  } else if (end_.has_value()) {
    is_finished_ = true;
    write_began_ = Clock::now();
    // A refusal of a worker; those before it say more.
    if (is_dispatched_ && absl::IsResourceExhausted(*end_) && call_ != nullptr)
      AddPushback(call_, context_->tunables->retry_pushback_ms.load());
    unlocked->call = Unlocked::Call::kFinish;
    unlocked->status = ToGrpcStatus(*end_);
  }
}

telemetry::RequestTimes GenerateReactor::Times() const {
  const Clock::time_point now = Clock::now();
  telemetry::RequestTimes times;
  times.queue = dispatched_at_ - arrived_ + nanoseconds(summary_.queue_ns());
  times.prefill = nanoseconds(summary_.prefill_ns());
  times.total = now - arrived_;
  times.prompt_tokens = prompt_tokens_;
  times.completion_tokens = output_->completion_tokens();
  times.has_first_token = first_token_at_.has_value();
  if (first_token_at_.has_value()) {
    times.decode = last_token_at_ - *first_token_at_;
    times.time_to_first_token = *first_token_at_ - arrived_;
  }
  return times;
}

v1::GenerateResponse GenerateReactor::MakeFinal(int replays, const telemetry::RequestTimes& times) const {
  v1::GenerateResponse response;
  v1::Final* final = response.mutable_final();
  final->set_finish_reason(output_->reason());
  final->set_stop_matched(output_->stop_matched());
  final->set_replays(replays);
  final->mutable_usage()->set_prompt_tokens(prompt_tokens_);
  final->mutable_usage()->set_cached_prompt_tokens(summary_.cached_prompt_tokens());
  final->mutable_usage()->set_completion_tokens(times.completion_tokens);
  v1::Timing* timing = final->mutable_timing();
  SetDuration(times.queue, timing->mutable_queue());
  SetDuration(times.prefill, timing->mutable_prefill());
  SetDuration(times.decode, timing->mutable_decode());
  if (times.has_first_token) SetDuration(times.time_to_first_token, timing->mutable_time_to_first_token());
  SetDuration(times.total, timing->mutable_total());
  MemorySteps memory_steps = earlier_memory_steps_;
  AddMemorySteps(memory_steps_, &memory_steps);
  std::stable_sort(memory_steps.begin(), memory_steps.end(),
                   [](const internal::v1::MemoryStep& a, const internal::v1::MemoryStep& b) {
                     return a.step() < b.step();
                   });
  for (const internal::v1::MemoryStep& step : memory_steps) {
    v1::MemoryStep* out = final->add_memory_steps();
    out->set_step(static_cast<v1::MemoryStep::Step>(step.step()));
    out->set_method(step.method());
    out->set_device(step.device());
    SetDuration(nanoseconds(step.time_ns()), out->mutable_time());
    out->set_bytes_moved(step.bytes_moved());
    out->set_round_trips(step.round_trips());
    out->set_count(step.count());
  }
  return response;
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(ServiceContext* context,
                                                              grpc::CallbackServerContext* call,
                                                              const v1::GenerateRequest* request,
                                                              Drawn drawn) {
  auto reactor = std::make_shared<GenerateReactor>(context, call, request, std::move(drawn));
  GenerateReactor* raw = reactor.get();
  raw->Begin(std::move(reactor));
  return raw;
}

void AddPushback(grpc::CallbackServerContext* call, int milliseconds) {
  call->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(milliseconds));
}

void CountRefusal(const absl::Status& status, telemetry::Metrics* metrics) {
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented:
      metrics->RequestRejected("unimplemented");
      break;
    case absl::StatusCode::kNotFound:
      metrics->RequestRejected("not_found");
      break;
    case absl::StatusCode::kResourceExhausted:
      metrics->RequestRejected("queue_full");
      break;
    case absl::StatusCode::kInvalidArgument:
      metrics->RequestRejected("invalid");
      break;
    default:
      break;  // the client left
  }
}

}  // namespace mnemo::frontend
