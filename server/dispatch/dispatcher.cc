#include "server/dispatch/dispatcher.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "config/child_config.h"
#include "devices/base/unique_fd.h"
#include "devices/memory/memory_device_registry.h"
#include "server/dispatch/child_process.h"
#include "server/dispatch/dispatch_core.h"
#include "server/dispatch/memory_supervisor.h"
#include "server/dispatch/program.h"
#include "server/dispatch/runtime_dir.h"
#include "server/dispatch/sizes.h"
#include "server/dispatch/worker_host.h"
#include "server/memory_service/memory_options.h"
#include "server/worker/service/device_options.h"
#include "server/worker/service/model_image.h"
#include "server/worker/service/worker_options.h"

namespace mnemo::dispatch {
namespace {

namespace fs = std::filesystem;

// `configured`, or the program of that name beside this one. FAILED_PRECONDITION when it cannot be run.
absl::StatusOr<Program> FindProgram(std::string_view key, const std::string& configured, const char* name) {
  std::string program = configured;
  if (program.empty()) {
    std::error_code error;
    const fs::path self = fs::read_symlink("/proc/self/exe", error);
    if (error) return Internal("/proc/self/exe: {}", error.message());
    program = (self.parent_path() / name).string();
  }
  return Program::Open(key, program);
}

// Worker `index`'s part of the threads: as even as it goes, at least one.
int ThreadsOf(const config::Config& config, int index) {
  const int total = config.cpu.threads;
  const int count = config.workers.count;
  return std::max(1, total / count + (index < total % count ? 1 : 0));
}

class DispatcherImpl final : public Dispatcher {
 public:
  // `foreign_memory`: addresses of the memory services that others run.
  DispatcherImpl(std::shared_ptr<const RuntimeDir> runtime_dir, std::unique_ptr<MemorySupervisor> memory,
                 int child_workers, std::vector<std::string> foreign_memory, ContextBound bound,
                 std::unique_ptr<ProcessHost> host, CoreOptions options)
      : bound_(std::move(bound)),
        runtime_dir_(std::move(runtime_dir)),
        memory_(std::move(memory)),
        child_workers_(child_workers),
        foreign_memory_(std::move(foreign_memory)),
        host_(std::move(host)),
        core_(std::make_shared<DispatchCore>(std::move(options), host_.get())) {
    host_->Run(core_);
  }
  ~DispatcherImpl() override {
    core_->Stop();
    host_->Join();
  }

  std::shared_ptr<Dispatch> Start(internal::v1::Submit submit, std::optional<TimePoint> deadline,
                                  std::shared_ptr<DispatchSink> sink) override {
    return core_->Start(std::move(submit), deadline, std::move(sink));
  }
  bool EndSession(const std::string& session_id) override { return core_->EndSession(session_id); }
  ContextBound context_bound() const override { return bound_; }
  std::vector<WorkerSnapshot> Workers() const override { return core_->Workers(); }
  std::vector<MemorySnapshot> MemoryServices() const override {
    std::vector<MemorySnapshot> snapshots =
        memory_ != nullptr ? memory_->Snapshots() : std::vector<MemorySnapshot>();
    AddForeignServices(&snapshots);
    return snapshots;
  }
  std::vector<LoopTurns> AskForTurns() override {
    std::vector<LoopTurns> turns = {{"supervision of workers", host_->AskForTurn()}};
    if (memory_ != nullptr) turns.push_back({"supervision of memory services", memory_->AskForTurn()});
    return turns;
  }
  std::vector<RunningRequest> RunningRequests() const override { return core_->RunningRequests(); }
  std::vector<int> ProcessIds() const override {
    std::vector<int> pids = core_->ProcessIds();
    if (memory_ == nullptr) return pids;
    const std::vector<int> services = memory_->ProcessIds();
    pids.insert(pids.end(), services.begin(), services.end());
    return pids;
  }
  void ReopenLogs() override {
    host_->HangUp();
    if (memory_ != nullptr) memory_->HangUp();
  }
  void OnReadyChange(std::function<void(int)> callback) override {
    core_->OnReadyChange(std::move(callback));
  }

 private:
  // A service that others run is known as far as its workers tell.
  void AddForeignServices(std::vector<MemorySnapshot>* snapshots) const;

  const ContextBound bound_;
  const std::shared_ptr<const RuntimeDir> runtime_dir_;  // none without local workers
  const std::unique_ptr<MemorySupervisor> memory_;       // none without services; ends after the workers
  const int child_workers_;
  const std::vector<std::string> foreign_memory_;
  const std::unique_ptr<ProcessHost> host_;
  const std::shared_ptr<DispatchCore> core_;
};

void DispatcherImpl::AddForeignServices(std::vector<MemorySnapshot>* snapshots) const {
  if (foreign_memory_.empty()) return;
  const std::vector<WorkerSnapshot> workers = core_->Workers();
  const size_t local = snapshots->size();
  const size_t all = local + foreign_memory_.size();
  for (size_t i = local; i < all; ++i) {
    MemorySnapshot& service = snapshots->emplace_back();
    service.name = fmt::format("memory{}", i);
    service.address = foreign_memory_[i - local];
    service.is_child = false;
    service.state = WorkerSnapshot::State::kDown;
    service.detail = "no worker is attached";
    for (int worker = 0; worker < child_workers_; ++worker) {
      const internal::v1::MemoryFigures& figures = workers[static_cast<size_t>(worker)].heartbeat.memory();
      if (ServiceOf(worker, all) != i || !figures.service_attached()) continue;
      service.state = WorkerSnapshot::State::kReady;
      service.detail.clear();
      service.stats.set_device(figures.service());
      service.stats.set_indexes(service.stats.indexes() + static_cast<uint32_t>(figures.service_indexes()));
    }
  }
}

// Checks the kind of memory device and its options against the kinds of this build.
absl::Status CheckMemoryDevice(const config::Config::Memory& memory) {
  using Fault = memory_device::KindCheck::Fault;
  const memory_device::KindCheck check =
      memory_device::CheckKind(memory.device, memory_service::DeviceOptionPairs(memory));
  switch (check.fault) {
    case Fault::kNone:
      return absl::OkStatus();
    case Fault::kUnknownKind:
      return InvalidArgument("memory.device: \"{}\" is not a kind of this build; allowed: {}", memory.device,
                             fmt::join(check.allowed, " | "));
    case Fault::kUnknownKey:
      return InvalidArgument(
          "memory.device_options: \"{}\" is no option of {}; allowed: {}", check.key, check.kind.name,
          check.allowed.empty() ? "none" : fmt::format("{}", fmt::join(check.allowed, ", ")));
    case Fault::kRepeatedKey:
      break;
  }
  return InvalidArgument("memory.device_options: \"{}\" is there twice", check.key);
}

// `config` is resolved.
absl::StatusOr<MemorySupervisor::Options> MemoryServicesOf(const config::Config& config, int context_tokens,
                                                           const RuntimeDir& runtime_dir) {
  MemorySupervisor::Options supervised;
  supervised.timing = config.memory;
  if (config.memory.services == 0) return supervised;
  MNEMO_ASSIGN_OR_RETURN(supervised.program,
                         FindProgram("memory.binary", config.memory.binary, "mnemo-memory"));
  for (int i = 0; i < config.memory.services; ++i) {
    memory_service::MemoryOptions options;
    options.name = fmt::format("memory{}", i);
    options.data_socket = runtime_dir.SocketPath(options.name);
    options.control_address = "unix:" + runtime_dir.SocketPath(options.name + "-control");
    // The attachment of a worker that died may still be there when the next one comes.
    options.max_owners = std::min(2 * SharersOf(config, i), 64);
    options.max_indexes =
        std::clamp(config.engine.max_running + config.engine.max_waiting, options.max_indexes, 1 << 20);
    options.max_tokens = std::clamp(context_tokens, options.max_tokens, 1 << 24);
    options.lifeline_fd = kChildLifelineFd;
    if (runtime_dir.owned()) options.private_dir = runtime_dir.path();
    supervised.services.push_back(
        {.name = options.name,
         .data_socket = options.data_socket,
         .control_address = options.control_address,
         .arguments = MemoryArguments(options, kChildConfigFd,
                                      {{"memory.quota_bytes", std::to_string(QuotaOf(config, i))}})});
  }
  return supervised;
}

void AddChildren(const config::Config& config, const RuntimeDir& runtime_dir, bool has_weights,
                 std::span<const MemorySupervisor::Service> memory, CoreOptions* core,
                 ProcessHost::Options* host) {
  for (int i = 0; i < config.workers.count; ++i) {
    worker_service::WorkerOptions options;
    options.name = fmt::format("worker{}", i);
    options.listen = "unix:" + runtime_dir.SocketPath(options.name);
    std::vector<config::Override> overrides = {{"cpu.threads", std::to_string(ThreadsOf(config, i))}};
    if (const size_t services = config.memory.service_count(); services > 0) {
      const size_t service = ServiceOf(i, services);
      const std::string address = service < memory.size() ? "unix:" + memory[service].data_socket
                                                          : config.memory.addresses[service - memory.size()];
      overrides.push_back({"memory.addresses", fmt::format("[{}]", config::Quoted(address))});
    }
    options.weights_fd = has_weights ? kChildWeightsFd : -1;
    options.lifeline_fd = kChildLifelineFd;
    if (runtime_dir.owned()) options.private_dir = runtime_dir.path();
    core->workers.push_back({.name = options.name, .address = options.listen, .is_child = true});
    host->workers.push_back(
        {.address = options.listen, .arguments = WorkerArguments(options, kChildConfigFd, overrides)});
  }
}

// The kept image of these weights; invalid when there is none. The manager forgets all others.
absl::StatusOr<worker_service::PackedModel> TakeImage(DispatcherOptions* options,
                                                      const devices::DeviceOptions& device) {
  worker_service::PackedModel packed;
  if (options->kept_images.empty()) return packed;
  MNEMO_ASSIGN_OR_RETURN(const std::optional<std::string> key,
                         worker_service::ImageKey(*options->file, device));
  for (PassedDescriptor& kept : options->kept_images) {
    if (!packed.image.valid() && key.has_value() && kept.name == std::string(kImageName) + *key) {
      absl::StatusOr<worker_service::PackedModel> reused =
          worker_service::ReuseImage(std::move(kept.fd), device);
      if (reused.ok()) {
        packed = *std::move(reused);
        continue;
      }
      spdlog::warn("the kept image of the weights is not used: {}", std::string(reused.status().message()));
    }
    ForgetDescriptor(kept.name);
  }
  options->kept_images.clear();
  return packed;
}

// Has the weights packed, or takes the image that an earlier process left.
absl::StatusOr<worker_service::PackedModel> GetImage(DispatcherOptions* options,
                                                     const model::ModelConfig& model,
                                                     const devices::DeviceOptions& device) {
  MNEMO_ASSIGN_OR_RETURN(worker_service::PackedModel packed, TakeImage(options, device));
  if (packed.image.valid()) {
    spdlog::info("weights of {} taken over from the last process", packed.id);
    return packed;
  }
  const auto began = std::chrono::steady_clock::now();
  if (options->on_phase) options->on_phase("packing weights");
  MNEMO_ASSIGN_OR_RETURN(packed, worker_service::PackModel(*options->file, model, device));
  const auto took = std::chrono::steady_clock::now() - began;
  spdlog::info("weights of {} packed in {} ms", packed.id,
               std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
  if (!options->keeps_image) return packed;
  MNEMO_ASSIGN_OR_RETURN(const std::optional<std::string> key,
                         worker_service::ImageKey(*options->file, device));
  if (key.has_value()) KeepDescriptor(std::string(kImageName) + *key, packed.image.get());
  return packed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dispatcher>> CreateDispatcher(DispatcherOptions options) {
  config::Config& config = options.config;
  if (config.workers.count == 0 && config.workers.addresses.empty()) {
    return InvalidArgument("workers: count is 0 and addresses is empty; at least one worker is needed");
  }
  worker_service::LoadedModel own;
  if (options.file == nullptr) {
    MNEMO_ASSIGN_OR_RETURN(own, worker_service::LoadModel(config.model.path));
    options.file = own.file.get();
    options.model = &own.config;
  }
  const model::ModelConfig& model = *options.model;
  CoreOptions core;
  core.timing = config.workers;
  core.max_sessions = config.limits.max_sessions;
  core.session_ttl = std::chrono::milliseconds(config.limits.session_ttl_ms);
  core.event_interval_ms = config.server.stream_interval_ms;
  core.version = options.version;
  core.on_replay = std::move(options.on_replay);
  core.observer = options.observer;
  ProcessHost::Options host;
  host.keepalive = {config.workers.keepalive_time_ms, config.workers.keepalive_timeout_ms};
  std::shared_ptr<const RuntimeDir> runtime_dir;
  MemorySupervisor::Options memory;
  UniqueFd weights;
  ContextBound bound;
  if (config.workers.count > 0) {
    MNEMO_ASSIGN_OR_RETURN(host.program,
                           FindProgram("workers.binary", config.workers.binary, "mnemo-worker"));
    if (config.memory.services > 0) MNEMO_RETURN_IF_ERROR(CheckMemoryDevice(config.memory));
    // First, since a second daemon on one directory is to end before it packs.
    MNEMO_ASSIGN_OR_RETURN(runtime_dir, RuntimeDir::Make(config.workers.runtime_dir));
    host.before_spawn = [runtime_dir] { return runtime_dir->Ensure(); };
    const devices::DeviceOptions device = worker_service::DeviceOptionsOf(config, model);
    MNEMO_ASSIGN_OR_RETURN(bound, DecideSizes(model, device, AvailableResources(), &config));
    MNEMO_ASSIGN_OR_RETURN(UniqueFd image, config::MakeImage(config));
    host.config = std::make_shared<const UniqueFd>(std::move(image));
    MNEMO_ASSIGN_OR_RETURN(worker_service::PackedModel packed, GetImage(&options, model, device));
    weights = std::move(packed.image);
    core.model_id = std::move(packed.id);
    MNEMO_ASSIGN_OR_RETURN(memory, MemoryServicesOf(config, bound.tokens, *runtime_dir));
    memory.before_spawn = host.before_spawn;
    memory.config = host.config;
    AddChildren(config, *runtime_dir, weights.valid(), memory.services, &core, &host);
  }
  if (core.model_id.empty()) {
    MNEMO_ASSIGN_OR_RETURN(core.model_id, worker_service::ModelId(*options.file, model));
  }
  for (size_t i = 0; i < config.workers.addresses.size(); ++i) {
    const std::string name = fmt::format("worker{}", config.workers.count + static_cast<int>(i));
    core.workers.push_back({.name = name, .address = config.workers.addresses[i], .is_child = false});
    host.workers.push_back({.address = config.workers.addresses[i], .arguments = {}});
  }
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<ProcessHost> process_host,
                         ProcessHost::Create(std::move(host), std::move(weights)));
  std::unique_ptr<MemorySupervisor> supervisor;
  if (!memory.services.empty()) {
    MNEMO_ASSIGN_OR_RETURN(supervisor, MemorySupervisor::Start(std::move(memory)));
  }
  // Workers that others run have memory services of their own, of which nothing is known here.
  return std::make_unique<DispatcherImpl>(
      std::move(runtime_dir), std::move(supervisor), config.workers.count,
      config.workers.count > 0 ? config.memory.addresses : std::vector<std::string>(), std::move(bound),
      std::move(process_host), std::move(core));
}

}  // namespace mnemo::dispatch
