// The report of a fatal signal: build id, backtrace and the requests that ran, as lines of the log.
#pragma once

#include <signal.h>

#include <string>
#include <string_view>

namespace mnemo::telemetry {

struct CrashReportOptions {
  // "mnemod", "worker0".
  std::string process;
  bool is_json = false;
  // The report is appended to this file too; empty: standard error alone.
  std::string file;
};

// Records what a report needs and cannot find out in a signal handler: the build id and the addresses of the
// program and its libraries. Libraries that are loaded later appear in a backtrace as bare addresses. Also
// gives the calling thread a stack of its own for handlers, so that its stack overflow is reported. A later
// call replaces the options.
void PrepareCrashReport(const CrashReportOptions& options);

// Writes the report of `signal`. For handlers installed with SA_SIGINFO: takes no lock of ours and allocates
// nothing. `info` and `context` are the handler's arguments. Nothing is written before PrepareCrashReport.
void WriteCrashReport(int signal, const siginfo_t* info, const void* context) noexcept;

// Lists one running request in reports while it lives. Move-only; any thread; wait-free. The table has room
// for 1,024 requests; reports count those beyond it.
class RunningRequest {
 public:
  // The table keeps the first 128 bytes.
  explicit RunningRequest(std::string_view request_id) noexcept;
  ~RunningRequest();
  RunningRequest(RunningRequest&& other) noexcept;
  RunningRequest& operator=(RunningRequest&& other) noexcept;
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

 private:
  static constexpr int kNone = -1;
  static constexpr int kBeyond = -2;

  int slot_ = kNone;
};

}  // namespace mnemo::telemetry
