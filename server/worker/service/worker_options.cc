#include "server/worker/service/worker_options.h"

#include <CLI/CLI.hpp>

#include "devices/base/command_line.h"

#ifndef MNEMO_VERSION
#error MNEMO_VERSION is set by CMakeLists.txt
#endif

namespace mnemo::worker_service {
namespace {

void AddEngineOptions(CLI::App& app, config::Config::Engine& engine) {
  const std::string group = "Engine";
  app.add_option("--max-batch-rows", engine.max_batch_rows, "Rows of one step")
      ->check(CLI::Range(1, 8192))
      ->group(group);
  app.add_option("--max-running", engine.max_running, "Requests that hold pages at once")
      ->check(CLI::Range(1, 1024))
      ->group(group);
  app.add_option("--max-waiting", engine.max_waiting, "Requests that wait beyond those")
      ->check(CLI::Range(1, 65536))
      ->group(group);
  app.add_option("--reserve-tokens", engine.reserve_tokens, "Output tokens reserved at admission")
      ->check(CLI::Range(1, 1048576))
      ->group(group);
  app.add_option("--kv-type", engine.kv_type, "Type of the KV cache")
      ->check(CLI::IsMember({"auto", "f16", "bf16", "q8"}))
      ->group(group);
  app.add_option("--kv-cache-bytes", engine.kv_cache_bytes,
                 "Page pool; 0 = as many as four contexts take, at most a quarter of memory")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
  app.add_option("--prefix-cache", engine.prefix_cache, "Reuse of the pages of equal prefixes")->group(group);
  app.add_option("--max-sessions", engine.max_sessions, "Sessions remembered")
      ->check(CLI::Range(1, 1048576))
      ->group(group);
}

void AddMemoryOptions(CLI::App& app, WorkerOptions& options) {
  const std::string group = "Memory";
  app.add_option("--dense-layers", options.dense_layers,
                 "First full-attention layers that attend to everything")
      ->check(CLI::Range(0, 65536))
      ->group(group);
  app.add_option("--entry-tokens", options.entry_tokens,
                 "Tokens that an entry of page_bound and block_mean stands for")
      ->check(CLI::IsMember({16, 64}))
      ->group(group);
  app.add_option("--memory-address", options.memory_address,
                 "unix:/PATH or ucx:HOST:PORT of the memory service; none if not given")
      ->group(group);
  app.add_option("--offload", options.offload, "Requests that name no placement go to the memory service")
      ->group(group);
  app.add_option("--resident-tokens", options.resident_tokens,
                 "Positions of sequences whose K and V the memory service keeps; 0: it keeps none")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 28))
      ->group(group);
  app.add_option("--kv-wait-ms", options.kv_wait_ms,
                 "A request that lost its K and V waits so long for another memory service")
      ->check(CLI::Range(0, 3600000))
      ->group(group);
  app.add_option("--memory-timeout-ms", options.memory_timeout_ms,
                 "A memory service that is silent so long hangs")
      ->check(CLI::Range(10, 600000))
      ->group(group);
}

void AddOptions(CLI::App& app, WorkerOptions& options) {
  app.add_option("--model", options.model_path, "GGUF file")->required();
  app.add_option("--listen", options.listen, "unix:/PATH or HOST:PORT")->required();
  app.add_option("--name", options.name, "Name in logs");
  app.add_option("--context-tokens", options.context_tokens, "Longest sequence; 0 = the model's")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--device", options.device, "What computes")->check(CLI::IsMember({"cpu", "reference"}));
  app.add_option("--isa", options.isa, "Instruction set of the cpu device, or auto");
  app.add_option("--threads", options.threads, "Threads that compute; 0 = as many as cores")
      ->check(CLI::Range(0, 1024));
  app.add_option("--cpus", options.cpus, "Cores to stay on, separated by commas")->delimiter(',');
  app.add_option("--local-workers", options.local_workers, "Workers that share the machine's memory")
      ->check(CLI::Range(1, 64));
  app.add_option("--drain-timeout-ms", options.drain_timeout_ms,
                 "How long running requests have after SIGTERM")
      ->check(CLI::Range(0, 3600000));
  AddLogOptions(&app, &options.log.level, &options.log.format, &options.log.file);
  app.add_option("--weights-fd", options.weights_fd, "Packed weights, inherited")->group("Set by mnemod");
  AddChildOptions(&app, &options.lifeline_fd, &options.private_dir);
  AddEngineOptions(app, options.engine);
  AddMemoryOptions(app, options);
}

}  // namespace

absl::StatusOr<WorkerOptions> ParseWorkerOptions(int argc, const char* const* argv) {
  WorkerOptions options;
  CLI::App app("Inference worker of mnemo. mnemod starts it; started by hand it serves a mnemod elsewhere.",
               "mnemo-worker");
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", "mnemo-worker " MNEMO_VERSION);
  AddOptions(app, options);
  MNEMO_RETURN_IF_ERROR(ParseCommandLine(&app, argc, argv));
  return options;
}

std::vector<std::string> WorkerArguments(const WorkerOptions& options) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* name, const auto& value) {
    arguments.push_back(fmt::format("--{}={}", name, value));
  };
  add("name", options.name);
  add("model", options.model_path);
  add("listen", options.listen);
  add("context-tokens", options.context_tokens);
  add("device", options.device);
  add("isa", options.isa);
  add("threads", options.threads);
  if (!options.cpus.empty()) add("cpus", fmt::format("{}", fmt::join(options.cpus, ",")));
  add("local-workers", options.local_workers);
  add("drain-timeout-ms", options.drain_timeout_ms);
  add("max-batch-rows", options.engine.max_batch_rows);
  add("max-running", options.engine.max_running);
  add("max-waiting", options.engine.max_waiting);
  add("reserve-tokens", options.engine.reserve_tokens);
  add("kv-type", options.engine.kv_type);
  add("kv-cache-bytes", options.engine.kv_cache_bytes);
  add("prefix-cache", options.engine.prefix_cache);
  add("max-sessions", options.engine.max_sessions);
  add("dense-layers", options.dense_layers);
  add("entry-tokens", options.entry_tokens);
  if (!options.memory_address.empty()) add("memory-address", options.memory_address);
  add("offload", options.offload);
  add("resident-tokens", options.resident_tokens);
  add("kv-wait-ms", options.kv_wait_ms);
  add("memory-timeout-ms", options.memory_timeout_ms);
  add("log-level", options.log.level);
  add("log-format", options.log.format);
  if (!options.log.file.empty()) add("log-file", options.log.file);
  if (options.weights_fd >= 0) add("weights-fd", options.weights_fd);
  if (options.lifeline_fd >= 0) add("lifeline-fd", options.lifeline_fd);
  if (!options.private_dir.empty()) add("private-dir", options.private_dir);
  return arguments;
}

}  // namespace mnemo::worker_service
