#include "server/telemetry/logging.h"

#include <spdlog/spdlog.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace mnemo::telemetry {
namespace {

// Logs into a separate file; its lines can be read at any time.
class LogFile {
 public:
  explicit LogFile(const std::string& format, const std::string& level = "info") {
    REQUIRE(SetUpLogging({.process = "mnemod", .level = level, .format = format, .file = folder_.path("log")})
                .ok());
  }
  ~LogFile() { spdlog::set_default_logger(std::make_shared<spdlog::logger>("none")); }
  std::vector<std::string> Lines() const {
    FlushLog(std::chrono::seconds(10));
    std::ifstream in(folder_.path("log"));
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }

 private:
  mnemo::testing::TempFolder folder_;
};

TEST_CASE("A text line has time, level, process, request and message") {
  LogFile log("text");
  spdlog::info("listening on {}", "127.0.0.1:1");
  LogRequest(LogLevel::kWarn, "r-17", "replayed");
  spdlog::info("after");
  std::vector<std::string> lines = log.Lines();
  REQUIRE(lines.size() == 3);
  const std::string time = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z )";
  CHECK_THAT(lines[0], Catch::Matches(time + R"(info  mnemod listening on 127\.0\.0\.1:1)"));
  CHECK_THAT(lines[1], Catch::Matches(time + R"(warn  mnemod \[r-17\] replayed)"));
  CHECK_THAT(lines[2], Catch::Matches(time + R"(info  mnemod after)"));
}

TEST_CASE("A message cannot forge a line") {
  LogFile log("text");
  LogRequest(LogLevel::kInfo, "id\n2026 error", "a\nb\x1b[31m\tc");
  std::vector<std::string> lines = log.Lines();
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find(R"([id\n2026 error] a\nb\x1b[31m\x09c)") != std::string::npos);
}

TEST_CASE("A JSON line is one object, whatever is in the message") {
  LogFile log("json", "debug");
  const std::string strange = "quote \" backslash \\ newline \n tab \t bell \a e-acute \xc3\xa9 bad \xff end";
  LogRequest(LogLevel::kError, "id\"1", strange);
  spdlog::debug("plain");
  std::vector<std::string> lines = log.Lines();
  REQUIRE(lines.size() == 2);
  nlohmann::json first = nlohmann::json::parse(lines[0]);
  CHECK(first["level"] == "error");
  CHECK(first["process"] == "mnemod");
  CHECK(first["request_id"] == "id\"1");
  CHECK(first["message"] ==
        "quote \" backslash \\ newline \n tab \t bell \a e-acute \xc3\xa9 bad \xef\xbf\xbd end");
  nlohmann::json second = nlohmann::json::parse(lines[1]);
  CHECK(second["message"] == "plain");
  CHECK_FALSE(second.contains("request_id"));
}

TEST_CASE("The level applies and can be changed") {
  LogFile log("text", "warn");
  spdlog::info("no");
  LogRequest(LogLevel::kInfo, "r", "no");
  REQUIRE(SetLogLevel("debug").ok());
  LogRequest(LogLevel::kDebug, "r", "yes");
  absl::Status status = SetLogLevel("loud");
  CHECK(absl::IsInvalidArgument(status));
  CHECK(std::string(status.message()) == "log level \"loud\"; allowed: trace | debug | info | warn | error");
  spdlog::debug("still");
  CHECK(log.Lines().size() == 2);
}

TEST_CASE("Invalid options are refused") {
  CHECK(absl::IsInvalidArgument(SetUpLogging({.process = "p", .level = "x"})));
  CHECK(absl::IsInvalidArgument(SetUpLogging({.process = "p", .format = "xml"})));
  absl::Status status = SetUpLogging({.process = "p", .file = "/proc/absent/log"});
  CHECK(absl::IsInvalidArgument(status));
  CHECK(std::string(status.message()).find("/proc/absent/log") != std::string::npos);
}

TEST_CASE("Request ids of threads do not mix") {
  LogFile log("json");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) LogRequest(LogLevel::kInfo, std::to_string(t), "of " + std::to_string(t));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::string> lines = log.Lines();
  REQUIRE(lines.size() == 800);
  for (const std::string& line : lines) {
    nlohmann::json object = nlohmann::json::parse(line);
    CHECK(object["message"] == "of " + object["request_id"].get<std::string>());
  }
}

}  // namespace
}  // namespace mnemo::telemetry
