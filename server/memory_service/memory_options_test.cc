#include "server/memory_service/memory_options.h"

#include <catch2/catch.hpp>

namespace mnemo::memory_service {
namespace {

absl::StatusOr<MemoryOptions> Parse(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"mnemo-memory"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseMemoryOptions(static_cast<int>(argv.size()), argv.data());
}

TEST_CASE("what is written is what is read") {
  MemoryOptions options;
  options.name = "memory1";
  options.data_socket = "/tmp/data";
  options.control_address = "unix:/tmp/control";
  options.remote_listen = "127.0.0.1:7000";
  options.metrics_listen = "127.0.0.1:0";
  options.threads = 3;
  options.memory_bytes = int64_t{5} << 32;
  options.quota_bytes = int64_t{1} << 32;
  options.region_bytes = 1 << 20;
  options.max_owners = 2;
  options.max_indexes = 77;
  options.max_tokens = 4096;
  options.log_level = "debug";
  options.log_format = "json";
  options.log_file = "/tmp/log";
  options.lifeline_fd = 9;
  options.private_dir = "/tmp/private";
  const absl::StatusOr<MemoryOptions> read = Parse(MemoryArguments(options));
  REQUIRE(read.ok());
  CHECK(MemoryArguments(*read) == MemoryArguments(options));
  CHECK(read->name == "memory1");
  CHECK(read->quota_bytes == int64_t{1} << 32);
}

TEST_CASE("what is missing, unknown or out of range is named") {
  const std::vector<std::string> enough = {"--data-socket=/tmp/data", "--control-address=127.0.0.1:0"};
  REQUIRE(Parse(enough).ok());
  CHECK(Parse({"--control-address=127.0.0.1:0"}).status().message().find("--data-socket") !=
        absl::string_view::npos);
  CHECK(Parse({"--data-socket=/tmp/data"}).status().message().find("--control-address") !=
        absl::string_view::npos);
  for (const std::string bad :
       {"--max-owners=0", "--max-owners=65", "--threads=-1", "--device=card", "--region-bytes=10",
        "--memory-bytes=-1", "--log-level=loud", "--what=1", "--name="}) {
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
