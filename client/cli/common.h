// Helpers of all commands of `mnemo`: exit codes, connecting, reading and writing, Ctrl-C.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "client/client.h"
#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace CLI {
class App;
}

namespace mnemo::cli {

// Exit codes, which scripts rely on.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;  // the request failed: "mnemo: CODE: message" on standard error
inline constexpr int kExitUsage = 2;
inline constexpr int kExitCannotConnect = 3;
inline constexpr int kExitInterrupted = 130;  // Ctrl-C
inline constexpr int kExitBrokenPipe = 141;   // standard output has no reader; silent, as with SIGPIPE

struct ServerOptions {
  std::string address = "127.0.0.1:50051";
  std::string connect_timeout = "5s";
  bool wait = false;
};
void AddServerOptions(CLI::App* command, ServerOptions* options);

// Prints "mnemo: CODE: message" and returns the status's exit code.
int Fail(const absl::Status& status);
// Prints "mnemo: message" and returns kExitUsage.
int FailUsage(const std::string& message);
// On failure prints the reason, leaves *client null and returns the exit code.
int Connect(const ServerOptions& options, std::unique_ptr<client::Client>* client,
            bool private_connection = false);

// For CLI::Option::check: the error of the text, or empty. CLI11 alone takes -1 for an unsigned
// number, cuts one that is too large, and lets NaN pass every range.
std::string CheckSeed(const std::string& text);
std::string CheckNumber(const std::string& text);

// "250ms", "1.5s", "2m", "1h", or a plain number of seconds; finite, >= 0 and at most ten years.
absl::StatusOr<std::chrono::nanoseconds> ParseDuration(std::string_view text);
// 0.0215 -> "21.5ms", 75 -> "1m15s".
std::string FormatSeconds(double seconds);
// 1536 -> "1.5 KiB".
std::string FormatBytes(double bytes);
// Columns padded to their widest cell, two spaces between, the first row as the heading. No trailing blanks.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// Reads every byte until the end of the input.
absl::StatusOr<std::string> ReadAll(int fd);
absl::StatusOr<std::string> ReadFile(const std::string& path);
// Writes to standard output at once. False when its reader has gone, or on an error, which it prints.
bool WriteOut(std::string_view text);
bool IsTerminal(int fd);

// While it lives: the first Ctrl-C calls `on_interrupt` on a thread of its own, a second one ends the process
// with status 130. At most one at a time.
class InterruptGuard {
 public:
  explicit InterruptGuard(std::function<void()> on_interrupt);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  bool interrupted() const;

 private:
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace mnemo::cli
