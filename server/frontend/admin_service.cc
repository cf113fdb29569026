#include "server/frontend/admin_service.h"

#include <utility>

#include "mnemo/v1/admin.grpc.pb.h"
#include "server/frontend/duration.h"
#include "server/frontend/energy_report.h"
#include "server/frontend/status_mapping.h"
#include "server/frontend/status_text.h"

namespace mnemo::frontend {
namespace {

using std::chrono::milliseconds;

v1::StatusResponse::State ToState(dispatch::WorkerSnapshot::State state) {
  switch (state) {
    case dispatch::WorkerSnapshot::State::kStarting:
      return v1::StatusResponse::STATE_STARTING;
    case dispatch::WorkerSnapshot::State::kReady:
      return v1::StatusResponse::STATE_READY;
    case dispatch::WorkerSnapshot::State::kDraining:
      return v1::StatusResponse::STATE_DRAINING;
    case dispatch::WorkerSnapshot::State::kDown:
      return v1::StatusResponse::STATE_DOWN;
  }
  return v1::StatusResponse::STATE_UNSPECIFIED;
}

// A child's report of its failure, cut to the length of a status message.
std::string Detail(const std::string& detail) { return StatusMessage(absl::UnknownError(detail)); }

void FillWorker(const dispatch::WorkerSnapshot& worker, v1::StatusResponse::Worker* out) {
  out->set_name(worker.name);
  out->set_address(worker.address);
  out->set_state(ToState(worker.state));
  out->set_model(worker.ready.model_name());
  out->set_device(worker.ready.device());
  out->set_pid(worker.pid);
  out->set_restarts(worker.restarts);
  out->set_requests_running(worker.requests_running);
  out->set_kv_pages_used(worker.heartbeat.kv_pages_used());
  out->set_kv_pages_total(worker.ready.kv_pages_total());
  out->set_kv_pages_cached(worker.heartbeat.kv_pages_cached());
  out->set_detail(Detail(worker.detail));
}

void FillMemoryService(const dispatch::MemorySnapshot& service, v1::StatusResponse::MemoryService* out) {
  out->set_name(service.name);
  out->set_address(service.address);
  out->set_state(ToState(service.state));
  // "memory0:cpu" is how a worker reports it; the kind is what is asked for here.
  const std::string& device = service.stats.device();
  out->set_device(device.substr(device.rfind(':') + 1));
  out->set_simulated_time(service.stats.simulated_time());
  out->set_pid(service.pid);
  out->set_restarts(service.restarts);
  out->set_bytes_used(static_cast<int64_t>(service.stats.used_bytes()));
  out->set_bytes_total(static_cast<int64_t>(service.stats.memory_bytes()));
  out->set_indexes(service.stats.indexes());
  out->set_detail(Detail(service.detail));
}

absl::StatusOr<milliseconds> ReadTimeout(const v1::DrainRequest& request, milliseconds otherwise) {
  if (!request.has_timeout()) return otherwise;
  const google::protobuf::Duration& timeout = request.timeout();
  const int64_t most_s = kMaxDrainTimeout.count() / 1000;
  const bool is_inside =
      timeout.seconds() >= 0 && timeout.nanos() >= 0 && timeout.nanos() < 1'000'000'000 &&
      (timeout.seconds() < most_s || (timeout.seconds() == most_s && timeout.nanos() == 0));
  if (!is_inside) {
    return InvalidArgument("timeout: {} s {} ns is out of range; allowed: [0, {}] s", timeout.seconds(),
                           timeout.nanos(), most_s);
  }
  return milliseconds(timeout.seconds() * 1000 + timeout.nanos() / 1'000'000);
}

class AdminService final : public v1::Admin::CallbackService {
 public:
  AdminService(ServiceContext* context, AdminActions actions)
      : context_(context), actions_(std::move(actions)) {}

  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* call, const v1::StatusRequest*,
                                   v1::StatusResponse* response) override {
    response->set_version(actions_.version);
    SetDuration(std::chrono::steady_clock::now() - started_, response->mutable_uptime());
    const AdmissionCounts counts = context_->admission->counts();
    response->set_draining(context_->admission->draining());
    response->set_requests_running(counts.running);
    response->set_requests_queued(counts.queued);
    response->set_tokens_in_flight(counts.tokens_in_flight);
    for (const dispatch::WorkerSnapshot& worker : context_->dispatcher->Workers()) {
      FillWorker(worker, response->add_workers());
    }
    for (const dispatch::MemorySnapshot& service : context_->dispatcher->MemoryServices()) {
      FillMemoryService(service, response->add_memory_services());
    }
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* call, const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    const auto timeout = ReadTimeout(*request, actions_.default_drain_timeout);
    if (!timeout.ok()) {
      reactor->Finish(ToGrpcStatus(timeout.status()));
      return reactor;
    }
    // Reactor and response live until Finish, also when the client leaves; the drain goes on then.
    actions_.drain(*timeout, [reactor, response](DrainResult result) {
      response->set_finished(result.finished);
      response->set_cut(result.cut);
      reactor->Finish(result.resumed ? grpc::Status(grpc::StatusCode::ABORTED, "drain: ended by Resume")
                                     : grpc::Status::OK);
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* call, const v1::ResumeRequest*,
                                   v1::ResumeResponse*) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    reactor->Finish(ToGrpcStatus(actions_.resume()));
    return reactor;
  }

  grpc::ServerUnaryReactor* Energy(grpc::CallbackServerContext* call, const v1::EnergyRequest*,
                                   v1::EnergyResponse* response) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    if (context_->energy == nullptr) {
      reactor->Finish(ToGrpcStatus(absl::UnimplementedError(
          "energy: this machine has neither an energy meter nor figures for a model (energy.model)")));
      return reactor;
    }
    FillEnergyResponse(*context_->energy, context_->dispatcher->RunningRequests(), response);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  ServiceContext* const context_;
  const AdminActions actions_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(ServiceContext* context, AdminActions actions) {
  return std::make_unique<AdminService>(context, std::move(actions));
}

}  // namespace mnemo::frontend
