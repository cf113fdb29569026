// Stream sockets by the addresses of the configuration: "unix:/path" or "host:port" ("[::1]:port").
#pragma once

#include <sys/types.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::link {

// How soon a machine that is gone is noticed on a TCP connection that says nothing. The system counts in
// seconds, so the times are rounded up.
struct Keepalive {
  int time_ms = 10000;
  int timeout_ms = 5000;
};

// Blocks: looking up a name cannot be interrupted, connecting ends with CANCELLED soon after `cancelled` is
// set. UNAVAILABLE when nobody listens, INVALID_ARGUMENT for what is no address.
absl::StatusOr<UniqueFd> Connect(const std::string& address, const Keepalive& keepalive,
                                 const std::atomic<bool>& cancelled);
// A listening socket. A socket's path that nobody listens on any more is taken over; UNAVAILABLE when
// somebody does.
absl::StatusOr<UniqueFd> Listen(const std::string& address);
// Listening sockets for all that a host stands for (localhost is 127.0.0.1 and ::1; 0.0.0.0 is also all of
// IPv6), each with the longest queue that the system has. `port`: the one that all have, 0 with a Unix
// socket, whose file gets `unix_mode`. UNAVAILABLE when one of the addresses is taken, or none can be had.
absl::StatusOr<std::vector<UniqueFd>> ListenAll(const std::string& address, mode_t unix_mode, int* port);
// The next connection at a listening socket, not blocking: NOT_FOUND when there is none.
absl::StatusOr<UniqueFd> Accept(int listener, const Keepalive& keepalive);

}  // namespace mnemo::link
