#include "server/frontend/generate_reactor.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/frontend/request_core.h"
#include "server/frontend/status_mapping.h"

namespace mnemo::frontend {
namespace {

using std::chrono::nanoseconds;

// The time left to the call's deadline; nothing without a deadline or with one that is never reached. gRPC's
// deadline() counts nanoseconds, which end in the year 2262. The value that clients send for "for ever" (292
// years in Go and Java) wraps around there and would be over at once.
std::optional<nanoseconds> TimeLeft(const grpc::CallbackServerContext& call) {
  constexpr std::chrono::seconds kNever = std::chrono::hours(24) * 365 * 100;
  const gpr_timespec deadline = call.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return std::nullopt;
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  if (left.tv_sec >= kNever.count()) return std::nullopt;
  return std::chrono::seconds(left.tv_sec) + nanoseconds(left.tv_nsec);
}

// The core owns the reactor, and the reactor the core until gRPC's OnDone: it is the core's OnClosed, after
// which the core no longer touches `call_`.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>, public RequestSink {
 public:
  explicit GenerateReactor(grpc::CallbackServerContext* call) : call_(call) {}

  void Begin(std::shared_ptr<RequestCore> core) {
    core_ = std::move(core);
    core_->Begin();
  }

  // gRPC:
  void OnWriteDone(bool ok) override { core_->OnWriteDone(ok); }
  void OnCancel() override { core_->OnCancel(); }
  void OnDone() override {
    const std::shared_ptr<RequestCore> core = std::move(core_);
    core->OnClosed();
  }

  // RequestSink. The public protocol has no place for a submission's index.
  int max_submissions() const override { return 1; }
  void Write(int, const v1::GenerateResponse& message) override { StartWrite(&message); }
  void WriteAndFinish(int, const v1::GenerateResponse& message) override {
    StartWriteAndFinish(&message, grpc::WriteOptions(), grpc::Status::OK);
  }
  void Finish(const absl::Status& status, std::optional<int> pushback_ms) override {
    if (pushback_ms.has_value()) AddPushback(call_, *pushback_ms);
    ServerWriteReactor::Finish(ToGrpcStatus(status));
  }
  void Abort() override { call_->TryCancel(); }

 private:
  grpc::CallbackServerContext* const call_;
  std::shared_ptr<RequestCore> core_;
};

// Ends with its connection, its deadline or the server.
class HeldReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  explicit HeldReactor(HeldCalls* held) : held_(held) {}
  void OnCancel() override { Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server ends")); }
  void OnDone() override {
    held_->Remove();
    delete this;
  }

 private:
  HeldCalls* const held_;
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(ServiceContext* context,
                                                              grpc::CallbackServerContext* call,
                                                              const v1::GenerateRequest* request,
                                                              Drawn drawn) {
  if (context->held_calls->Add()) return new HeldReactor(context->held_calls);
  auto reactor = std::make_shared<GenerateReactor>(call);
  GenerateReactor* raw = reactor.get();
  raw->Begin(
      std::make_shared<RequestCore>(context, std::move(reactor), request, std::move(drawn), TimeLeft(*call)));
  return raw;
}

void AddPushback(grpc::CallbackServerContext* call, int milliseconds) {
  call->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(milliseconds));
}

}  // namespace mnemo::frontend
