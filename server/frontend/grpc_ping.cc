#include "server/frontend/grpc_ping.h"

#include <grpcpp/create_channel_posix.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>

#include "grpc/health/v1/health.grpc.pb.h"

namespace mnemo::frontend {
namespace {

namespace health = grpc::health::v1;

struct Call {
  grpc::ClientContext context;
  health::HealthCheckRequest request;
  health::HealthCheckResponse response;
};

}  // namespace

// The channel, and the context of a call, which holds the channel, are never dropped on a thread of gRPC: it
// would wait for itself.
struct GrpcPing::State {
  explicit State(grpc::experimental::ExternalConnectionAcceptor* server_input) : input(server_input) {}
  // With `mutex` held. A channel over a descriptor cannot connect again, so it is made anew.
  void Connect();

  grpc::experimental::ExternalConnectionAcceptor* const input;
  std::mutex mutex;
  std::condition_variable done;
  std::unique_ptr<health::Health::Stub> stub;
  std::unique_ptr<Call> call;  // the newest
  bool is_under_way = false;
  bool is_broken = false;  // the connection
  uint64_t answers = 0;
};

void GrpcPing::State::Connect() {
  call.reset();
  stub.reset();
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.listener_fd = -1;
  parameters.fd = ends[0];  // the server closes it
  input->HandleNewConnection(&parameters);
  is_broken = false;
  stub = health::Health::NewStub(grpc::CreateInsecureChannelFromFd("watchdog", ends[1]));
}

GrpcPing::GrpcPing(grpc::experimental::ExternalConnectionAcceptor* input)
    : state_(std::make_shared<State>(input)) {}

GrpcPing::~GrpcPing() {
  std::unique_lock lock(state_->mutex);
  if (state_->is_under_way) state_->call->context.TryCancel();
  state_->done.wait(lock, [this] { return !state_->is_under_way; });
  state_->call.reset();
  state_->stub.reset();
}

uint64_t GrpcPing::Ask() {
  Call* call = nullptr;
  uint64_t answers = 0;
  {
    std::lock_guard lock(state_->mutex);
    answers = state_->answers;
    if (state_->is_under_way) return answers;
    if (state_->stub == nullptr || state_->is_broken) state_->Connect();
    if (state_->stub == nullptr) return answers;
    state_->call = std::make_unique<Call>();
    state_->is_under_way = true;
    call = state_->call.get();
  }
  call->request.set_service("live");
  state_->stub->async()->Check(&call->context, &call->request, &call->response,
                               [state = state_](const grpc::Status& status) {
                                 std::lock_guard lock(state->mutex);
                                 state->is_under_way = false;
                                 state->is_broken = !status.ok();
                                 if (status.ok()) ++state->answers;
                                 state->done.notify_all();
                               });
  return answers;
}

}  // namespace mnemo::frontend
