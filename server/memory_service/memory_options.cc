#include "server/memory_service/memory_options.h"

#include <sys/un.h>

#include <CLI/CLI.hpp>

#include "config/config_options.h"
#include "devices/base/command_line.h"

#ifndef MNEMO_VERSION
#error MNEMO_VERSION is set by CMakeLists.txt
#endif

namespace mnemo::memory_service {
namespace {

constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;
constexpr size_t kMaxName = 48;  // with ":" and a device's name it fits what a worker is told at attach

void AddOptions(CLI::App& app, MemoryOptions& options) {
  app.add_option("--name", options.name, "Name in logs and in what workers report of their steps")
      ->check(CLI::Validator(
          [](const std::string& name) {
            return name.empty() || name.size() > kMaxName
                       ? fmt::format("has {} bytes, allowed are 1 to {}", name.size(), kMaxName)
                       : std::string();
          },
          ""));
  app.add_option("--data-socket", options.data_socket, "Path of the Unix socket where workers attach")
      ->check(CLI::Validator(
          [](const std::string& path) {
            return path.empty() || path.size() > kMaxSocketPath
                       ? fmt::format("has {} bytes, a socket's path has 1 to {}", path.size(), kMaxSocketPath)
                       : std::string();
          },
          "PATH"))
      ->required();
  app.add_option("--control-address", options.control_address, "gRPC control: unix:/PATH or HOST:PORT")
      ->required();
  app.add_option("--remote-listen", options.remote_listen,
                 "HOST:PORT where workers attach from other machines, through UCX; none if not given");
  app.add_option("--metrics-listen", options.metrics_listen, "HOST:PORT of /metrics; none if not given");
  app.add_option("--isa", options.isa, "Instruction set of the cpu device, or auto");
  app.add_option("--region-bytes", options.region_bytes,
                 "Largest region for payloads and results of one owner")
      ->check(CLI::Range(int64_t{1} << 16, int64_t{1} << 36));
  app.add_option("--max-owners", options.max_owners, "Workers attached at once")->check(CLI::Range(1, 64));
  app.add_option("--max-indexes", options.max_indexes, "Indexes of one owner")->check(CLI::Range(1, 1 << 20));
  app.add_option("--max-tokens", options.max_tokens, "Tokens of one index")->check(CLI::Range(64, 1 << 24));
  AddChildOptions(&app, &options.lifeline_fd, &options.private_dir);
}

// Short forms of what a service that is started by hand usually needs.
void AddShorts(config::ConfigOptions* shorts) {
  shorts->AddShort("--device", "memory.device", "What keeps and searches indexes");
  shorts->AddShort("--threads", "memory.threads", "Threads that compute; 0 = as many as cores");
  shorts->AddShort("--memory-bytes", "memory.index_bytes",
                   "Memory of all indexes together; 0 = a quarter of what may be used");
  shorts->AddShort("--quota-bytes", "memory.quota_bytes",
                   "Memory of one owner's indexes; 0 = an equal part for each of --max-owners");
  shorts->AddLogShorts();
}

}  // namespace

absl::StatusOr<MemoryOptions> ParseMemoryOptions(int argc, const char* const* argv) {
  MemoryOptions options;
  std::vector<std::string> device_options;
  CLI::App app(
      "Memory service of mnemo: keeps indexes of keys and searches them for workers. Its settings are those "
      "of mnemod, see docs/CONFIGURATION.md.",
      "mnemo-memory");
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", "mnemo-memory " MNEMO_VERSION);
  AddOptions(app, options);
  app.add_option("--device-option", device_options,
                 "KEY=VALUE of what the device alone understands, memory.device_options; may be repeated")
      ->allow_extra_args(false);
  config::ConfigOptions settings(&app, /*is_child=*/true);
  AddShorts(&settings);
  MNEMO_RETURN_IF_ERROR(ParseCommandLine(&app, argc, argv));
  std::vector<config::Override> more;
  if (!device_options.empty()) {
    for (std::string& option : device_options) option = config::Quoted(option);
    more.push_back(
        {"memory.device_options", fmt::format("[{}]", fmt::join(device_options, ", ")), "--device-option"});
  }
  MNEMO_ASSIGN_OR_RETURN(options.config, settings.LoadForChild(more));
  return options;
}

std::vector<std::string> MemoryArguments(const MemoryOptions& options, int config_fd,
                                         const std::vector<config::Override>& overrides) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* name, const auto& value) {
    arguments.push_back(fmt::format("--{}={}", name, value));
  };
  add("name", options.name);
  add("data-socket", options.data_socket);
  add("control-address", options.control_address);
  if (!options.remote_listen.empty()) add("remote-listen", options.remote_listen);
  if (!options.metrics_listen.empty()) add("metrics-listen", options.metrics_listen);
  add("isa", options.isa);
  add("region-bytes", options.region_bytes);
  add("max-owners", options.max_owners);
  add("max-indexes", options.max_indexes);
  add("max-tokens", options.max_tokens);
  config::AppendChildArguments({.config_fd = config_fd,
                                .overrides = overrides,
                                .lifeline_fd = options.lifeline_fd,
                                .private_dir = options.private_dir},
                               &arguments);
  return arguments;
}

std::vector<std::pair<std::string, std::string>> DeviceOptionPairs(const config::Config::Memory& memory) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& option : memory.device_options) {
    const size_t equals = option.find('=');
    pairs.emplace_back(option.substr(0, equals), option.substr(equals + 1));
  }
  return pairs;
}

}  // namespace mnemo::memory_service
