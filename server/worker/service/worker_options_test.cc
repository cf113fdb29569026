#include "server/worker/service/worker_options.h"

#include <catch2/catch.hpp>

#include "config/child_config.h"
#include "tests/support/temp_folder.h"

namespace mnemo::worker_service {
namespace {

using Catch::Matchers::Contains;

absl::StatusOr<WorkerOptions> Parse(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"mnemo-worker"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseWorkerOptions(static_cast<int>(argv.size()), argv.data());
}

std::string ErrorOf(const std::vector<std::string>& arguments) {
  const absl::StatusOr<WorkerOptions> read = Parse(arguments);
  REQUIRE_FALSE(read.ok());
  CHECK(read.status().code() == absl::StatusCode::kInvalidArgument);
  return std::string(read.status().message());
}

TEST_CASE("what mnemod writes, the worker reads") {
  WorkerOptions options;
  options.name = "worker3";
  options.listen = "unix:/run/a b/worker3.sock";
  options.cpus = {4, 5, 6};
  options.weights_fd = 3;
  options.lifeline_fd = 4;
  options.private_dir = "/run/a b";
  config::Config config;
  config.model.path = "/absent/--odd name=\"'.gguf";
  config.model.context_tokens = 4096;
  config.cpu.threads = 9;
  config.workers.count = 4;
  config.engine.kv_cache_bytes = int64_t{5} << 32;
  config.engine.prefix_cache = false;
  config.attention.entry_tokens = 64;
  config.memory.services = 2;
  config.memory.addresses = {"unix:/run/foreign.sock", "ucx:10.0.0.7:7100"};
  config.memory.kv_residency = "memory_service";
  config.memory.resident_tokens = 5000;
  config.memory.kv_wait_ms = 55;
  config.log = {.level = "debug", .format = "json", .file = "/tmp/log file"};
  const absl::StatusOr<UniqueFd> image = config::MakeImage(config);
  REQUIRE(image.ok());
  const absl::StatusOr<WorkerOptions> read = Parse(
      WorkerArguments(options, image->get(),
                      {{"cpu.threads", "3"}, {"memory.addresses", "[\"unix:/run/a b/memory1.sock\"]"}}));
  INFO(read.status());
  REQUIRE(read.ok());
  CHECK(WorkerArguments(*read, -1, {}) == WorkerArguments(options, -1, {}));
  CHECK(read->cpus == options.cpus);
  config.cpu.threads = 3;
  config.memory.services = 0;
  config.memory.addresses = {"unix:/run/a b/memory1.sock"};
  CHECK(config::Serialize(read->config) == config::Serialize(config));
}

TEST_CASE("a worker that is started by hand takes a file, short forms and overrides, in this order") {
  mnemo::testing::TempFolder folder;
  const std::string file = folder.Write(
      "w.yaml", "model: {path: a.gguf}\nengine: {max_running: 3, max_waiting: 4}\nlog: {level: warn}\n");
  const absl::StatusOr<WorkerOptions> read =
      Parse({"--config", file, "--listen=127.0.0.1:1", "--model=[b]: 'c'.gguf", "--threads=2",
             "--set=engine.max_running=5", "--set=log.level=error", "--log-level=debug"});
  INFO(read.status());
  REQUIRE(read.ok());
  CHECK(read->config.model.path == "[b]: 'c'.gguf");
  CHECK(read->config.cpu.threads == 2);
  CHECK(read->config.engine.max_running == 5);
  CHECK(read->config.engine.max_waiting == 4);
  CHECK(read->config.log.level == "error");
  CHECK(read->config.memory.addresses.empty());
  CHECK(read->config.memory.services == 0);
}

TEST_CASE("a memory service that is given by hand is used, unless an override says otherwise") {
  const std::vector<std::string> enough = {"--model=m", "--listen=a:1",
                                           "--memory-address=unix:/run/m 1.sock"};
  absl::StatusOr<WorkerOptions> read = Parse(enough);
  REQUIRE(read.ok());
  CHECK(read->config.memory.addresses == std::vector<std::string>{"unix:/run/m 1.sock"});
  CHECK(read->config.memory.placement == "memory_service");
  std::vector<std::string> more = enough;
  more.emplace_back("--set=memory.placement=inline");
  read = Parse(more);
  REQUIRE(read.ok());
  CHECK(read->config.memory.placement == "inline");
  // The first of several is taken.
  read = Parse({"--model=m", "--listen=a:1", "--set=memory.addresses=['unix:/a', 'ucx:h:1']"});
  REQUIRE(read.ok());
  CHECK(read->config.memory.addresses == std::vector<std::string>{"unix:/a"});
}

TEST_CASE("what is wrong is named, with key and bound") {
  CHECK_THAT(ErrorOf({"--listen=a:1"}), Contains("model.path") && Contains("--model"));
  CHECK_THAT(ErrorOf({"--model=m"}), Contains("--listen"));
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--set=engine.kv_type=q4"}),
             Contains("engine.kv_type") && Contains("q8"));
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--set=engine.max_running=0"}),
             Contains("engine.max_running: 0 is out of range; allowed: [1, 1024]"));
  CHECK(ErrorOf({"--model=m", "--listen=a:1", "--threads=1025"}) ==
        "--threads: cpu.threads: 1025 is out of range; allowed: 0 or [1, 1024]");
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--set=x"}), Contains("--set x: must be key.path=value"));
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--wrong=0"}), Contains("--wrong"));
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--memory-address=nowhere"}),
             Contains("--memory-address: memory.addresses: \"nowhere\" is not an address"));
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--set=memory.kv_residency=memory_service"}),
             Contains("memory.kv_residency") && Contains("--memory-address"));
  CHECK_THAT(ErrorOf({"--model=m", "--listen=a:1", "--config=a.yaml", "--config-fd=5"}),
             Contains("--config-fd"));
}

TEST_CASE("help and version are answers, not errors") {
  const absl::StatusOr<WorkerOptions> help = Parse({"--help"});
  CHECK(help.status().code() == absl::StatusCode::kCancelled);
  CHECK_THAT(std::string(help.status().message()), Contains("--weights-fd"));
  CHECK_THAT(std::string(Parse({"--version"}).status().message()), Contains("mnemo-worker "));
}

}  // namespace
}  // namespace mnemo::worker_service
