#include "server/frontend/dispatch/dispatcher.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "devices/base/unique_fd.h"
#include "server/frontend/dispatch/child_process.h"
#include "server/frontend/dispatch/dispatch_core.h"
#include "server/frontend/dispatch/worker_host.h"
#include "server/worker/service/device_options.h"
#include "server/worker/service/model_image.h"
#include "server/worker/service/worker_options.h"

namespace mnemo::frontend {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxSocketPath = 107;  // sun_path of a Unix socket, without the end

// Where the sockets are. Removed with what is in it if it was made here.
class RuntimeDir {
 public:
  RuntimeDir() = default;
  RuntimeDir(RuntimeDir&& other) noexcept
      : path_(std::move(other.path_)), owned_(std::exchange(other.owned_, false)) {}
  RuntimeDir& operator=(RuntimeDir&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~RuntimeDir() {
    std::error_code ignored;
    if (owned_) fs::remove_all(path_, ignored);
  }

  static absl::StatusOr<RuntimeDir> Make(const std::string& configured) {
    RuntimeDir dir;
    if (!configured.empty()) {
      std::error_code error;
      fs::create_directories(configured, error);
      if (error) return FailedPrecondition("workers.runtime_dir: {}: {}", configured, error.message());
      dir.path_ = configured;
      return dir;
    }
    const char* base = std::getenv("XDG_RUNTIME_DIR");
    std::string pattern =
        (base != nullptr && ::access(base, W_OK) == 0 ? std::string(base) : "/tmp") + "/mnemo-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) {
      return FailedPrecondition("workers.runtime_dir: making {}: {}", pattern, std::strerror(errno));
    }
    dir.path_ = pattern;
    dir.owned_ = true;
    return dir;
  }
  const std::string& path() const { return path_; }
  bool owned() const { return owned_; }

 private:
  std::string path_;
  bool owned_ = false;
};

absl::StatusOr<std::string> WorkerProgram(const std::string& configured) {
  if (!configured.empty()) return configured;
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) return Internal("/proc/self/exe: {}", error.message());
  return (self.parent_path() / "mnemo-worker").string();
}

// What all local workers have in common.
worker::WorkerOptions CommonOptions(const config::Config& config) {
  worker::WorkerOptions options;
  options.model_path = config.model.path;
  options.context_tokens = config.model.context_tokens;
  options.device = config.device;
  options.isa = config.cpu.isa;
  options.local_workers = std::max(1, config.workers.count);
  options.drain_timeout_ms = config.server.drain_timeout_ms;
  options.engine = config.engine;
  options.log = config.log;
  return options;
}

// Worker `index`'s part of the threads: as even as it goes, at least one.
int ThreadsOf(const config::Config& config, int index) {
  const int total = config.cpu.threads > 0 ? config.cpu.threads : worker::AvailableCores();
  const int count = config.workers.count;
  return std::max(1, total / count + (index < total % count ? 1 : 0));
}

class DispatcherImpl final : public Dispatcher {
 public:
  DispatcherImpl(RuntimeDir runtime_dir, std::unique_ptr<ProcessHost> host, CoreOptions options)
      : runtime_dir_(std::move(runtime_dir)),
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
  std::vector<WorkerSnapshot> Workers() const override { return core_->Workers(); }
  void OnReadyChange(std::function<void(int)> callback) override {
    core_->OnReadyChange(std::move(callback));
  }

 private:
  const RuntimeDir runtime_dir_;
  const std::unique_ptr<ProcessHost> host_;
  const std::shared_ptr<DispatchCore> core_;
};

absl::Status AddChildren(const config::Config& config, const RuntimeDir& runtime_dir, bool has_weights,
                         CoreOptions* core, ProcessHost::Options* host) {
  for (int i = 0; i < config.workers.count; ++i) {
    worker::WorkerOptions options = CommonOptions(config);
    options.name = fmt::format("worker{}", i);
    const std::string path = fmt::format("{}/{}.sock", runtime_dir.path(), options.name);
    if (path.size() > kMaxSocketPath) {
      return InvalidArgument("workers.runtime_dir: {} is longer than the {} bytes of a socket's path", path,
                             kMaxSocketPath);
    }
    options.listen = "unix:" + path;
    options.threads = ThreadsOf(config, i);
    options.weights_fd = has_weights ? kChildWeightsFd : -1;
    options.lifeline_fd = kChildLifelineFd;
    if (runtime_dir.owned()) options.private_dir = runtime_dir.path();
    core->workers.push_back({.name = options.name, .address = options.listen, .is_child = true});
    host->workers.push_back({.address = options.listen, .arguments = WorkerArguments(options)});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dispatcher>> CreateDispatcher(DispatcherOptions options) {
  const config::Config& config = options.config;
  if (config.workers.count == 0 && config.workers.addresses.empty()) {
    return InvalidArgument("workers: count is 0 and addresses is empty; at least one worker is needed");
  }
  MNEMO_ASSIGN_OR_RETURN(const worker::LoadedModel model, worker::LoadModel(config.model.path));
  CoreOptions core;
  core.timing = config.workers;
  core.max_sessions = config.limits.max_sessions;
  core.model_id = model.id;
  core.version = options.version;
  core.on_replay = std::move(options.on_replay);
  ProcessHost::Options host;
  host.keepalive = {config.workers.keepalive_time_ms, config.workers.keepalive_timeout_ms};
  RuntimeDir runtime_dir;
  UniqueFd weights;
  if (config.workers.count > 0) {
    MNEMO_ASSIGN_OR_RETURN(host.program, WorkerProgram(config.workers.binary));
    if (::access(host.program.c_str(), X_OK) != 0) {
      return FailedPrecondition("workers.binary: {}: {}", host.program, std::strerror(errno));
    }
    const auto began = std::chrono::steady_clock::now();
    MNEMO_ASSIGN_OR_RETURN(weights,
                           worker::PackWeights(model, worker::DeviceOptionsOf(CommonOptions(config))));
    const auto took = std::chrono::steady_clock::now() - began;
    spdlog::info("weights of {} packed in {} ms", model.id,
                 std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
    MNEMO_ASSIGN_OR_RETURN(runtime_dir, RuntimeDir::Make(config.workers.runtime_dir));
    MNEMO_RETURN_IF_ERROR(AddChildren(config, runtime_dir, weights.valid(), &core, &host));
  }
  for (size_t i = 0; i < config.workers.addresses.size(); ++i) {
    const std::string name = fmt::format("worker{}", config.workers.count + static_cast<int>(i));
    core.workers.push_back({.name = name, .address = config.workers.addresses[i], .is_child = false});
    host.workers.push_back({.address = config.workers.addresses[i], .arguments = {}});
  }
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<ProcessHost> process_host,
                         ProcessHost::Create(std::move(host), std::move(weights)));
  return std::make_unique<DispatcherImpl>(std::move(runtime_dir), std::move(process_host), std::move(core));
}

}  // namespace mnemo::frontend
