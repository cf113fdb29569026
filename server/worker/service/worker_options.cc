#include "server/worker/service/worker_options.h"

#include <CLI/CLI.hpp>

#include "config/config_options.h"
#include "devices/base/command_line.h"

#ifndef MNEMO_VERSION
#error MNEMO_VERSION is set by CMakeLists.txt
#endif

namespace mnemo::worker_service {
namespace {

void AddOptions(CLI::App& app, WorkerOptions& options) {
  app.add_option("--listen", options.listen, "unix:/PATH or HOST:PORT")->required();
  app.add_option("--name", options.name, "Name in logs");
  app.add_option("--cpus", options.cpus, "Cores to stay on, separated by commas")->delimiter(',');
  app.add_option("--weights-fd", options.weights_fd, "Packed weights, inherited")->group("Set by mnemod");
  AddChildOptions(&app, &options.lifeline_fd, &options.private_dir);
}

// Short forms of what a worker that is started by hand usually needs.
void AddShorts(config::ConfigOptions* shorts) {
  shorts->AddShort("--model", "model.path", "GGUF file");
  shorts->AddShort("--context-tokens", "model.context_tokens", "Longest sequence; 0 = the model's");
  shorts->AddShort("--device", "device", "What computes");
  shorts->AddShort("--threads", "cpu.threads", "Threads that compute; 0 = as many as cores");
  shorts->AddLogShorts();
}

// A worker that is given a memory service by hand is to use it.
std::vector<config::Override> MemoryServiceAt(const std::string& address) {
  const std::string option = "--memory-address";
  return {{"memory.services", "0", option},
          {"memory.addresses", fmt::format("[{}]", config::Quoted(address)), option},
          {"memory.placement", "memory_service", option}};
}

// Settles what the configuration leaves to the single worker.
absl::Status Settle(WorkerOptions* options) {
  config::Config& config = options->config;
  if (config.model.path.empty() && options->weights_fd < 0) {
    return InvalidArgument("model.path: empty; a worker needs a GGUF file (--model)");
  }
  config.memory.services = 0;
  if (config.memory.addresses.size() > 1) config.memory.addresses.resize(1);
  if (config.memory.kv_residency == "memory_service" && config.memory.addresses.empty()) {
    return InvalidArgument(
        "memory.kv_residency: memory_service, and the worker has none in memory.addresses "
        "(--memory-address); allowed: worker");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WorkerOptions> ParseWorkerOptions(int argc, const char* const* argv) {
  WorkerOptions options;
  std::string memory_address;
  CLI::App app(
      "Inference worker of mnemo. mnemod starts it; started by hand it serves a mnemod elsewhere. Its "
      "settings are those of mnemod, see docs/CONFIGURATION.md.",
      "mnemo-worker");
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", "mnemo-worker " MNEMO_VERSION);
  AddOptions(app, options);
  app.add_option("--memory-address", memory_address,
                 "unix:/PATH or ucx:HOST:PORT of the memory service: memory.addresses and memory.placement");
  config::ConfigOptions settings(&app, /*is_child=*/true);
  AddShorts(&settings);
  MNEMO_RETURN_IF_ERROR(ParseCommandLine(&app, argc, argv));
  MNEMO_ASSIGN_OR_RETURN(options.config,
                         settings.LoadForChild(memory_address.empty() ? std::vector<config::Override>()
                                                                      : MemoryServiceAt(memory_address)));
  MNEMO_RETURN_IF_ERROR(Settle(&options));
  return options;
}

std::vector<std::string> WorkerArguments(const WorkerOptions& options, int config_fd,
                                         const std::vector<config::Override>& overrides) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* name, const auto& value) {
    arguments.push_back(fmt::format("--{}={}", name, value));
  };
  add("name", options.name);
  add("listen", options.listen);
  if (!options.cpus.empty()) add("cpus", fmt::format("{}", fmt::join(options.cpus, ",")));
  if (options.weights_fd >= 0) add("weights-fd", options.weights_fd);
  config::AppendChildArguments({.config_fd = config_fd,
                                .overrides = overrides,
                                .lifeline_fd = options.lifeline_fd,
                                .private_dir = options.private_dir},
                               &arguments);
  return arguments;
}

}  // namespace mnemo::worker_service
