// The command line of mnemo-memory, for the service that reads it and for mnemod, which writes it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "devices/base/status.h"

namespace mnemo::memory_service {

struct MemoryOptions {
  std::string name = "memory";
  std::string data_socket;      // path of the Unix socket where workers attach
  std::string control_address;  // gRPC: "unix:/path" or "host:port"
  std::string remote_listen;    // "host:port" where workers attach from other machines; empty = nowhere
  std::string metrics_listen;   // "host:port" of /metrics; empty = none
  std::string isa = "auto";
  int64_t region_bytes = 64 << 20;  // largest region that payloads and results share, for each owner
  int max_owners = 8;               // attachments at once
  int max_indexes = 1024;           // of one owner
  int max_tokens = 1 << 20;         // of one index
  // Socket or pipe, inherited; -1 = none. It gets one byte once the service listens; the service ends at once
  // when its other end is closed.
  int lifeline_fd = -1;
  std::string private_dir;  // removed, once empty, when the lifeline ends the service
  // The service reads `log`, and of `memory` device, device_options, operation_timeout_ms, threads,
  // index_bytes and quota_bytes.
  config::Config config;
};

// Reads the command line and the configuration that it names. INVALID_ARGUMENT or NOT_FOUND: what is wrong
// with them. CANCELLED: --help or --version was asked for; the message is the answer.
absl::StatusOr<MemoryOptions> ParseMemoryOptions(int argc, const char* const* argv);

// The arguments, without the program's name, that ParseMemoryOptions turns into `options` but for the
// configuration: that is behind `config_fd` (child_config.h; -1 = the defaults), with `overrides` on top.
std::vector<std::string> MemoryArguments(const MemoryOptions& options, int config_fd,
                                         const std::vector<config::Override>& overrides);

// KEY and VALUE of each of memory.device_options.
std::vector<std::pair<std::string, std::string>> DeviceOptionPairs(const config::Config::Memory& memory);

}  // namespace mnemo::memory_service
