// The core's way from a request to its place in the queue: prepare, passes, admission.
#include <algorithm>
#include <utility>

#include "server/frontend/out_of_memory.h"
#include "server/frontend/request_core.h"
#include "server/frontend/status_text.h"

namespace mnemo::frontend {
namespace {

// Counts a refusal of a request that admission has not seen.
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
      break;  // the client is gone
  }
}

}  // namespace

void RequestCore::Begin() {
  const bool is_long = TextBytes(*request_) > TextPool::kLongTextBytes;
  if (!is_long && !request_->has_chat()) {
    Prepare();
    return;
  }
  TextPool* const pool = is_long ? context_->text_pool : context_->chat_pool;
  if (pool->Run([core = shared_from_this()] { core->Prepare(); })) return;
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

bool RequestCore::IsCancelled() {
  std::lock_guard lock(mutex_);
  return is_cancelled_;
}

// Tokenizes without the lock: while is_preparing_, nobody ends the request, so that `request_` stays.
void RequestCore::Prepare() {
  auto prepared = FailWithoutMemory([this]() -> absl::StatusOr<PreparedRequest> {
    if (IsCancelled()) return absl::CancelledError("cancelled by the client");
    MNEMO_ASSIGN_OR_RETURN(Submission submission, Validate(*request_, *context_->model, *context_->attention,
                                                           context_->tunables->max_tokens.load(), drawn_));
    PreparedRequest result;
    result.submissions.push_back(std::move(submission));
    return result;
  });
  context_->streams->Add(shared_from_this());
  RunPass(0, std::move(prepared));
}

void RequestCore::RunPass(size_t index, absl::StatusOr<PreparedRequest> prepared) {
  bool goes_on = prepared.ok() && index < context_->passes.size();
  if (goes_on) {
    std::lock_guard lock(mutex_);
    goes_on = !is_cancelled_ && !pass_cut_.has_value();
    is_in_pass_ = true;
  }
  if (!goes_on) {
    FinishPrepare(std::move(prepared));
    return;
  }
  std::shared_ptr<PromptPass::Call> call = context_->passes[index]->Start(
      *request_, *std::move(prepared),
      [core = shared_from_this(), index](absl::StatusOr<PreparedRequest> changed) {
        core->OnPassDone(index, std::move(changed));
      });
  {
    std::lock_guard lock(mutex_);
    if (call == nullptr || passes_done_ > index) return;
    pass_ = call;
    if (!is_cancelled_ && !pass_cut_.has_value()) return;
  }
  // It was cancelled while it started, when there was nothing yet to cancel.
  call->Cancel();
}

void RequestCore::OnPassDone(size_t index, absl::StatusOr<PreparedRequest> prepared) {
  std::shared_ptr<PromptPass::Call> done;  // destroyed without the lock
  {
    std::lock_guard lock(mutex_);
    MNEMO_CHECK(passes_done_ == index);
    passes_done_ = index + 1;
    done = std::move(pass_);
    if (!prepared.ok() && is_cancelled_) prepared = absl::CancelledError("cancelled by the client");
  }
  RunPass(index + 1, std::move(prepared));
}

void RequestCore::FinishPrepare(absl::StatusOr<PreparedRequest> prepared) {
  if (prepared.ok() && !context_->passes.empty()) {
    if (const absl::Status status = CheckPasses(&*prepared); !status.ok()) prepared = status;
  }
  Unlocked unlocked;
  const bool admitted = Admit(&prepared, &unlocked);
  Run(std::move(unlocked));
  if (admitted) context_->admission->StartReady();
}

// The passes' result, before workers get it.
absl::Status RequestCore::CheckPasses(PreparedRequest* prepared) const {
  const auto count = static_cast<int>(prepared->submissions.size());
  const int most = sink_->max_submissions();
  if (count < 1 || count > most) {
    return Internal("a request became {} submissions; allowed: [1, {}]", count, most);
  }
  for (Submission& submission : prepared->submissions) {
    MNEMO_RETURN_IF_ERROR(FitToContext(*context_->model, &submission.submit));
  }
  return absl::OkStatus();
}

// A request without max_tokens gets all that the context leaves, and seldom takes it. It counts as workers'
// pools count it, or a few such requests would fill the limit of a long context.
int64_t RequestCore::TokensToAdmit(const PreparedRequest& prepared) const {
  int64_t tokens = 0;
  for (const Submission& submission : prepared.submissions) {
    int output_tokens = submission.submit.max_tokens();
    if (submission.submit.lower_to_pool()) output_tokens = std::min(output_tokens, context_->reserve_tokens);
    tokens += int64_t{submission.submit.prompt_size()} + output_tokens;
  }
  return tokens;
}

bool RequestCore::Admit(absl::StatusOr<PreparedRequest>* prepared, Unlocked* unlocked) {
  std::lock_guard lock(mutex_);
  if (pass_cut_.has_value() && !is_cancelled_) {
    Refuse(*pass_cut_, RefusalReason::kDraining, unlocked);
    return false;
  }
  if (!prepared->ok()) {
    Refuse(prepared->status(), RefusalReason::kNone, unlocked);
    return false;
  }
  const internal::v1::Submit& first = (*prepared)->submissions.front().submit;
  request_id_ = first.request_id();
  if (is_cancelled_) {
    Refuse(absl::CancelledError("cancelled by the client"), RefusalReason::kNone, unlocked);
    return false;
  }
  Admission::Outcome outcome = context_->admission->Admit(
      TokensToAdmit(**prepared), first.priority(), [core = shared_from_this()] { core->StartDispatch(); });
  if (!outcome.status.ok()) {
    Refuse(outcome.status, outcome.reason, unlocked);
    return false;
  }
  ticket_ = std::move(outcome.ticket);
  was_admitted_ = true;
  in_crash_reports_.emplace(request_id_);
  is_preparing_ = false;
  running_.reserve((*prepared)->submissions.size());
  for (Submission& submission : (*prepared)->submissions) {
    SubmissionOutput output(*context_->model, submission, arrived_, context_->metrics, context_->energy);
    running_.push_back({.submit = std::move(submission.submit), .output = std::move(output)});
  }
  Pump(unlocked);
  return true;
}

void RequestCore::Refuse(const absl::Status& status, RefusalReason reason, Unlocked* unlocked) {
  is_preparing_ = false;
  end_ = status;
  switch (reason) {
    case RefusalReason::kQueueFull:
      pushback_ms_ = context_->tunables->retry_pushback_ms.load();
      context_->metrics->RequestRejected("queue_full");
      break;
    case RefusalReason::kTokensInFlight:
      pushback_ms_ = context_->tunables->retry_pushback_ms.load();
      context_->metrics->RequestRejected("tokens_in_flight");
      break;
    case RefusalReason::kTooManyTokens:
      pushback_ms_ = -1;
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

}  // namespace mnemo::frontend
