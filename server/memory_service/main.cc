// mnemo-memory: one memory device, a data plane for workers, a control plane for mnemod and people.
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "devices/base/descriptor_limit.h"
#include "devices/base/early_signals.h"
#include "devices/base/patient_threads.h"
#include "devices/base/resources.h"
#include "devices/base/standard_streams.h"
#include "devices/base/watcher.h"
#include "devices/transport/listener.h"
#include "devices/transport/remote.h"
#include "server/memory_service/control_service.h"
#include "server/memory_service/data_plane.h"
#include "server/memory_service/memory_options.h"
#include "server/memory_service/metrics_endpoint.h"
#include "server/telemetry/logging.h"

namespace mnemo::memory_service {
namespace {

constexpr int kExitUsage = 2;
constexpr std::chrono::milliseconds kLastLinesTime{50};  // for the log, where the process ends at once
constexpr uint64_t kMemoryFraction = 4;  // of the memory that may be used, when no figure is given: 1 / this

std::string SocketPath(const std::string& address) {
  const std::string prefix = "unix:";
  return address.starts_with(prefix) ? address.substr(prefix.size()) : "";
}

uint64_t DefaultBytes(const Resources& resources) {
  return static_cast<uint64_t>(std::min(resources.memory_bytes, resources.process_bytes)) / kMemoryFraction;
}

DataPlane::Options PlaneOptions(const MemoryOptions& options) {
  const Resources resources = AvailableResources();
  const config::Config::Memory& memory = options.config.memory;
  DataPlane::Options plane;
  plane.name = options.name;
  plane.device = memory.device;
  plane.device_options = DeviceOptionPairs(memory);
  plane.operation_timeout_ms = memory.operation_timeout_ms;
  plane.isa = options.isa;
  plane.threads = memory.threads > 0 ? memory.threads : resources.cores;
  plane.memory_bytes =
      memory.index_bytes > 0 ? static_cast<uint64_t>(memory.index_bytes) : DefaultBytes(resources);
  plane.quota_bytes = static_cast<uint64_t>(memory.quota_bytes);
  plane.region_bytes = static_cast<uint64_t>(options.region_bytes);
  plane.max_owners = static_cast<uint32_t>(options.max_owners);
  plane.max_indexes = static_cast<uint32_t>(options.max_indexes);
  plane.max_tokens = static_cast<uint32_t>(options.max_tokens);
  return plane;
}

absl::Status Serve(const MemoryOptions& options, Watcher* watcher) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<DataPlane> plane, DataPlane::Create(PlaneOptions(options)));
  std::unique_ptr<MetricsEndpoint> metrics;
  if (!options.metrics_listen.empty()) {
    MNEMO_ASSIGN_OR_RETURN(metrics, MetricsEndpoint::Create(options.metrics_listen, plane.get()));
    spdlog::info("metrics on port {}", metrics->port());
  }
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<ControlServer> control,
                         ControlServer::Create(options.control_address, options.data_socket, plane.get()));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<transport::Listener> listener,
                         transport::Listener::Create(options.data_socket, plane->device_name(), plane.get()));
  std::unique_ptr<transport::RemoteListener> remote;
  if (!options.remote_listen.empty()) {
    MNEMO_ASSIGN_OR_RETURN(
        remote, transport::RemoteListener::Create(options.remote_listen, plane->device_name(), plane.get()));
  }
  watcher->SetListening();
  spdlog::info("{}: {} bytes for indexes, {} threads, workers attach at {}, control on {}",
               plane->device_name(), plane->options().memory_bytes, plane->options().threads,
               options.data_socket, options.control_address);
  watcher->WaitForSignal();
  spdlog::info("stopping");
  MetricsEndpoint::LeaveToProcess(std::move(metrics));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const absl::StatusOr<MemoryOptions> options = ParseMemoryOptions(argc, argv);
  if (absl::IsCancelled(options.status())) {
    std::fputs(std::string(options.status().message()).c_str(), stdout);
    return 0;
  }
  if (!options.ok()) {
    std::fprintf(stderr, "mnemo-memory: %s\n", std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  const absl::StatusOr<std::unique_ptr<Watcher>> watcher =
      Watcher::Create({.lifeline_fd = options->lifeline_fd,
                       .socket_paths = {options->data_socket, SocketPath(options->control_address)},
                       .private_dir = options->private_dir,
                       .on_hangup = [] { telemetry::ReopenLog(); },
                       .before_end = [] { telemetry::FlushLog(kLastLinesTime); }});
  absl::Status status = watcher.status();
  if (status.ok()) {
    // The folder of the log may have gone since mnemod opened it.
    status = telemetry::SetUpLogging({.process = options->name,
                                      .level = options->config.log.level,
                                      .format = options->config.log.format,
                                      .file = options->config.log.file,
                                      .file_may_wait = options->lifeline_fd >= 0});
  }
  if (!status.ok()) {
    std::fprintf(stderr, "mnemo-memory: %s\n", std::string(status.message()).c_str());
    return kExitUsage;
  }
  status = Serve(*options, watcher->get());
  if (!status.ok()) spdlog::error("{}", std::string(status.message()));
  telemetry::EndLogging();
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace mnemo::memory_service

int main(int argc, char** argv) {
  mnemo::HoldStandardStreams();
  mnemo::HoldSignals();
  mnemo::RaiseDescriptorLimit();
  mnemo::MakeThreadsPatient();
  ::prctl(PR_SET_NAME, "mnemo-memory");  // started through a descriptor it has the name of that
  return mnemo::memory_service::Main(argc, argv);
}
