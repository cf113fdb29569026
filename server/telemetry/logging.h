// Logging of all mnemo processes: spdlog, one line per event, request ids in a field.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "devices/base/status.h"

namespace mnemo::telemetry {

struct LogOptions {
  // "mnemod", "worker0".
  std::string process;
  // trace | debug | info | warn | error.
  std::string level = "info";
  // text | json. json: one object per line with time, level, process, message, and request_id when there is
  // one.
  std::string format = "text";
  // Empty: standard error.
  std::string file;
  // A file that cannot be opened is no error; it is retried every second.
  bool file_may_wait = false;
};

// Call once per process, before other threads start. Afterwards no thread waits for a log line to be written
// (log_writer.h). That includes text that libraries print to stderr, which becomes log lines. A fatal signal
// (SIGABRT, SIGSEGV, ...) waits a moment for earlier lines, then writes a report (crash_report.h) to the log
// and to standard error, and ends the process by the same signal.
absl::Status SetUpLogging(const LogOptions& options);
// Reopens LogOptions::file, for example after it was renamed. Any thread; does not wait for the result.
void ReopenLog();
// Returns the number of lines of this process that were dropped because their destination did not accept
// them.
uint64_t LogLinesDropped();
// Waits up to `timeout` for earlier lines to be written.
void FlushLog(std::chrono::milliseconds timeout);
// For the end of main: as FlushLog, with its own time limit. Later lines are dropped.
void EndLogging();
// Any thread, any time.
absl::Status SetLogLevel(const std::string& level);

enum class LogLevel { kDebug, kInfo, kWarn, kError };
// Logs a line about a request; lines that concern no request use spdlog::info and the like. Any thread.
void LogRequest(LogLevel level, const std::string& request_id, const std::string& message);

}  // namespace mnemo::telemetry
