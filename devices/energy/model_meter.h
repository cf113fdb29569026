// Models of energy where there is no counter: by the use of the CPUs, or by the work that is done.
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

// A model of power without work, and energy of each byte and multiply-add of the work. Its intervals have
// idle_watts T and the figures of the work. Up but for gaps of more than a minute.
class WorkModelMeter : public Meter {
 public:
  // `device.source` is set to "model".
  WorkModelMeter(MeteredDevice device, double idle_watts, const WorkFigures& work);
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override;
  void AppendReports(std::vector<MeterReport>* reports) const override;

 private:
  const double idle_watts_;
  const WorkFigures work_;
  MeterReport report_;
  int64_t last_ns_ = 0;
};

}  // namespace mnemo::energy
