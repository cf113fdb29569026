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
  std::string model_path;
  int context_tokens = 0;      // 0 = the model's
  std::string device = "cpu";  // cpu | reference
  std::string isa = "auto";
  int threads = 0;               // 0 = the cores this process may run on
  std::vector<int> cpus;         // cores to stay on; empty = wherever the system puts it
  int local_workers = 1;         // workers that share this machine's memory, this one included
  int drain_timeout_ms = 30000;  // SIGTERM: running requests have so long
  config::Config::Engine engine;
  int dense_layers = 2;        // first full-attention layers that attend to everything
  int entry_tokens = 16;       // of page_bound's and block_mean's entries: 16 | 64
  std::string memory_address;  // of the memory service, "unix:/path" or "ucx:host:port"; empty = none
  bool offload = true;         // requests that name no placement go to the memory service
  // Positions of sequences whose K and V the memory service keeps; 0 = it keeps none.
  int64_t resident_tokens = 0;
  int kv_wait_ms = 10000;        // a request that lost its K and V waits so long for another service
  int memory_timeout_ms = 1000;  // a memory service that does not answer for so long hangs
  config::Config::Log log;
  int weights_fd = -1;   // packed weights, inherited; -1 = packs them itself
  int lifeline_fd = -1;  // socket or pipe, inherited: gets one byte once the worker listens; the worker ends
                         // at once when its other end is closed
  std::string private_dir;  // removed, once empty, when the lifeline ends the worker
};

// INVALID_ARGUMENT: what is wrong with the command line. CANCELLED: --help or --version was asked for; the
// message is the answer.
absl::StatusOr<WorkerOptions> ParseWorkerOptions(int argc, const char* const* argv);

// The arguments, without the program's name, that ParseWorkerOptions turns into `options`.
std::vector<std::string> WorkerArguments(const WorkerOptions& options);

}  // namespace mnemo::worker_service
