// mnemo-worker: one device, one engine, one link to mnemod.
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <chrono>
#include <memory>
#include <string>

#include "devices/base/address.h"
#include "devices/base/descriptor_limit.h"
#include "devices/base/early_signals.h"
#include "devices/base/standard_streams.h"
#include "devices/base/watcher.h"
#include "server/telemetry/child_main.h"
#include "server/worker/service/runtime.h"
#include "server/worker/service/worker_options.h"
#include "server/worker/service/worker_service.h"

namespace mnemo::worker_service {
namespace {

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
  if (!options.ok()) return telemetry::AnswerCommandLine("mnemo-worker", options.status());
  const config::Config::Log& log = options->config.log;
  return telemetry::RunChild(
      {.program = "mnemo-worker",
       .lifeline_fd = options->lifeline_fd,
       .socket_paths = {std::string(UnixSocketPath(options->listen).value_or(""))},
       .private_dir = options->private_dir,
       .log = {.process = options->name, .level = log.level, .format = log.format, .file = log.file},
       .serve = [&](Watcher* watcher) { return Serve(*options, watcher); }});
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
