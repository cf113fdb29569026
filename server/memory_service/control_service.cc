#include "server/memory_service/control_service.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "mnemo/internal/memory.grpc.pb.h"
#include "server/link/acceptor.h"
#include "server/memory_service/device_samples.h"
#include "server/telemetry/logging.h"

namespace mnemo::memory_service {
namespace {

using internal::v1::AttachReply;
using internal::v1::AttachRequest;
using internal::v1::DrainRequest;
using internal::v1::DropReply;
using internal::v1::DropRequest;
using internal::v1::MemoryStats;
using internal::v1::StatsRequest;

constexpr std::chrono::milliseconds kShutdownTime{500};
constexpr int kMaxConnections = 64;  // mnemod has one, people few; workers attach elsewhere
constexpr char kServiceName[] = "mnemo.internal.v1.Memory";

class Service final : public internal::v1::Memory::CallbackService {
 public:
  Service(std::string data_socket, DataPlane* plane)
      : data_address_("unix:" + std::move(data_socket)),
        plane_(plane),
        began_(std::chrono::steady_clock::now()) {}

  void SetHealth(grpc::HealthCheckServiceInterface* health) {
    health_ = health;
    ShowHealth(true);
  }

  grpc::ServerUnaryReactor* Attach(grpc::CallbackServerContext* context, const AttachRequest* request,
                                   AttachReply* reply) override {
    if (request->owner().empty() || request->owner().size() >= transport::kNameBytes) {
      return Finish(context, grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                                          fmt::format("owner: {} bytes, allowed are 1 to {}",
                                                      request->owner().size(), transport::kNameBytes - 1)));
    }
    const absl::Status status = plane_->SetQuota(request->owner(), request->quota_bytes());
    if (!status.ok()) {
      return Finish(context,
                    grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, std::string(status.message())));
    }
    const layout::AttachHello& limits = plane_->limits();
    reply->set_data_address(data_address_);
    reply->set_quota_bytes(plane_->Quota(request->owner()));
    reply->set_region_bytes(limits.region_bytes);
    reply->set_max_indexes(limits.max_indexes);
    reply->set_max_tokens(limits.max_tokens);
    reply->set_max_k(limits.max_k);
    return Finish(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* context, const StatsRequest*,
                                  MemoryStats* reply) override {
    FillStats(reply);
    return Finish(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context, const DrainRequest* request,
                                  MemoryStats* reply) override {
    plane_->Drain(request->on());
    ShowHealth(!request->on());
    FillStats(reply);
    return Finish(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* Drop(grpc::CallbackServerContext* context, const DropRequest* request,
                                 DropReply* reply) override {
    const uint32_t dropped = request->epoch() > UINT16_MAX
                                 ? 0
                                 : plane_->Drop(request->owner(), static_cast<uint16_t>(request->epoch()));
    if (dropped == 0) {
      return Finish(
          context,
          grpc::Status(
              grpc::StatusCode::NOT_FOUND,
              fmt::format("owner: {} is not attached{}", request->owner(),
                          request->epoch() == 0 ? "" : fmt::format(" with epoch {}", request->epoch()))));
    }
    reply->set_dropped(dropped);
    return Finish(context, grpc::Status::OK);
  }

 private:
  static grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const grpc::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(status);
    return reactor;
  }

  void ShowHealth(bool serving) {
    if (health_ == nullptr) return;
    health_->SetServingStatus("", serving);
    health_->SetServingStatus(kServiceName, serving);
  }

  void FillStats(MemoryStats* reply) const {
    const PlaneStats stats = plane_->Stats();
    reply->set_name(plane_->options().name);
    reply->set_device(stats.device_name);
    reply->set_simulated_time(plane_->simulated_time());
    reply->set_pid(::getpid());
    reply->set_uptime_ms(
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began_)
            .count());
    reply->set_memory_bytes(stats.memory_bytes);
    reply->set_used_bytes(stats.used_bytes);
    reply->set_indexes(stats.indexes);
    reply->set_draining(stats.draining);
    reply->set_max_owners(plane_->options().max_owners);
    reply->set_attachments(stats.attachments);
    reply->set_lost_owners(stats.lost_owners);
    reply->set_log_lines_dropped(telemetry::LogLinesDropped());
    for (DeviceSample& sample : DeviceSamples(*plane_, plane_->LastDeviceCounters())) {
      internal::v1::DeviceCounter* out = reply->add_device_counters();
      out->set_metric(std::move(sample.metric));
      for (auto& [name, value] : sample.labels) (*out->mutable_labels())[name] = std::move(value);
      out->set_value(sample.value);
    }
    for (const OwnerStats& owner : stats.owners) {
      internal::v1::MemoryOwner* out = reply->add_owners();
      out->set_name(owner.name);
      out->set_epoch(owner.epoch);
      out->set_pid(owner.pid);
      out->set_quota_bytes(owner.quota_bytes);
      out->set_used_bytes(owner.used_bytes);
      out->set_indexes(owner.indexes);
      out->set_operations(owner.operations);
      out->set_refused(owner.refused);
    }
  }

  const std::string data_address_;
  DataPlane* const plane_;
  const std::chrono::steady_clock::time_point began_;
  grpc::HealthCheckServiceInterface* health_ = nullptr;
};

}  // namespace

struct ControlServer::Impl {
  Impl(const std::string& data_socket, DataPlane* plane) : service(data_socket, plane) {}
  Service service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> server_input;
  std::unique_ptr<link::Acceptor> acceptor;  // ends before the server
};

ControlServer::ControlServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Create(const std::string& address,
                                                                     const std::string& data_socket,
                                                                     DataPlane* plane) {
  auto impl = std::make_unique<Impl>(data_socket, plane);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  link::Acceptor::Options accepting;
  accepting.address = address;
  accepting.unix_mode = S_IRUSR | S_IWUSR;
  accepting.max_connections = kMaxConnections;
  accepting.bound = "connections of control";
  accepting.on_trouble = [](const std::string& line) { spdlog::warn("--control-address: {}", line); };
  accepting.on_connection = [raw = impl.get()](UniqueFd connection, int listener) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.listener_fd = listener;
    parameters.fd = connection.Release();  // the server closes it, whatever comes
    raw->server_input->HandleNewConnection(&parameters);
  };
  auto acceptor = link::Acceptor::Listen(std::move(accepting));
  if (!acceptor.ok()) return Annotate(acceptor.status(), "--control-address");
  impl->acceptor = *std::move(acceptor);
  grpc::ServerBuilder builder;
  impl->server_input = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  builder.RegisterService(&impl->service);
  impl->server = builder.BuildAndStart();
  if (impl->server == nullptr) return Internal("--control-address: gRPC cannot start its server");
  impl->service.SetHealth(impl->server->GetHealthCheckService());
  MNEMO_RETURN_IF_ERROR(impl->acceptor->Start());
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(impl)));
}

ControlServer::~ControlServer() {
  impl_->acceptor->Stop();
  impl_->server->Shutdown(std::chrono::system_clock::now() + kShutdownTime);
}

int ControlServer::port() const { return impl_->acceptor->port(); }

}  // namespace mnemo::memory_service
