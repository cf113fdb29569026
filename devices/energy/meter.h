// Meters: what the sampler reads. Each turns its readings into intervals that can be trusted.
#pragma once

#include <cstdint>
#include <vector>

#include "devices/energy/cpu_times.h"
#include "devices/energy/energy_meter.h"

namespace mnemo::energy {

// Circumstances of one round of readings.
struct Round {
  int64_t now_ns = 0;
  CpuTimes cpu;  // since boot; zeros when they cannot be read
};

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
