#include "server/telemetry/log_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "devices/base/unique_fd.h"
#include "server/telemetry/logging.h"
#include "tests/support/temp_folder.h"

namespace mnemo::telemetry {
namespace {

using mnemo::testing::TempFolder;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kLong{20};

std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::unique_ptr<LogWriter> OpenWriter(const std::string& file, size_t max_lines = 100) {
  LogWriter::Options options;
  options.file = file;
  options.max_lines = max_lines;
  options.notice = [](uint64_t dropped) { return "missing " + std::to_string(dropped) + "\n"; };
  options.reopen_failed = [](const std::string& why) { return "cannot " + why + "\n"; };
  auto writer = LogWriter::Open(std::move(options));
  REQUIRE(writer.ok());
  return *std::move(writer);
}

// Waits for an effect of the writer's thread.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    ::usleep(5000);
  }
  return true;
}

// A FIFO whose other end the test holds.
struct Fifo {
  Fifo() {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    reader = UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    REQUIRE(reader.valid());
  }
  // Reads until the text is `enough`.
  template <typename Enough>
  std::string ReadUntil(Enough enough) const {
    std::string text;
    char buffer[4096];
    const bool seen = Eventually([&] {
      for (ssize_t got; (got = ::read(reader.get(), buffer, sizeof buffer)) > 0;) {
        text.append(buffer, static_cast<size_t>(got));
      }
      return enough(text);
    });
    CHECK(seen);
    return text;
  }
  TempFolder folder;
  const std::string path = folder.path("fifo");
  UniqueFd reader;
};

TEST_CASE("A file that cannot be opened yet gets the lines once it can") {
  TempFolder folder;
  LogWriter::Options options;
  options.file = folder.path("gone") + "/log";
  CHECK_FALSE(LogWriter::Open(options).ok());
  options.file_may_wait = true;
  const auto writer = LogWriter::Open(options);
  REQUIRE(writer.status() == absl::OkStatus());
  (*writer)->Write("early\n");
  CHECK_FALSE((*writer)->Flush(milliseconds(20)));
  REQUIRE(std::filesystem::create_directory(folder.path("gone")));
  CHECK(Eventually([&] { return ReadAll(options.file) == "early\n"; }));
  CHECK((*writer)->dropped() == 0);
}

TEST_CASE("Lines come out whole and in order") {
  TempFolder folder;
  const std::unique_ptr<LogWriter> writer = OpenWriter(folder.path("log"), 5000);
  std::string expected;
  for (int i = 0; i < 3000; ++i) {
    const std::string line = std::to_string(i) + std::string(static_cast<size_t>(i % 300), 'x') + "\n";
    writer->Write(line);
    expected += line;
  }
  const std::string longest = std::string(20000, 'y') + "\n";
  REQUIRE(writer->Flush(kLong));
  writer->Write(longest);
  REQUIRE(writer->Flush(kLong));
  CHECK(ReadAll(folder.path("log")) == expected + longest);
  CHECK(writer->dropped() == 0);
}

// Returns the number of missing lines that the notices in a text report.
uint64_t Missing(const std::string& text) {
  const std::string word = "missing ";
  uint64_t sum = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    sum += std::stoull(text.substr(at + word.size()));
  }
  return sum;
}

TEST_CASE("A pipe without a reader blocks no caller, and missing lines are counted and reported") {
  const Fifo fifo;
  const std::unique_ptr<LogWriter> writer = OpenWriter(fifo.path);
  const std::string filler = std::string(1000, '.') + "\n";
  // More than the pipe's 64 KiB and the queue's 100 lines.
  const int count = 1000;
  for (int i = 0; i < count; ++i) writer->Write(filler);
  CHECK_FALSE(writer->Flush(milliseconds(50)));
  const uint64_t dropped = writer->dropped();
  // The pipe holds 65 lines, and the writer's thread holds four, which is as many as PIPE_BUF takes.
  CHECK(dropped >= static_cast<uint64_t>(count) - 100 - 65 - 4);
  CHECK(dropped < static_cast<uint64_t>(count));
  // One notice, or two when the writer took lines from a full queue.
  fifo.ReadUntil([&](const std::string& text) { return text.ends_with("\n") && Missing(text) == dropped; });
  writer->Write("after\n");
  const std::string rest =
      fifo.ReadUntil([](const std::string& text) { return text.find("after\n") != std::string::npos; });
  CHECK(Missing(rest) == 0);
  CHECK(writer->dropped() == dropped);
}

TEST_CASE("Closing does not wait for a full pipe") {
  const Fifo fifo;
  std::unique_ptr<LogWriter> writer = OpenWriter(fifo.path);
  for (int i = 0; i < 100; ++i) writer->Write(std::string(1000, '.') + "\n");
  const auto began = std::chrono::steady_clock::now();
  writer.reset();
  CHECK(std::chrono::steady_clock::now() - began < seconds(10));
}

TEST_CASE("A FIFO needs no reader at the start") {
  TempFolder folder;
  REQUIRE(::mkfifo(folder.path("fifo").c_str(), 0600) == 0);
  const std::unique_ptr<LogWriter> writer = OpenWriter(folder.path("fifo"));
  writer->Write("early\n");
  const UniqueFd reader(::open(folder.path("fifo").c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[64] = {};
  REQUIRE(::read(reader.get(), buffer, sizeof buffer) == 6);
  CHECK(std::string(buffer) == "early\n");
}

TEST_CASE("A full disk loses lines only when it is full for long") {
  // A limit on file size makes a write fail as a full disk does, and can be removed again.
  TempFolder folder;
  rlimit before = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const std::unique_ptr<LogWriter> writer = OpenWriter(folder.path("log"));
  rlimit small = before;
  small.rlim_cur = 10;
  ::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  for (int i = 0; i < 50; ++i) writer->Write("line " + std::to_string(i) + "\n");
  const bool flushed = writer->Flush(milliseconds(50));
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK_FALSE(flushed);
  REQUIRE(writer->Flush(kLong));
  std::string expected;
  for (int i = 0; i < 50; ++i) expected += "line " + std::to_string(i) + "\n";
  CHECK(ReadAll(folder.path("log")) == expected);
  CHECK(writer->dropped() == 0);
}

TEST_CASE("A device that is always full drops and counts") {
  const std::unique_ptr<LogWriter> writer = OpenWriter("/dev/full", 10);
  for (int i = 0; i < 100; ++i) writer->Write("line\n");
  CHECK(Eventually([&] { return writer->dropped() >= 80; }));
}

TEST_CASE("A reader that is gone loses lines and blocks no caller") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  ::close(ends[0]);
  const int standard_error = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  ::signal(SIGPIPE, SIG_IGN);
  std::unique_ptr<LogWriter> writer = OpenWriter("");
  for (int i = 0; i < 10; ++i) writer->Write("line\n");
  CHECK(Eventually([&] { return writer->dropped() >= 10; }));
  writer.reset();
  ::dup2(standard_error, STDERR_FILENO);
  ::close(standard_error);
  ::close(ends[1]);
}

TEST_CASE("A file that was renamed is made anew by its name") {
  TempFolder folder;
  const std::unique_ptr<LogWriter> writer = OpenWriter(folder.path("log"));
  writer->Write("one\n");
  REQUIRE(writer->Flush(kLong));
  std::filesystem::rename(folder.path("log"), folder.path("log.1"));
  writer->Write("two\n");
  REQUIRE(writer->Flush(kLong));
  writer->Reopen();
  REQUIRE(writer->Flush(kLong));
  writer->Write("three\n");
  REQUIRE(writer->Flush(kLong));
  CHECK(ReadAll(folder.path("log.1")) == "one\ntwo\n");
  CHECK(ReadAll(folder.path("log")) == "three\n");
}

TEST_CASE("The old file stays in use when it cannot be reopened") {
  TempFolder folder;
  const std::unique_ptr<LogWriter> writer = OpenWriter(folder.path("log"));
  std::filesystem::rename(folder.path("log"), folder.path("log.1"));
  std::filesystem::create_directory(folder.path("log"));
  writer->Reopen();
  REQUIRE(writer->Flush(kLong));
  writer->Write("kept\n");
  REQUIRE(writer->Flush(kLong));
  const std::string text = ReadAll(folder.path("log.1"));
  CHECK(text.find("cannot log file " + folder.path("log") + ": Is a directory\n") != std::string::npos);
  CHECK(text.find("kept\n") != std::string::npos);
  std::filesystem::remove(folder.path("log"));
  CHECK(Eventually([&] { return std::filesystem::is_regular_file(folder.path("log")); }));
  writer->Write("new\n");
  REQUIRE(writer->Flush(kLong));
  CHECK(ReadAll(folder.path("log")) == "new\n");
}

TEST_CASE("Lines wait for a directory that was removed") {
  TempFolder folder;
  std::filesystem::create_directory(folder.path("logs"));
  const std::string file = folder.path("logs") + "/log";
  const std::unique_ptr<LogWriter> writer = OpenWriter(file);
  std::filesystem::remove_all(folder.path("logs"));
  writer->Reopen();
  writer->Write("waits\n");
  CHECK_FALSE(writer->Flush(milliseconds(50)));
  std::filesystem::create_directory(folder.path("logs"));
  REQUIRE(writer->Flush(kLong));
  CHECK(ReadAll(file).find("waits\n") != std::string::npos);
}

TEST_CASE("The last lines before an abort are written, and so is the output of libraries") {
  TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // not the test framework's
    if (!SetUpLogging({.process = "p", .file = folder.path("log")}).ok()) ::_exit(3);
    LogRequest(LogLevel::kInfo, "r", "the last line");
    std::fprintf(stderr, "printed by a library\n");
    std::abort();
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
  const std::string text = ReadAll(folder.path("log"));
  CHECK(text.find("the last line") != std::string::npos);
  CHECK(text.find("error p printed by a library") != std::string::npos);
}

TEST_CASE("An abort does not wait long for a log without a reader") {
  const Fifo fifo;
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // not the test framework's
    if (!SetUpLogging({.process = "p", .file = fifo.path}).ok()) ::_exit(3);
    for (int i = 0; i < 1000; ++i) LogRequest(LogLevel::kInfo, "r", std::string(1000, 'x'));
    std::abort();
  }
  int status = 0;
  REQUIRE(Eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
}

}  // namespace
}  // namespace mnemo::telemetry
