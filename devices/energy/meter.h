// Meters: what the sampler reads. Each turns its readings into intervals that can be trusted.
#pragma once

#include <cstdint>
#include <vector>

#include "devices/energy/energy_meter.h"

namespace mnemo::energy {

// State of one meter, without what the sampler adds.
struct MeterReport {
  MeteredDevice device;
  bool is_up = false;
  uint64_t dropped[kDropReasons] = {};
};

// One thread.
class Meter {
 public:
  virtual ~Meter() = default;
  // Reads once and appends an interval for each device that has one since the last call.
  virtual void Sample(const Round& round, std::vector<EnergyInterval>* intervals) = 0;
  virtual void AppendReports(std::vector<MeterReport>* reports) const = 0;
};

}  // namespace mnemo::energy
