// mnemo-worker: one device, one engine, one link to mnemod.
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "devices/base/descriptor_limit.h"
#include "devices/base/early_signals.h"
#include "devices/base/standard_streams.h"
#include "devices/base/watcher.h"
#include "server/telemetry/logging.h"
#include "server/worker/service/runtime.h"
#include "server/worker/service/worker_options.h"
#include "server/worker/service/worker_service.h"

namespace mnemo::worker_service {
namespace {

constexpr int kExitUsage = 2;
constexpr std::chrono::milliseconds kLastLinesTime{50};  // for the log, where the process ends at once

std::string SocketPath(const std::string& listen) {
  const std::string prefix = "unix:";
  return listen.starts_with(prefix) ? listen.substr(prefix.size()) : "";
}

absl::Status Serve(const WorkerOptions& options, Watcher* watcher) {
  const auto began = std::chrono::steady_clock::now();
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<Runtime> runtime, Runtime::Create(options));
  const internal::v1::Ready ready = runtime->MakeReady(options);
  WorkerService service(ready, runtime->progress());
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<worker::Engine> engine, runtime->CreateEngine(&service));
  service.Start(engine.get());
  if (const absl::Status status = service.Listen(options.listen); !status.ok()) {
    service.StopSessions();
    return Annotate(status, "--listen");
  }
  watcher->SetListening();
  spdlog::info("{} on {} ({} threads), {} KV pages, listening on {} after {} ms", ready.model_id(),
               ready.numerics_id(), ready.threads(), ready.kv_pages_total(), options.listen,
               std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began)
                   .count());
  watcher->WaitForSignal();
  spdlog::info("stopping");
  service.Drain(std::chrono::milliseconds(options.config.server.drain_timeout_ms));
  service.StopSessions();
  engine.reset();
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const absl::StatusOr<WorkerOptions> options = ParseWorkerOptions(argc, argv);
  if (absl::IsCancelled(options.status())) {
    std::fputs(std::string(options.status().message()).c_str(), stdout);
    return 0;
  }
  if (!options.ok()) {
    std::fprintf(stderr, "mnemo-worker: %s\n", std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  const absl::StatusOr<std::unique_ptr<Watcher>> watcher =
      Watcher::Create({.lifeline_fd = options->lifeline_fd,
                       .socket_paths = {SocketPath(options->listen)},
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
    std::fprintf(stderr, "mnemo-worker: %s\n", std::string(status.message()).c_str());
    return kExitUsage;
  }
  status = Serve(*options, watcher->get());
  if (!status.ok()) spdlog::error("{}", std::string(status.message()));
  telemetry::EndLogging();
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace mnemo::worker_service

int main(int argc, char** argv) {
  mnemo::HoldStandardStreams();
  mnemo::HoldSignals();
  mnemo::RaiseDescriptorLimit();
  ::prctl(PR_SET_NAME, "mnemo-worker");  // started through a descriptor it has the name of that
  return mnemo::worker_service::Main(argc, argv);
}
