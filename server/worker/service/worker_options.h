// The command line of mnemo-worker, for the worker that reads it and for mnemod, which writes it.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "devices/base/status.h"

namespace mnemo::worker_service {

struct WorkerOptions {
  std::string name = "worker";
  std::string listen;  // "unix:/path" or "host:port"
  // This worker's alone: cpu.threads are its own, and memory.addresses has the memory service that it uses,
  // or nothing; memory.services is 0. workers.count is how many workers share the machine's memory.
  config::Config config;
  std::vector<int> cpus;  // cores to stay on; empty = wherever the system puts it
  // Inherited descriptors; -1 = none.
  int weights_fd = -1;  // packed weights; without them the worker packs them itself
  // Socket or pipe. It gets one byte once the worker listens; the worker ends at once when its other end is
  // closed.
  int lifeline_fd = -1;
  std::string private_dir;  // removed, once empty, when the lifeline ends the worker
};

// Reads the command line and the configuration that it names. INVALID_ARGUMENT or NOT_FOUND: what is wrong
// with them. CANCELLED: --help or --version was asked for; the message is the answer.
absl::StatusOr<WorkerOptions> ParseWorkerOptions(int argc, const char* const* argv);

// The arguments, without the program's name, that ParseWorkerOptions turns into `options` but for the
// configuration: that is behind `config_fd` (child_config.h; -1 = the defaults), with `overrides` on top.
std::vector<std::string> WorkerArguments(const WorkerOptions& options, int config_fd,
                                         const std::vector<config::Override>& overrides);

}  // namespace mnemo::worker_service
