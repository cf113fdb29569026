// A model of power where there is no counter: two figures and the use of the CPUs.
#pragma once

#include <vector>

#include "devices/energy/meter.h"

namespace mnemo::energy {

// E = idle_watts T + (busy_watts - idle_watts) u T, u the busy part of all CPU time in T. Always up, but for
// times in which /proc/stat cannot be read.
class ModelMeter : public Meter {
 public:
  // `device.source` is set to "model".
  ModelMeter(MeteredDevice device, double idle_watts, double busy_watts);
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override;
  void AppendReports(std::vector<MeterReport>* reports) const override;

 private:
  const double idle_watts_;
  const double busy_watts_;
  MeterReport report_;
  bool has_start_ = false;
  Round start_;
};

}  // namespace mnemo::energy
