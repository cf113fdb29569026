#include "server/memory_service/memory_options.h"

#include <catch2/catch.hpp>

#include "config/child_config.h"

namespace mnemo::memory_service {
namespace {

absl::StatusOr<MemoryOptions> Parse(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"mnemo-memory"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseMemoryOptions(static_cast<int>(argv.size()), argv.data());
}

TEST_CASE("what mnemod writes, the service reads") {
  MemoryOptions options;
  options.name = "memory1";
  options.data_socket = "/tmp/data";
  options.control_address = "unix:/tmp/control";
  options.remote_listen = "127.0.0.1:7000";
  options.metrics_listen = "127.0.0.1:0";
  options.region_bytes = 1 << 20;
  options.max_owners = 2;
  options.max_indexes = 77;
  options.max_tokens = 4096;
  options.lifeline_fd = 9;
  options.private_dir = "/tmp/private";
  config::Config config;
  config.memory.threads = 3;
  config.memory.index_bytes = int64_t{5} << 32;
  config.memory.device = "card";
  config.memory.device_options = {"slot=0000:3b:00.0", "image=/a \"b\"=c"};
  config.memory.operation_timeout_ms = 20;
  config.log = {.level = "debug", .format = "json", .file = "/tmp/log"};
  const absl::StatusOr<UniqueFd> image = config::MakeImage(config);
  REQUIRE(image.ok());
  const absl::StatusOr<MemoryOptions> read =
      Parse(MemoryArguments(options, image->get(), {{"memory.quota_bytes", "4294967296"}}));
  INFO(read.status());
  REQUIRE(read.ok());
  CHECK(MemoryArguments(*read, -1, {}) == MemoryArguments(options, -1, {}));
  config.memory.quota_bytes = int64_t{1} << 32;
  CHECK(config::Serialize(read->config) == config::Serialize(config));
  CHECK(DeviceOptionPairs(read->config.memory) ==
        std::vector<std::pair<std::string, std::string>>{{"slot", "0000:3b:00.0"}, {"image", "/a \"b\"=c"}});
}

TEST_CASE("a service that is started by hand takes short forms and overrides") {
  const absl::StatusOr<MemoryOptions> read =
      Parse({"--data-socket=/tmp/data", "--control-address=127.0.0.1:0", "--threads=2",
             "--memory-bytes=8589934592", "--quota-bytes=1073741824", "--log-format=json", "--device=card",
             "--device-option=a=1", "--device-option=b=[2]", "--set=memory.operation_timeout_ms=7"});
  INFO(read.status());
  REQUIRE(read.ok());
  const config::Config::Memory& memory = read->config.memory;
  CHECK(memory.threads == 2);
  CHECK(memory.index_bytes == int64_t{8} << 30);
  CHECK(memory.quota_bytes == int64_t{1} << 30);
  CHECK(read->config.log.format == "json");
  CHECK(memory.device == "card");
  CHECK(memory.device_options == std::vector<std::string>{"a=1", "b=[2]"});
  CHECK(memory.operation_timeout_ms == 7);
}

TEST_CASE("what is missing, unknown or out of range is named") {
  const std::vector<std::string> enough = {"--data-socket=/tmp/data", "--control-address=127.0.0.1:0"};
  REQUIRE(Parse(enough).ok());
  CHECK(Parse({"--control-address=127.0.0.1:0"}).status().message().find("--data-socket") !=
        absl::string_view::npos);
  CHECK(Parse({"--data-socket=/tmp/data"}).status().message().find("--control-address") !=
        absl::string_view::npos);
  for (const std::string bad :
       {"--max-owners=0", "--max-owners=65", "--threads=-1", "--device=A card", "--region-bytes=10",
        "--memory-bytes=-1", "--quota-bytes=1", "--log-level=loud", "--what=1",
        "--name=", "--device-option=nothing", "--device-option==1"}) {
    std::vector<std::string> arguments = enough;
    arguments.push_back(bad);
    const absl::Status status = Parse(arguments).status();
    INFO(bad << ": " << status.message());
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(status.message().find(bad.substr(0, bad.find('='))) != absl::string_view::npos);
  }
  CHECK(Parse({"--data-socket=/" + std::string(200, 'x'), "--control-address=127.0.0.1:0"})
            .status()
            .message()
            .find("--data-socket") != absl::string_view::npos);
}

TEST_CASE("help and version are answers, not errors") {
  CHECK(Parse({"--help"}).status().code() == absl::StatusCode::kCancelled);
  CHECK(Parse({"--version"}).status().message().find("mnemo-memory") == 0);
}

}  // namespace
}  // namespace mnemo::memory_service
