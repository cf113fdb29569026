// Stream sockets for the addresses of the configuration: "unix:/path" or "host:port" ("[::1]:port").
#pragma once

#include <sys/types.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::link {

// How soon a dead machine is detected on a silent TCP connection. The system counts in seconds, so times are
// rounded up.
struct Keepalive {
  int time_ms = 10000;
  int timeout_ms = 5000;
};

// Blocks. Name resolution cannot be interrupted; connecting ends with CANCELLED soon after `cancelled` is
// set. UNAVAILABLE when there is no listener, INVALID_ARGUMENT for an invalid address.
absl::StatusOr<UniqueFd> Connect(const std::string& address, const Keepalive& keepalive,
                                 const std::atomic<bool>& cancelled);
// Returns a listening socket. Takes over a socket path without a listener; UNAVAILABLE when there is one.
absl::StatusOr<UniqueFd> Listen(const std::string& address);
// Returns listening sockets for all addresses of a host, each with the system's longest queue. localhost is
// 127.0.0.1 and ::1; 0.0.0.0 also covers all of IPv6. `port` receives their common port, or 0 with a Unix
// socket, whose file gets `unix_mode`. UNAVAILABLE when one of the addresses is taken, or none can be used.
// `inherited`: listening sockets of which those that serve such an address are moved out and used instead of
// new ones, with the connections that wait there; null: none.
absl::StatusOr<std::vector<UniqueFd>> ListenAll(const std::string& address, mode_t unix_mode, int* port,
                                                std::vector<UniqueFd>* inherited = nullptr);
// "127.0.0.1:50051", "[::1]:50051" or "unix:/path" of a listening stream socket. INVALID_ARGUMENT: `fd` is
// none.
absl::StatusOr<std::string> ListeningAddress(int fd);
// Returns the next connection of a listening socket without blocking: NOT_FOUND when there is none.
absl::StatusOr<UniqueFd> Accept(int listener, const Keepalive& keepalive);

}  // namespace mnemo::link
