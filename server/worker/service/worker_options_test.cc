#include "server/worker/service/worker_options.h"

#include <catch2/catch.hpp>

namespace mnemo::worker_service {
namespace {

absl::StatusOr<WorkerOptions> Parse(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"mnemo-worker"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseWorkerOptions(static_cast<int>(argv.size()), argv.data());
}

TEST_CASE("what mnemod writes, the worker reads") {
  WorkerOptions options;
  options.name = "worker3";
  options.listen = "unix:/run/a b/worker3.sock";
  options.model_path = "/models/--odd name=.gguf";
  options.context_tokens = 4096;
  options.device = "reference";
  options.isa = "avx2";
  options.threads = 3;
  options.cpus = {4, 5, 6};
  options.local_workers = 4;
  options.drain_timeout_ms = 17;
  options.engine = {.max_batch_rows = 11,
                    .max_running = 12,
                    .max_waiting = 13,
                    .reserve_tokens = 14,
                    .kv_type = "bf16",
                    .kv_cache_bytes = int64_t{5} << 32,
                    .prefix_cache = false,
                    .max_sessions = 15};
  options.dense_layers = 5;
  options.entry_tokens = 64;
  options.memory_address = "unix:/run/a b/memory1.sock";
  options.offload = false;
  options.memory_timeout_ms = 777;
  options.resident_tokens = 5000;
  options.kv_wait_ms = 55;
  options.log = {.level = "debug", .format = "json", .file = "/tmp/log file"};
  options.weights_fd = 3;
  options.lifeline_fd = 4;
  options.private_dir = "/run/a b";
  const absl::StatusOr<WorkerOptions> read = Parse(WorkerArguments(options));
  REQUIRE(read.ok());
  CHECK(WorkerArguments(*read) == WorkerArguments(options));
  CHECK(read->model_path == options.model_path);
  CHECK(read->listen == options.listen);
  CHECK(read->cpus == options.cpus);
  CHECK(read->engine.kv_cache_bytes == options.engine.kv_cache_bytes);
  CHECK_FALSE(read->engine.prefix_cache);
  CHECK(read->dense_layers == 5);
  CHECK(read->entry_tokens == 64);
  CHECK(read->memory_address == options.memory_address);
  CHECK_FALSE(read->offload);
  CHECK(read->memory_timeout_ms == 777);
  CHECK(read->resident_tokens == 5000);
  CHECK(read->kv_wait_ms == 55);
  CHECK(read->log.file == options.log.file);
  CHECK(read->lifeline_fd == 4);
}

TEST_CASE("defaults are those of the configuration") {
  const absl::StatusOr<WorkerOptions> read = Parse({"--model=m.gguf", "--listen=127.0.0.1:1"});
  REQUIRE(read.ok());
  WorkerOptions options;
  options.model_path = "m.gguf";
  options.listen = "127.0.0.1:1";
  CHECK(WorkerArguments(*read) == WorkerArguments(options));
}

TEST_CASE("a wrong command line says what is wrong") {
  const auto message = [](const std::vector<std::string>& arguments) {
    const absl::StatusOr<WorkerOptions> read = Parse(arguments);
    REQUIRE_FALSE(read.ok());
    CHECK(read.status().code() == absl::StatusCode::kInvalidArgument);
    return std::string(read.status().message());
  };
  CHECK_THAT(message({"--listen=a:1"}), Catch::Contains("--model"));
  CHECK_THAT(message({"--model=m", "--listen=a:1", "--kv-type=q4"}), Catch::Contains("q8"));
  CHECK_THAT(message({"--model=m", "--listen=a:1", "--max-running=0"}), Catch::Contains("--max-running"));
  CHECK_THAT(message({"--model=m", "--listen=a:1", "--wrong=0"}), Catch::Contains("--wrong"));
}

TEST_CASE("help and version are answers, not errors") {
  const absl::StatusOr<WorkerOptions> help = Parse({"--help"});
  CHECK(help.status().code() == absl::StatusCode::kCancelled);
  CHECK_THAT(std::string(help.status().message()), Catch::Contains("--weights-fd"));
  CHECK_THAT(std::string(Parse({"--version"}).status().message()), Catch::Contains("mnemo-worker "));
}

}  // namespace
}  // namespace mnemo::worker_service
