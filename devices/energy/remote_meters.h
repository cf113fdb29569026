// Meters behind the socket of mnemo-energy, for counters that this process may not read.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/unique_fd.h"
#include "devices/energy/meter.h"
#include "devices/energy/readings.h"

namespace mnemo::energy {

struct RemoteMetersOptions {
  std::string socket;
  // Devices to take from there. They are reported as down until mnemo-energy has told its meters.
  std::vector<MeteredDevice> devices;
  std::function<void(const std::string&)> log;  // a line for the operator
};

// Never blocks. A connection that ends, sends no valid message, or is silent for five seconds is closed. It
// is made again after one second, two, and so on up to a minute. Readings on both sides of that make no
// interval.
class RemoteMeters : public Meter {
 public:
  explicit RemoteMeters(RemoteMetersOptions options);
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override;
  void AppendReports(std::vector<MeterReport>* reports) const override;

 private:
  struct Entry {
    MeterReport report;  // dropped: those of mnemo-energy's meter and those of the connection
    Reading last;
    bool has_last = false;
    uint64_t lost = 0;  // times that the connection was lost; errors
  };
  using Key = std::pair<std::string, std::string>;  // label and source
  absl::Status Connect();
  // True when a message came; a failure ends the connection.
  absl::StatusOr<bool> Receive(int64_t now_ns, std::vector<EnergyInterval>* intervals);
  void Take(const Readings& readings, std::vector<EnergyInterval>* intervals);
  void Lose(int64_t now_ns, const absl::Status& status);

  const RemoteMetersOptions options_;
  UniqueFd fd_;
  std::string buffer_;
  int64_t last_message_ns_ = 0;
  int64_t next_try_ns_ = 0;
  int64_t pause_ns_ = 0;
  uint64_t instance_ = 0;
  bool was_logged_ = false;
  std::map<Key, Entry> entries_;
};

}  // namespace mnemo::energy
