// mnemo-energy: the one process that may read energy counters. It serves rounded readings to mnemod, which
// needs no capability then.
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "devices/base/clock.h"
#include "devices/base/early_signals.h"
#include "devices/base/service_manager.h"
#include "devices/base/standard_streams.h"
#include "devices/base/watcher.h"
#include "devices/energy/make_energy_source.h"
#include "devices/energy/reading_server.h"
#include "server/energy_service/energy_options.h"
#include "server/telemetry/child_main.h"

namespace mnemo::energy_service {
namespace {

constexpr int64_t kMillisecondNs = 1'000'000;

// A machine without counters: the service has nothing to serve, which is no failure.
class NoSource : public energy::EnergySource {
 public:
  void Sample(const energy::Round&, std::vector<energy::EnergyInterval>*) override {}
  std::vector<energy::MeterState> States() const override { return {}; }
};

absl::Status Serve(const EnergyOptions& options, UniqueFd listener, Watcher* watcher) {
  const config::Config::Energy& energy = options.config.energy;
  const bool is_passed = listener.valid();
  if (!is_passed) {
    MNEMO_ASSIGN_OR_RETURN(listener, energy::ListenForReaders(energy.socket, options.socket_group));
  }
  const auto log = [](const std::string& line) { spdlog::warn("{}", line); };
  std::unique_ptr<energy::EnergySource> source = energy::MakeLocalSource(energy, {.log = log});
  if (source == nullptr) {
    spdlog::info("this machine has no energy counter that can be read");
    source = std::make_unique<NoSource>();
  }
  for (const energy::MeterState& state : source->States()) {
    spdlog::info("meter {} ({})", state.device.Label(), state.device.source);
  }
  const UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) return Unavailable("no descriptor is left");
  energy::ReadingServer server(
      source.get(), std::move(listener),
      {.instance = static_cast<uint64_t>(NowNs()),
       .interval_ns = std::max(energy.interval_ms * kMillisecondNs, energy::kServedIntervalNs),
       .log = log});
  watcher->SetListening();
  NotifySystemd("READY=1");
  std::thread thread([&] { server.Run(stop.get()); });
  watcher->WaitForSignal();
  spdlog::info("stopping");
  NotifySystemd("STOPPING=1");
  (void)::eventfd_write(stop.get(), 1);
  thread.join();
  // Still listening, so that the file is ours.
  if (!is_passed) ::unlink(energy.socket.c_str());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  absl::StatusOr<UniqueFd> listener = energy::TakeSystemdSocket();
  const absl::StatusOr<EnergyOptions> options =
      listener.ok() ? ParseEnergyOptions(argc, argv) : absl::StatusOr<EnergyOptions>(listener.status());
  if (!options.ok()) return telemetry::AnswerCommandLine("mnemo-energy", options.status());
  const config::Config::Log& log = options->config.log;
  telemetry::ChildMain child = {
      .program = "mnemo-energy",
      .log = {.process = "energy", .level = log.level, .format = log.format, .file = log.file},
      .serve = [&](Watcher* watcher) { return Serve(*options, *std::move(listener), watcher); }};
  // A socket that systemd has passed stays for the next start.
  if (!listener->valid()) child.socket_paths = {options->config.energy.socket};
  return telemetry::RunChild(child);
}

}  // namespace
}  // namespace mnemo::energy_service

int main(int argc, char** argv) {
  mnemo::HoldStandardStreams();
  mnemo::HoldSignals();
  ::prctl(PR_SET_NAME, "mnemo-energy");
  return mnemo::energy_service::Main(argc, argv);
}
