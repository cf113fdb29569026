// mnemod: the front end as a process.
#include <absl/synchronization/mutex.h>
#include <fmt/ranges.h>
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/config_options.h"
#include "devices/base/descriptor_limit.h"
#include "devices/base/early_signals.h"
#include "devices/base/patient_threads.h"
#include "devices/base/service_manager.h"
#include "devices/base/standard_streams.h"
#include "devices/base/status.h"
#include "devices/base/undo_at_end.h"
#include "server/dispatch/dispatcher.h"
#include "server/frontend/energy_setup.h"
#include "server/frontend/front_end.h"
#include "server/frontend/request_energy.h"
#include "server/frontend/served_model.h"
#include "server/frontend/service_notifier.h"
#include "server/frontend/watchdog.h"
#include "server/telemetry/logging.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNotConfigured = 1;
// Sent to ourselves when a drain is over, so that one wait takes all that happens.
constexpr int kDrained = SIGUSR1;
// Sent to one thread, to end its wait.
constexpr int kStopWaiting = SIGUSR2;
// Time for the log's last lines where the process ends at once.
constexpr std::chrono::milliseconds kLastLinesTime{50};
// The watchdog's interval where systemd names none.
constexpr std::chrono::milliseconds kWatchInterval{5000};
// A loop that has not turned for so many rounds in a row: the process is no longer live.
constexpr int kDeadRounds = 2;

struct Arguments {
  config::LoadOptions load;
  bool check_config = false;
  bool check_configured = false;
  bool hands_over = false;
};

// The exit status, or -1 to go on.
int ParseArguments(int argc, char** argv, Arguments* arguments) {
  bool show_version = false;
  CLI::App app{
      "mnemod: serves a language model over gRPC. Every setting has a default; see docs/CONFIGURATION.md."};
  config::ConfigOptions options(&app, /*is_child=*/false);
  options.AddShort("--listen", "server.listen", "HOST:PORT of the gRPC server; port 0: any free one");
  options.AddShort("--metrics-listen", "server.metrics_listen",
                   "HOST:PORT of the Prometheus endpoint; empty: none");
  options.AddShort("--model", "model.path", "GGUF file to serve");
  options.AddShort("--workers", "workers.count", "local worker processes");
  options.AddShort("--memory-services", "memory.services", "local memory service processes; 0: none");
  app.add_flag("--check-config", arguments->check_config, "check the settings and end");
  app.add_flag("--check-configured", arguments->check_configured,
               "end with 1 if the settings are valid and name no model to serve, else with 0");
  app.add_flag("--hand-over", arguments->hands_over,
               "leave listening sockets and weights with the service manager, which gives them to the unit's "
               "next process (FileDescriptorStoreMax=)");
  app.add_flag("--version", show_version, "show the version and end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (show_version) {
    std::printf("mnemod %s\n", MNEMO_VERSION);
    return 0;
  }
  absl::StatusOr<config::LoadOptions> load = options.Options();
  if (!load.ok()) {
    std::fprintf(stderr, "mnemod: %s\n", std::string(load.status().message()).c_str());
    return kExitUsage;
  }
  arguments->load = *std::move(load);
  return -1;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "mnemod: %s\n", std::string(status.message()).c_str());
  return kExitFailure;
}

std::atomic<bool> is_logging = false;

// Ends a process that does not serve yet, at any point of its start.
[[noreturn]] void EndAtOnce() {
  if (is_logging) spdlog::info("ended by a signal before it served");
  NotifySystemd("STOPPING=1");
  UndoAtEnd::UndoAll();
  telemetry::FlushLog(kLastLinesTime);
  ::_exit(0);
}

// While it lives SIGTERM and SIGINT end the process at once; SIGHUP stays pending.
class EndsAtOnce {
 public:
  EndsAtOnce()
      : thread_([] {
          sigset_t signals;
          sigemptyset(&signals);
          for (const int number : {SIGTERM, SIGINT, kStopWaiting}) sigaddset(&signals, number);
          int number = 0;
          while ((number = sigwaitinfo(&signals, nullptr)) < 0) {
          }
          if (number != kStopWaiting) EndAtOnce();
        }) {}
  ~EndsAtOnce() {
    pthread_kill(thread_.native_handle(), kStopWaiting);
    thread_.join();
  }
  EndsAtOnce(const EndsAtOnce&) = delete;
  EndsAtOnce& operator=(const EndsAtOnce&) = delete;

 private:
  std::thread thread_;
};

class Daemon {
 public:
  Daemon(Arguments arguments, config::Config config, std::vector<PassedDescriptor> passed)
      : load_(std::move(arguments.load)),
        hands_over_(arguments.hands_over),
        config_(std::move(config)),
        passed_(std::move(passed)) {}

  absl::Status Start();
  // Serves until a signal ends it. `signals` are blocked in all threads and taken here.
  void Run(const sigset_t& signals);

 private:
  void StartEnergy();
  void Reload();
  // The outcome, in a line.
  std::string ApplyReload();
  void BeginEnd();
  void StartWatchdog();
  void TakeRound(const LoopWatch::Round& round);

  const config::LoadOptions load_;
  const bool hands_over_;
  config::Config config_;
  std::vector<PassedDescriptor> passed_;  // until Start has given them away
  ServiceNotifier notifier_;
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<telemetry::Metrics> metrics_;
  // nullptr: the machine has neither meter nor model.
  std::unique_ptr<attribution::EnergyMonitor> energy_;
  std::optional<EnergyObserver> energy_observer_;
  // The dispatcher is destroyed first: it ends requests, of which the front end keeps count.
  std::unique_ptr<FrontEnd> front_end_;
  std::unique_ptr<dispatch::Dispatcher> dispatcher_;
  bool is_draining_ = false;
  std::vector<std::string> stuck_;  // the watchdog's thread
  std::unique_ptr<Watchdog> watchdog_;
};

absl::Status Daemon::Start() {
  notifier_.Loading("loading " + config_.model.path);
  MNEMO_ASSIGN_OR_RETURN(model_, LoadServedModel(config_.model, config_.text));
  for (const std::string& note : model_->tokenizer->notes()) spdlog::warn("{}: {}", config_.model.path, note);
  for (const std::string& warning : model_->config.warnings)
    spdlog::warn("{}: {}", config_.model.path, warning);
  metrics_ = std::make_unique<telemetry::Metrics>();
  if (!config_.server.metrics_listen.empty()) {
    MNEMO_ASSIGN_OR_RETURN(const int port, metrics_->Listen(config_.server.metrics_listen));
    spdlog::info("metrics on port {}", port);
  }
  dispatch::DispatcherOptions options;
  options.config = config_;
  options.version = MNEMO_VERSION;
  options.file = model_->file.get();
  options.model = &model_->config;
  options.on_replay = [metrics = metrics_.get()](const std::string& worker) {
    metrics->RequestReplayed(worker);
  };
  const auto images = std::stable_partition(
      passed_.begin(), passed_.end(),
      [](const PassedDescriptor& passed) { return !passed.name.starts_with(dispatch::kImageName); });
  options.kept_images.assign(std::make_move_iterator(images), std::make_move_iterator(passed_.end()));
  passed_.erase(images, passed_.end());
  options.keeps_image = hands_over_;
  options.on_phase = [this](std::string_view phase) { notifier_.Loading(phase); };
  MNEMO_ASSIGN_OR_RETURN(energy_, MakeEnergyMonitor(config_.energy));
  if (energy_ != nullptr) options.observer = &energy_observer_.emplace(energy_.get());
  MNEMO_ASSIGN_OR_RETURN(dispatcher_, dispatch::CreateDispatcher(std::move(options)));
  if (const dispatch::ContextBound bound = dispatcher_->context_bound(); bound.tokens > 0) {
    model_->context_tokens = bound.tokens;
    model_->context_bound = bound.reason;
  }
  if (const absl::Status chat = model_->ChatStatus(); !chat.ok()) {
    spdlog::warn("chats are refused: {}", std::string(chat.message()));
  }
  FrontEnd::Options front_end;
  front_end.config = config_;
  front_end.version = MNEMO_VERSION;
  front_end.energy = energy_.get();
  front_end.passed = std::move(passed_);
  front_end.hands_over = hands_over_;
  front_end.on_ready_change = [this](bool is_ready) { notifier_.SetReady(is_ready); };
  MNEMO_ASSIGN_OR_RETURN(
      front_end_, FrontEnd::Start(std::move(front_end), model_.get(), dispatcher_.get(), metrics_.get()));
  StartEnergy();
  spdlog::info("listening on {}", front_end_->address());
  const size_t parts = model_->file->part_count();
  spdlog::info("serving {} ({}, {}, {} tokens of context) from {}{}", model_->name,
               model_->config.architecture, model_->config.quantization, model_->context_tokens,
               config_.model.path, parts > 1 ? fmt::format(", the first of {} files", parts) : "");
  notifier_.Listening("serving " + model_->name + " on " + front_end_->address(),
                      std::chrono::milliseconds(config_.workers.start_timeout_ms));
  StartWatchdog();
  return absl::OkStatus();
}

void Daemon::StartEnergy() {
  if (energy_ == nullptr) return;
  energy_->SetProcesses([this] {
    std::vector<pid_t> processes = dispatcher_->ProcessIds();
    processes.push_back(::getpid());
    if (model_->chat.ok()) processes.push_back((*model_->chat)->child_pid());
    return processes;
  });
  energy_->Start();
}

void Daemon::Run(const sigset_t& signals) {
  int number = 0;
  while (number != kDrained) {
    number = sigwaitinfo(&signals, nullptr);
    if (number == SIGHUP) {
      Reload();
    } else if (number == SIGTERM || number == SIGINT) {
      BeginEnd();
    }
  }
  watchdog_.reset();
  front_end_->Shutdown();
  if (energy_ != nullptr) energy_->Stop();
  dispatcher_.reset();
  front_end_.reset();
  spdlog::info("ended");
}

void Daemon::BeginEnd() {
  if (!front_end_->has_served()) EndAtOnce();
  if (is_draining_) {
    spdlog::info("second signal: cutting the {} streams that are left", front_end_->live_streams());
    front_end_->BeginDrainForEnd(std::chrono::milliseconds(0), [](DrainResult) {});
    return;
  }
  is_draining_ = true;
  spdlog::info("draining {} streams, for at most {} ms", front_end_->live_streams(),
               config_.server.drain_timeout_ms);
  notifier_.Stopping("draining");
  front_end_->BeginDrainForEnd(
      std::chrono::milliseconds(config_.server.drain_timeout_ms), [](DrainResult result) {
        spdlog::info("drained: {} streams finished, {} were cut", result.finished, result.cut);
        kill(getpid(), kDrained);
      });
}

void Daemon::StartWatchdog() {
  watchdog_ = std::make_unique<Watchdog>(
      Watchdog::Options{.interval = WatchdogInterval(kWatchInterval),
                        .ask =
                            [this] {
                              std::vector<dispatch::LoopTurns> turns = dispatcher_->AskForTurns();
                              for (dispatch::LoopTurns& loop : front_end_->AskForTurns())
                                turns.push_back(std::move(loop));
                              return turns;
                            },
                        .on_round = [this](const LoopWatch::Round& round) { TakeRound(round); }});
}

void Daemon::TakeRound(const LoopWatch::Round& round) {
  if (round.stuck.empty()) NotifySystemd("WATCHDOG=1");
  front_end_->SetLive(round.rounds < kDeadRounds);
  if (round.stuck == stuck_) return;
  if (round.stuck.empty()) {
    spdlog::info("all loops turn again");
  } else {
    spdlog::error("stuck: {}", fmt::join(round.stuck, ", "));
  }
  stuck_ = round.stuck;
}

void Daemon::Reload() {
  notifier_.BeginReload();
  notifier_.EndReload(ApplyReload());
}

std::string Daemon::ApplyReload() {
  // Also when the settings are refused: whoever renamed the log waits for the new one.
  telemetry::ReopenLog();
  dispatcher_->ReopenLogs();
  const auto loaded = config::Load(load_);
  if (!loaded.ok()) {
    const std::string why(loaded.status().message());
    spdlog::error("reload: nothing is changed: {}", why);
    return "reload refused, nothing is changed: " + why;
  }
  const std::vector<std::string> unchanged = config::ApplyReload(*loaded, &config_);
  front_end_->Reload(config_);
  if (const absl::Status level = telemetry::SetLogLevel(config_.log.level); !level.ok()) {
    spdlog::error("reload: {}", std::string(level.message()));
  }
  for (const std::string& key : unchanged) spdlog::warn("reload: {} needs a restart to change", key);
  spdlog::info("reloaded");
  if (unchanged.empty()) return "reloaded";
  return fmt::format("reloaded; a restart is needed for {}", fmt::join(unchanged, ", "));
}

int CheckConfig(const config::LoadOptions& load) {
  ReleaseSignals();
  if (const auto config = config::Load(load); !config.ok()) return Fail(config.status());
  std::printf("mnemod: the configuration is valid\n");
  return 0;
}

// For ExecCondition= of the unit: 1 skips a node that nobody has configured yet. Settings with an error are
// configured; the start refuses them.
int CheckConfigured(const config::LoadOptions& load) {
  ReleaseSignals();
  const auto config = config::Load(load);
  if (!config.ok() || !config->model.path.empty()) return 0;
  // To standard error, in the log's form: the journal of a unit then has lines of one form alone.
  if (const absl::Status logging =
          telemetry::SetUpLogging({.process = "mnemod", .format = config->log.format});
      !logging.ok()) {
    return Fail(logging);
  }
  spdlog::info("model.path is empty: there is nothing to serve yet");
  telemetry::EndLogging();
  return kExitNotConfigured;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (const int exit_status = ParseArguments(argc, argv, &arguments); exit_status >= 0) return exit_status;
  if (arguments.check_config) return CheckConfig(arguments.load);
  if (arguments.check_configured) return CheckConfigured(arguments.load);
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, kDrained, kStopWaiting}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // Writing past RLIMIT_FSIZE then fails with EFBIG instead of ending the process.
  std::signal(SIGXFSZ, SIG_IGN);
  absl::StatusOr<std::vector<PassedDescriptor>> passed = TakePassedDescriptors();
  if (!passed.ok()) return Fail(passed.status());
  auto ends_at_once = std::make_optional<EndsAtOnce>();
  auto config = config::Load(arguments.load);
  if (!config.ok()) return Fail(config.status());
  // Debian's Abseil is built with its detection of deadlocks on, which every lock inside gRPC pays for.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Fixed, since glibc raises it to the largest block that was ever freed: large messages and texts then stay
  // in its heaps instead of going back to the system.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  const absl::Status logging =
      telemetry::SetUpLogging({"mnemod", config->log.level, config->log.format, config->log.file});
  if (!logging.ok()) return Fail(logging);
  is_logging = true;
  // After a good end the object stays: of what it has then, the metrics' listener would take up to 2 s to
  // stop.
  static Daemon* const daemon = new Daemon(std::move(arguments), *std::move(config), *std::move(passed));
  const absl::Status status = daemon->Start();
  if (status.ok()) {
    ends_at_once.reset();
    daemon->Run(signals);
  } else {
    spdlog::error("{}", std::string(status.message()));
    delete daemon;
  }
  telemetry::EndLogging();
  return status.ok() ? 0 : kExitFailure;
}

}  // namespace
}  // namespace mnemo::frontend

int main(int argc, char** argv) {
  mnemo::HoldStandardStreams();
  mnemo::HoldSignals();
  mnemo::RaiseDescriptorLimit();
  mnemo::MakeThreadsPatient();
  return mnemo::frontend::Main(argc, argv);
}
