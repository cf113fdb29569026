// The command line of mnemo-memory, for the service that reads it and for mnemod, which writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::memory_service {

struct MemoryOptions {
  std::string name = "memory";
  std::string data_socket;      // path of the Unix socket where workers attach
  std::string control_address;  // gRPC: "unix:/path" or "host:port"
  std::string remote_listen;    // "host:port" where workers attach from other machines; empty = nowhere
  std::string metrics_listen;   // "host:port" of /metrics; empty = none
  std::string device = "cpu";
  std::string isa = "auto";
  int threads = 0;                  // that compute; 0 = the cores this process may run on
  int64_t memory_bytes = 0;         // of all indexes together; 0 = a quarter of what may be used
  int64_t quota_bytes = 0;          // of one owner's indexes; 0 = as much as there is
  int64_t region_bytes = 64 << 20;  // largest region that payloads and results share, for each owner
  int max_owners = 8;               // attachments at once
  int max_indexes = 1024;           // of one owner
  int max_tokens = 1 << 20;         // of one index
  std::string log_level = "info";
  std::string log_format = "text";
  std::string log_file;
  int lifeline_fd = -1;     // socket or pipe, inherited: gets one byte once the service listens; the service
                            // ends at once when its other end is closed
  std::string private_dir;  // removed, once empty, when the lifeline ends the service
};

// INVALID_ARGUMENT: what is wrong with the command line. CANCELLED: --help or --version was asked for; the
// message is the answer.
absl::StatusOr<MemoryOptions> ParseMemoryOptions(int argc, const char* const* argv);

// The arguments, without the program's name, that ParseMemoryOptions turns into `options`.
std::vector<std::string> MemoryArguments(const MemoryOptions& options);

}  // namespace mnemo::memory_service
