// mnemo-memory: one memory device, a data plane for workers, a control plane for mnemod and people.
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "devices/base/address.h"
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
#include "server/telemetry/child_main.h"

namespace mnemo::memory_service {
namespace {

constexpr uint64_t kMemoryFraction = 4;  // of the memory that may be used, when no figure is given: 1 / this

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
  if (plane->simulated_time()) {
    spdlog::info("{}: score, select and gather times are simulated", plane->device_name());
  }
  if (plane->record_capacity_bytes() < plane->options().memory_bytes) {
    spdlog::info("{}: {} bytes of the device's own memory for records; new indexes are refused beyond them",
                 plane->device_name(), plane->record_capacity_bytes());
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
  if (!options.ok()) return telemetry::AnswerCommandLine("mnemo-memory", options.status());
  const config::Config::Log& log = options->config.log;
  return telemetry::RunChild(
      {.program = "mnemo-memory",
       .lifeline_fd = options->lifeline_fd,
       .socket_paths = {options->data_socket,
                        std::string(UnixSocketPath(options->control_address).value_or(""))},
       .private_dir = options->private_dir,
       .log = {.process = options->name, .level = log.level, .format = log.format, .file = log.file},
       .serve = [&](Watcher* watcher) { return Serve(*options, watcher); }});
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
