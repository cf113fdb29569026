// Logging of all our processes: spdlog, one line an event, request ids in a field.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "devices/base/status.h"

namespace mnemo::telemetry {

struct LogOptions {
  std::string process;          // "mnemod", "worker0"
  std::string level = "info";   // trace | debug | info | warn | error
  std::string format = "text";  // text | json (one object a line: time, level, process, message, and
                                // request_id when there is one)
  std::string file;             // empty = standard error
  bool file_may_wait = false;   // one that cannot be opened is tried again each second and is no error
};

// Once per process, before other threads start. From then on no thread waits for a log line to be written
// (log_writer.h), also not for what libraries print to stderr, which becomes lines of the log. A fatal signal
// (SIGABRT, SIGSEGV, ...) first gives the lines of before a moment to get out.
absl::Status SetUpLogging(const LogOptions& options);
// Opens LogOptions::file again, for one that was renamed. Any thread; does not wait for it.
void ReopenLog();
// Lines of this process that were dropped, since what they go to did not take them.
uint64_t LogLinesDropped();
// Gives the lines of before up to `timeout` to get out.
void FlushLog(std::chrono::milliseconds timeout);
// For the end of main: as FlushLog, with a bound of its own. Lines that come after it are dropped.
void EndLogging();
// Any thread, any time.
absl::Status SetLogLevel(const std::string& level);

// A line about a request; for lines about none use spdlog::info and its like.
enum class LogLevel { kDebug, kInfo, kWarn, kError };
void LogRequest(LogLevel level, const std::string& request_id, const std::string& message);

}  // namespace mnemo::telemetry
