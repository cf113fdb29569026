#include "server/telemetry/child_main.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdio>
#include <memory>

namespace mnemo::telemetry {
namespace {

constexpr int kExitUsage = 2;
constexpr std::chrono::milliseconds kLastLinesTime{50};  // for the log, where the process ends at once

int RefuseStart(const std::string& program, const absl::Status& status) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), std::string(status.message()).c_str());
  return kExitUsage;
}

}  // namespace

int RunChild(const ChildMain& child) {
  const absl::StatusOr<std::unique_ptr<Watcher>> watcher =
      Watcher::Create({.lifeline_fd = child.lifeline_fd,
                       .socket_paths = child.socket_paths,
                       .private_dir = child.private_dir,
                       .on_hangup = [] { ReopenLog(); },
                       .before_end = [] { FlushLog(kLastLinesTime); }});
  if (!watcher.ok()) return RefuseStart(child.program, watcher.status());
  LogOptions log = child.log;
  // The folder of the log may have gone since mnemod opened it.
  log.file_may_wait = child.lifeline_fd >= 0;
  if (const absl::Status status = SetUpLogging(log); !status.ok()) return RefuseStart(child.program, status);
  const absl::Status status = child.serve(watcher->get());
  if (!status.ok()) spdlog::error("{}", std::string(status.message()));
  EndLogging();
  return status.ok() ? 0 : 1;
}

int AnswerCommandLine(const std::string& program, const absl::Status& status) {
  if (!absl::IsCancelled(status)) return RefuseStart(program, status);
  std::fputs(std::string(status.message()).c_str(), stdout);
  return 0;
}

}  // namespace mnemo::telemetry
