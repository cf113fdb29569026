// The main function that the supervised programs share: mnemo-worker and mnemo-memory.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/watcher.h"
#include "server/telemetry/logging.h"

namespace mnemo::telemetry {

struct ChildMain {
  std::string program;  // "mnemo-worker", before errors on standard error
  // See Watcher::Options. Ownership of the lifeline passes to the watcher; -1: started by hand.
  int lifeline_fd = -1;
  std::vector<std::string> socket_paths;
  std::string private_dir;
  LogOptions log;  // file_may_wait is set where there is a lifeline
  // Runs until the watcher's signal. An error is logged.
  std::function<absl::Status(Watcher*)> serve;
};

// Starts the watcher and the log, serves, and returns the exit code. Before the process starts other threads.
int RunChild(const ChildMain& child);

// The exit code after the command line was not taken: prints the answer of --help and --version (CANCELLED)
// on standard output, an error on standard error.
int AnswerCommandLine(const std::string& program, const absl::Status& status);

}  // namespace mnemo::telemetry
