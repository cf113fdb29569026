// The server side of mnemo-energy: samples a source and sends its readings to clients of a Unix socket.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/unique_fd.h"
#include "devices/energy/energy_meter.h"
#include "devices/energy/readings.h"

namespace mnemo::energy {

// A listening SOCK_SEQPACKET socket at `path`, mode 0660, in place of one that nobody listens at. `group`:
// the owning group's name; empty = that of the process. INVALID_ARGUMENT names what is wrong with path or
// group; UNAVAILABLE: another process listens there.
absl::StatusOr<UniqueFd> ListenForReaders(const std::string& path, const std::string& group);
// The listening socket that systemd has passed (sd_listen_fds(3)); invalid when it has passed none.
// INVALID_ARGUMENT: it has passed more than one, or another kind of socket. Call once, before threads start.
absl::StatusOr<UniqueFd> TakeSystemdSocket();

struct ReadingServerOptions {
  uint64_t instance = 1;                        // above 0, another one at each start
  int64_t interval_ns = kServedIntervalNs;      // at least kServedIntervalNs
  size_t max_clients = 16;                      // one more is closed at once
  std::function<void(const std::string&)> log;  // a line for the operator
};

// One thread. A client that does not read loses messages, which hold totals, and delays nobody; one that
// sends anything is closed.
class ReadingServer {
 public:
  ReadingServer(EnergySource* source, UniqueFd listener, ReadingServerOptions options);
  // Serves until `stop_fd` is readable.
  void Run(int stop_fd);
  // One round: samples, and sends to each client. For Run and tests.
  void Serve(const Round& round);
  // Accepts clients that wait, and closes those that have gone or sent something. Waits up to `timeout_ms`.
  void Attend(int timeout_ms, int stop_fd = -1);
  size_t clients() const { return clients_.size(); }

 private:
  struct Total {
    double joules = 0;
    int64_t end_ns = 0;
  };

  EnergySource* const source_;
  const UniqueFd listener_;
  const ReadingServerOptions options_;
  std::vector<EnergyInterval> intervals_;
  std::map<std::pair<std::string, std::string>, Total> totals_;
  std::vector<UniqueFd> clients_;
};

}  // namespace mnemo::energy
