// The course of one request, independent of its transport: prepare, passes, admission, dispatch, output with
// back-pressure, and the end. It uses no gRPC; a RequestSink receives its output.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"
#include "mnemo/v1/generation.pb.h"
#include "server/frontend/admission.h"
#include "server/frontend/prompt_pass.h"
#include "server/frontend/request_sink.h"
#include "server/frontend/service_context.h"
#include "server/frontend/streams.h"
#include "server/frontend/submission_output.h"
#include "server/frontend/validate.h"
#include "server/telemetry/crash_report.h"
#include "server/telemetry/logging.h"

namespace mnemo::frontend {

// States: preparing (tokenizing, perhaps on the text pool, then the passes), admitted (queued, then at
// workers), ended, finished, closed. In state ended, end_ is set and no output is added. In state finished,
// the sink has the end. In state closed, the sink no longer uses the request.
//
// Thread-safe; no call blocks, but Begin of a short prompt takes the time of tokenizing it. Events of workers
// come on threads of the dispatcher.
//
// Locks: mutex_ may be held while taking Admission's (Admit), never the other way round. Cancel of a dispatch
// or of a pass and Release of a ticket call into other objects and are done without it. So are writes, for
// which is_writing_ is set before: their end may be told on another thread, which would wake up only to wait
// for the lock.
class RequestCore final : public Stream, public std::enable_shared_from_this<RequestCore> {
 public:
  // `context` outlives the object. `request` lives until OnClosed. `time_left`: to the deadline, none: no
  // deadline. The core keeps `sink` for as long as it lives itself.
  RequestCore(ServiceContext* context, std::shared_ptr<RequestSink> sink, const v1::GenerateRequest* request,
              Drawn drawn, std::optional<std::chrono::nanoseconds> time_left);

  // Once, before all other calls. Keep a reference until OnClosed.
  void Begin();

  // From the sink:
  // The reader can take the next message; `ok` false: it is gone, and OnCancel comes, too.
  void OnWriteDone(bool ok);
  // The client cancelled, its deadline passed, or its connection is lost.
  void OnCancel();
  // The last call of the sink, after Finish or WriteAndFinish. `request` is not used any more, nor is the
  // sink.
  void OnClosed();

  // Stream:
  void Sweep(std::chrono::steady_clock::time_point now) override;
  bool Cut(const absl::Status& status) override;

 private:
  using Clock = std::chrono::steady_clock;
  class SubmissionSink;

  // One submission, admitted.
  struct Running {
    // Moved to the dispatcher when it is dispatched.
    internal::v1::Submit submit;
    SubmissionOutput output;
    std::shared_ptr<dispatch::Dispatch> dispatch = nullptr;
    bool is_dispatched = false;
    // The dispatcher has no more to say of it.
    bool is_done = false;
    bool wants_cancel = false;
  };
  // Calls to other objects, decided with the lock held and made without it.
  struct Unlocked {
    enum class Call { kNone, kWrite, kWriteAndFinish, kFinish };
    Call call = Call::kNone;
    // The submission of a write; status and pause of kFinish.
    int submission = 0;
    absl::Status status;
    std::optional<int> pushback_ms;
    std::vector<std::shared_ptr<dispatch::Dispatch>> cancel;
    Admission::Ticket release;
    std::string log;
    telemetry::LogLevel log_level = telemetry::LogLevel::kInfo;
  };

  void Prepare();
  void RunPass(size_t index, absl::StatusOr<PreparedRequest> prepared);
  void OnPassDone(size_t index, absl::StatusOr<PreparedRequest> prepared);
  void FinishPrepare(absl::StatusOr<PreparedRequest> prepared);
  bool Admit(absl::StatusOr<PreparedRequest>* prepared, Unlocked* unlocked);
  void StartDispatch();
  void OnEvent(size_t submission, const internal::v1::Event& event);
  void OnDispatchDone(size_t submission, const absl::Status& status, int replays);
  void Run(Unlocked unlocked);
  bool IsCancelled();
  absl::Status CheckPasses(PreparedRequest* prepared) const;
  int64_t TokensToAdmit(const PreparedRequest& prepared) const;

  // With mutex_ held:
  void Refuse(const absl::Status& status, RefusalReason reason, Unlocked* unlocked);
  void CheckSlowReader(Unlocked* unlocked);
  void End(const absl::Status& status, Unlocked* unlocked);
  void Succeed(Running* running, int replays, Unlocked* unlocked);
  void Stop(Running* running, Unlocked* unlocked);
  void ReleaseIfSettled(Unlocked* unlocked);
  void ClearQueues();
  void Abort();
  void Pump(Unlocked* unlocked);
  int NextToWrite() const;

  ServiceContext* const context_;
  const std::shared_ptr<RequestSink> sink_;
  const Clock::time_point arrived_ = Clock::now();
  // Set by the constructor alone.
  std::optional<Clock::time_point> deadline_;

  std::mutex mutex_;
  // Null once closed.
  const v1::GenerateRequest* request_;
  Drawn drawn_;
  std::string request_id_;
  // From admission to the end of the object.
  std::optional<telemetry::RunningRequest> in_crash_reports_;
  std::shared_ptr<PromptPass::Call> pass_;
  size_t passes_done_ = 0;
  std::vector<Running> running_;
  // The submission to be written next, if it has a message.
  int next_turn_ = 0;
  Admission::Ticket ticket_;

  bool is_preparing_ = true;
  bool is_in_pass_ = false;
  // By the client, its deadline or its connection.
  bool is_cancelled_ = false;
  bool was_admitted_ = false;
  bool is_dispatched_ = false;
  bool is_writing_ = false;
  bool is_finished_ = false;
  bool is_closed_ = false;
  bool is_cut_ = false;
  // The cut came before any other end.
  bool was_ended_by_cut_ = false;
  // The status of a cut that came while a pass ran.
  std::optional<absl::Status> pass_cut_;
  std::optional<int> pushback_ms_;
  std::optional<absl::Status> end_;
  v1::GenerateResponse writing_;
  Clock::time_point write_began_;
  Clock::time_point dispatched_at_ = arrived_;
};

}  // namespace mnemo::frontend
