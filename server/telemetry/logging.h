// Logging of all our processes: spdlog, one line an event, request ids in a field.
#pragma once

#include <string>

#include "devices/base/status.h"

namespace mnemo::telemetry {

struct LogOptions {
  std::string process;          // "mnemod", "worker0"
  std::string level = "info";   // trace | debug | info | warn | error
  std::string format = "text";  // text | json (one object a line: time, level, process, message, and
                                // request_id when there is one)
  std::string file;             // empty = standard error
};

// Once per process, before other threads start.
absl::Status SetUpLogging(const LogOptions& options);
// Any thread, any time.
absl::Status SetLogLevel(const std::string& level);

// A line about a request; for lines about none use spdlog::info and its like.
enum class LogLevel { kDebug, kInfo, kWarn, kError };
void LogRequest(LogLevel level, const std::string& request_id, const std::string& message);

}  // namespace mnemo::telemetry
