#include "server/frontend/request_core.h"

#include <algorithm>
#include <utility>

#include "server/frontend/status_text.h"

namespace mnemo::frontend {
namespace {

using std::chrono::nanoseconds;

// The time that a stream which a drain has cut gets to take its status.
constexpr std::chrono::milliseconds kCutGrace{1000};

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

double Milliseconds(nanoseconds value) { return static_cast<double>(value.count()) / 1e6; }

}  // namespace

// A dispatch's view of the core.
class RequestCore::SubmissionSink final : public dispatch::DispatchSink {
 public:
  SubmissionSink(std::shared_ptr<RequestCore> core, size_t submission)
      : core_(std::move(core)), submission_(submission) {}
  void OnEvent(const internal::v1::Event& event) override { core_->OnEvent(submission_, event); }
  void OnDone(const absl::Status& status, int replays) override {
    core_->OnDispatchDone(submission_, status, replays);
  }

 private:
  const std::shared_ptr<RequestCore> core_;
  const size_t submission_;
};

RequestCore::RequestCore(ServiceContext* context, std::shared_ptr<RequestSink> sink,
                         const v1::GenerateRequest* request, Drawn drawn,
                         std::optional<nanoseconds> time_left)
    : context_(context), sink_(std::move(sink)), request_(request), drawn_(std::move(drawn)) {
  if (time_left.has_value()) deadline_ = arrived_ + *time_left;
}

// Admission lets it run.
void RequestCore::StartDispatch() {
  Unlocked unlocked;
  for (size_t i = 0;; ++i) {
    internal::v1::Submit submit;
    int prompt_tokens = 0;
    {
      std::lock_guard lock(mutex_);
      if (end_.has_value()) ReleaseIfSettled(&unlocked);
      if (end_.has_value() || i == running_.size()) break;
      if (!is_dispatched_) dispatched_at_ = Clock::now();
      is_dispatched_ = true;
      running_[i].is_dispatched = true;
      submit = std::move(running_[i].submit);
      prompt_tokens = running_[i].output.prompt_tokens();
    }
    context_->metrics->AddPromptTokens(prompt_tokens);
    auto dispatch = context_->dispatcher->Start(std::move(submit), deadline_,
                                                std::make_shared<SubmissionSink>(shared_from_this(), i));
    bool cancel = false;
    {
      std::lock_guard lock(mutex_);
      if (running_[i].is_done) continue;
      running_[i].dispatch = dispatch;
      cancel = running_[i].wants_cancel;
    }
    // It was cancelled while it started, when there was nothing yet to cancel.
    if (cancel) dispatch->Cancel();
  }
  Run(std::move(unlocked));
}

void RequestCore::OnEvent(size_t submission, const internal::v1::Event& event) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    if (end_.has_value()) return;
    Running& running = running_[submission];
    const bool was_finished = running.output.is_finished();
    const absl::Status status = running.output.Add(event);
    if (was_finished) return;
    if (!status.ok()) {
      End(status, &unlocked);
    } else {
      if (running.output.is_finished() && !event.has_finish()) Stop(&running, &unlocked);
      CheckSlowReader(&unlocked);
    }
    // With the last event, too: the last token does not wait for what the end takes.
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void RequestCore::OnDispatchDone(size_t submission, const absl::Status& status, int replays) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    Running& running = running_[submission];
    running.is_done = true;
    running.dispatch = nullptr;
    if (!end_.has_value()) {
      // Decided by the tokens: what became of the worker after that does not matter.
      if (running.output.is_finished()) {
        Succeed(&running, replays, &unlocked);
      } else if (status.ok()) {
        End(Internal("a worker ended the request without saying why"), &unlocked);
      } else {
        End(status, &unlocked);
      }
    }
    ReleaseIfSettled(&unlocked);
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void RequestCore::Run(Unlocked unlocked) {
  switch (unlocked.call) {
    case Unlocked::Call::kNone:
      break;
    case Unlocked::Call::kWrite:
      sink_->Write(unlocked.submission, writing_);
      break;
    case Unlocked::Call::kWriteAndFinish:
      sink_->WriteAndFinish(unlocked.submission, writing_);
      break;
    case Unlocked::Call::kFinish:
      sink_->Finish(unlocked.status, unlocked.pushback_ms);
      break;
  }
  for (const std::shared_ptr<dispatch::Dispatch>& dispatch : unlocked.cancel) dispatch->Cancel();
  unlocked.release.Release();
  if (!unlocked.log.empty()) telemetry::LogRequest(unlocked.log_level, request_id_, unlocked.log);
}

void RequestCore::OnWriteDone(bool ok) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    is_writing_ = false;
    if (!ok) ClearQueues();
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
}

void RequestCore::OnCancel() {
  Unlocked unlocked;
  std::shared_ptr<PromptPass::Call> pass;
  {
    std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    ClearQueues();
    pass = pass_;
    if (!is_preparing_ && !end_.has_value()) {
      // gRPC rounds a deadline up on its way here, so that the client's own end of the call may come first.
      const Clock::time_point now = Clock::now();
      const bool is_late = deadline_.has_value() && now + (*deadline_ - arrived_) / 32 >= *deadline_;
      End(is_late ? absl::DeadlineExceededError("the deadline of the call has passed")
                  : absl::CancelledError("cancelled by the client"),
          &unlocked);
    }
    // Does nothing while the request is being prepared: Admit ends it then.
    Pump(&unlocked);
  }
  Run(std::move(unlocked));
  if (pass != nullptr) pass->Cancel();
}

void RequestCore::OnClosed() {
  Streams::End end = Streams::End::kRefused;
  {
    std::lock_guard lock(mutex_);
    is_closed_ = true;
    request_ = nullptr;
    if (was_admitted_) end = was_ended_by_cut_ ? Streams::End::kCut : Streams::End::kFinished;
  }
  context_->streams->Remove(this, end);
}

void RequestCore::Sweep(Clock::time_point now) {
  Unlocked unlocked;
  {
    std::lock_guard lock(mutex_);
    if (is_closed_ || !(is_writing_ || is_finished_)) return;
    const auto timeout =
        is_cut_ ? kCutGrace : std::chrono::milliseconds(context_->tunables->slow_reader_timeout_ms.load());
    if (now - write_began_ < timeout) return;
    if (!end_.has_value()) {
      End(absl::CancelledError(fmt::format(
              "the client has taken nothing for {} ms (server.slow_reader_timeout_ms)", timeout.count())),
          &unlocked);
    }
    Abort();
  }
  Run(std::move(unlocked));
}

bool RequestCore::Cut(const absl::Status& status) {
  Unlocked unlocked;
  std::shared_ptr<PromptPass::Call> pass;
  bool was_ended = false;
  {
    std::lock_guard lock(mutex_);
    is_cut_ = true;
    if (is_preparing_ && is_in_pass_) {
      pass_cut_ = status;
      pass = pass_;
    }
    if (!end_.has_value() && !is_preparing_) {
      was_ended = true;
      was_ended_by_cut_ = true;
      End(status, &unlocked);
      Pump(&unlocked);
    }
  }
  Run(std::move(unlocked));
  if (pass != nullptr) pass->Cancel();
  return was_ended;
}

void RequestCore::CheckSlowReader(Unlocked* unlocked) {
  const int most = context_->tunables->slow_reader_max_tokens.load();
  int waiting = 0;
  for (const Running& running : running_) waiting += running.output.queue().waiting_tokens();
  if (waiting <= most || end_.has_value()) return;
  End(absl::CancelledError(fmt::format(
          "the client reads too slowly: more than {} tokens wait for it (server.slow_reader_max_tokens)",
          most)),
      unlocked);
  Abort();
}

// The one place where an admitted request ends without success. Has the workers drop it, or gives up its
// place in the queue.
void RequestCore::End(const absl::Status& status, Unlocked* unlocked) {
  end_ = status;
  context_->metrics->RequestFailed(CodeName(status.code()));
  const bool is_own_fault = status.code() == absl::StatusCode::kInternal ||
                            status.code() == absl::StatusCode::kDataLoss ||
                            status.code() == absl::StatusCode::kUnavailable;
  unlocked->log_level = is_own_fault ? telemetry::LogLevel::kWarn : telemetry::LogLevel::kInfo;
  int tokens = 0;
  for (Running& running : running_) {
    tokens += running.output.completion_tokens();
    Stop(&running, unlocked);
  }
  unlocked->log =
      fmt::format("ended: {}: {}, after {} tokens", CodeName(status.code()), StatusMessage(status), tokens);
  ReleaseIfSettled(unlocked);
}

void RequestCore::Succeed(Running* running, int replays, Unlocked* unlocked) {
  SubmissionOutput& output = running->output;
  const telemetry::RequestTimes times = output.PushFinal(dispatched_at_, replays);
  const bool is_last =
      std::all_of(running_.begin(), running_.end(), [](const Running& each) { return each.is_done; });
  if (is_last) end_ = absl::OkStatus();
  context_->metrics->RequestSucceeded(ReasonName(output.reason()), times);
  unlocked->log = fmt::format(
      "finished: {}, {} prompt tokens ({} cached), {} tokens, first after {:.1f} ms, total {:.1f} ms, "
      "{} replays",
      ReasonName(output.reason()), times.prompt_tokens, output.cached_prompt_tokens(),
      times.completion_tokens, Milliseconds(times.time_to_first_token), Milliseconds(times.total), replays);
}

// Has the worker drop one submission.
void RequestCore::Stop(Running* running, Unlocked* unlocked) {
  if (!running->is_dispatched || running->is_done) return;
  running->wants_cancel = true;
  if (running->dispatch != nullptr) unlocked->cancel.push_back(running->dispatch);
}

// Gives the ticket of admission back once no submission is at a worker or will come to one.
void RequestCore::ReleaseIfSettled(Unlocked* unlocked) {
  const bool will_not_start = end_.has_value();
  for (const Running& running : running_) {
    if (running.is_dispatched ? !running.is_done : !will_not_start) return;
  }
  if (ticket_.is_held()) unlocked->release = std::move(ticket_);
}

void RequestCore::ClearQueues() {
  for (Running& running : running_) running.output.queue().Clear();
}

void RequestCore::Abort() {
  ClearQueues();
  if (!is_closed_) sink_->Abort();
}

// The submission whose turn it is to be written, in a circle; -1: nothing waits.
int RequestCore::NextToWrite() const {
  const int count = static_cast<int>(running_.size());
  for (int i = 0; i < count; ++i) {
    const int at = (next_turn_ + i) % count;
    if (!running_[at].output.queue().empty()) return at;
  }
  return -1;
}

// Decides what the sink is told next; Run does it.
void RequestCore::Pump(Unlocked* unlocked) {
  if (is_preparing_ || is_writing_ || is_finished_) return;
  if (const int next = NextToWrite(); next >= 0) {
    running_[next].output.queue().Pop(&writing_);
    next_turn_ = (next + 1) % static_cast<int>(running_.size());
    write_began_ = Clock::now();
    unlocked->submission = next;
    if (end_.has_value() && end_->ok() && NextToWrite() < 0) {
      is_finished_ = true;
      unlocked->call = Unlocked::Call::kWriteAndFinish;
    } else {
      is_writing_ = true;
      unlocked->call = Unlocked::Call::kWrite;
    }
  } else if (end_.has_value()) {
    is_finished_ = true;
    write_began_ = Clock::now();
    unlocked->call = Unlocked::Call::kFinish;
    unlocked->status = *end_;
    unlocked->pushback_ms = pushback_ms_;
    // A refusal of a worker; those before it say more.
    if (is_dispatched_ && absl::IsResourceExhausted(*end_)) {
      unlocked->pushback_ms = context_->tunables->retry_pushback_ms.load();
    }
  }
}

}  // namespace mnemo::frontend
