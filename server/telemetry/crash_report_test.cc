#include "server/telemetry/crash_report.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "devices/base/build_id.h"
#include "server/telemetry/logging.h"
#include "tests/support/temp_folder.h"

namespace mnemo::telemetry {
namespace {

using mnemo::testing::TempFolder;

// Runs `crash` in a child whose log is a file, and returns the lines of the file. The child must end by
// `signal`.
std::vector<std::string> LinesOfCrash(const std::string& format, int signal,
                                      const std::function<void()>& crash) {
  TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit no_core = {0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    // Neither the test framework's handlers nor a sanitizer's.
    for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(number, SIG_DFL);
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
    if (!SetUpLogging({.process = "worker7", .format = format, .file = folder.path("log")}).ok()) ::_exit(3);
    LogRequest(LogLevel::kInfo, "r", "the line before");
    crash();
    ::_exit(4);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == signal);
  CHECK_FALSE(WCOREDUMP(status));
  std::ifstream in(folder.path("log"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

[[gnu::noinline]] void WriteToAddress16() { *reinterpret_cast<volatile int*>(16) = 1; }

nlohmann::json ReportOf(const std::vector<std::string>& lines) {
  REQUIRE(lines.size() == 2);
  CHECK(nlohmann::json::parse(lines[0]).at("message") == "the line before");
  return nlohmann::json::parse(lines[1]);
}

TEST_CASE("A crash report is one JSON object with build id, backtrace and requests") {
  const auto report = ReportOf(LinesOfCrash("json", SIGSEGV, [] {
    const RunningRequest first("plain-1");
    const RunningRequest second(R"(quote"back\slash)");
    { const RunningRequest ended("ended"); }
    WriteToAddress16();
  }));
  CHECK(report.at("level") == "error");
  CHECK(report.at("process") == "worker7");
  CHECK(report.at("message") == "fatal signal SIGSEGV at address 0x10");
  CHECK(report.at("build_id") == BuildId());
  CHECK_THAT(report.at("time").get<std::string>(),
             Catch::Matches(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"));
  CHECK(report.at("request_ids") == nlohmann::json({"plain-1", R"(quote"back\slash)"}));
  CHECK(report.at("request_ids_left_out") == 0);
  REQUIRE(report.at("backtrace").size() >= 3);
  // The frame of the fault comes first, with the module's name and the offset in its file.
  CHECK_THAT(report.at("backtrace").at(0).get<std::string>(),
             Catch::Matches(R"(telemetry_test\+0x[0-9a-f]+ .*WriteToAddress16.*)"));
}

TEST_CASE("A crash report in text is lines of the log") {
  const auto lines = LinesOfCrash("text", SIGABRT, [] {
    const RunningRequest request("r-17");
    std::abort();
  });
  REQUIRE(lines.size() >= 5);
  const std::string start = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z error worker7 )";
  CHECK_THAT(lines[1], Catch::Matches(start + "fatal signal SIGABRT; build id " + BuildId()));
  CHECK_THAT(lines[2], Catch::Matches(start + R"(  #0 \S+\+0x[0-9a-f]+.*)"));
  CHECK_THAT(lines.back(), Catch::Matches(start + "running requests: r-17"));
}

TEST_CASE("Every fatal signal of any thread is reported, and the process ends by it") {
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    const auto report = ReportOf(
        LinesOfCrash("json", signal, [signal] { std::thread([signal] { std::raise(signal); }).join(); }));
    CHECK(report.at("message").get<std::string>().starts_with("fatal signal SIG"));
    CHECK(report.at("request_ids").empty());
  }
}

TEST_CASE("A signal of another process is reported with its sender") {
  const pid_t parent = ::getpid();
  const auto report = ReportOf(LinesOfCrash("json", SIGSEGV, [] {
    const pid_t self = ::getpid();
    if (::fork() == 0) {
      // Not while the parent is still in fork, where it holds the allocator's locks, which the log wants.
      ::usleep(50'000);
      ::kill(self, SIGSEGV);
      ::_exit(0);
    }
    while (true) ::pause();
  }));
  CHECK_THAT(report.at("message").get<std::string>(),
             Catch::Matches("fatal signal SIGSEGV sent by process [0-9]+"));
  CHECK(report.at("message") != "fatal signal SIGSEGV sent by process " + std::to_string(parent));
}

// Each frame needs its memory after the call, so that no compiler makes a loop of it. `depth` ends far beyond
// any stack.
[[gnu::noinline]] int UseUpStack(int depth) {
  volatile char room[4096];
  room[0] = static_cast<char>(depth);
  return depth == 0 ? 0 : UseUpStack(depth - 1) + room[0];
}

TEST_CASE("A stack overflow of the main thread is reported") {
  const auto report = ReportOf(LinesOfCrash("json", SIGSEGV, [] { ::_exit(UseUpStack(1 << 28)); }));
  CHECK(report.at("backtrace").size() > 10);
}

TEST_CASE("A crash of several threads at once gives one report") {
  const auto lines = LinesOfCrash("json", SIGSEGV, [] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) threads.emplace_back(&WriteToAddress16);
    for (std::thread& thread : threads) thread.join();
  });
  ReportOf(lines);
}

TEST_CASE("Requests beyond the table are counted, and all slots come back") {
  const auto report = ReportOf(LinesOfCrash("json", SIGSEGV, [] {
    for (int round = 0; round < 3; ++round) {
      std::vector<RunningRequest> many;
      for (int i = 0; i < 1500; ++i) many.emplace_back("ended-" + std::to_string(i));
    }
    std::vector<RunningRequest> many;
    for (int i = 0; i < 1030; ++i) many.emplace_back(std::string(200, '"'));
    many.erase(many.begin());
    WriteToAddress16();
  }));
  CHECK(report.at("request_ids").size() + report.at("request_ids_left_out").get<size_t>() == 1029);
  CHECK(report.at("request_ids").at(0) == std::string(128, '"'));
}

}  // namespace
}  // namespace mnemo::telemetry
