// A model of power by the use of the CPUs, fitted to measured phases.
#pragma once

#include <span>

#include "devices/base/status.h"

namespace mnemo::bench {

struct PowerPhase {
  double use = 0;    // busy part of all CPU time, [0, 1]
  double watts = 0;  // mean of the phase
};

struct PowerFit {
  double idle_watts = 0;
  double busy_watts = 0;

  double Watts(double use) const { return idle_watts + (busy_watts - idle_watts) * use; }
};

// Least squares of watts = idle + (busy - idle) use. FAILED_PRECONDITION: the phases are too alike to tell
// the two figures apart, or no power of at least zero that grows with the use fits them.
absl::StatusOr<PowerFit> FitPower(std::span<const PowerPhase> phases);

// The mean of |fit - measured| / measured over phases that were not fitted. Phases have more than 0 watts.
double MeanRelativeError(const PowerFit& fit, std::span<const PowerPhase> phases);

}  // namespace mnemo::bench
