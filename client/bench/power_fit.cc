#include "client/bench/power_fit.h"

#include <algorithm>
#include <cmath>

namespace mnemo::bench {
namespace {

constexpr double kLeastSpread = 0.2;  // between the least and the most used phase

}  // namespace

absl::StatusOr<PowerFit> FitPower(std::span<const PowerPhase> phases) {
  if (phases.size() < 2) return FailedPrecondition("{} phases, at least 2 are needed", phases.size());
  const auto [least, most] = std::minmax_element(
      phases.begin(), phases.end(), [](const PowerPhase& a, const PowerPhase& b) { return a.use < b.use; });
  if (most->use - least->use < kLeastSpread) {
    return FailedPrecondition(
        "the CPUs were used to {:.0f} % without load and to {:.0f} % with it, {:.0f} points apart are "
        "needed: is "
        "something else running?",
        100 * least->use, 100 * most->use, 100 * kLeastSpread);
  }
  double mean_use = 0, mean_watts = 0;
  for (const PowerPhase& phase : phases) {
    mean_use += phase.use / static_cast<double>(phases.size());
    mean_watts += phase.watts / static_cast<double>(phases.size());
  }
  double covariance = 0, variance = 0;
  for (const PowerPhase& phase : phases) {
    covariance += (phase.use - mean_use) * (phase.watts - mean_watts);
    variance += (phase.use - mean_use) * (phase.use - mean_use);
  }
  const double slope = covariance / variance;
  const PowerFit fit = {.idle_watts = mean_watts - slope * mean_use,
                        .busy_watts = mean_watts + slope * (1 - mean_use)};
  if (fit.idle_watts < 0 || fit.busy_watts < fit.idle_watts || fit.busy_watts <= 0) {
    return FailedPrecondition("the fit gives {:.3f} W idle and {:.3f} W busy, which is no model",
                              fit.idle_watts, fit.busy_watts);
  }
  return fit;
}

double MeanRelativeError(const PowerFit& fit, std::span<const PowerPhase> phases) {
  double sum = 0;
  for (const PowerPhase& phase : phases) sum += std::abs(fit.Watts(phase.use) - phase.watts) / phase.watts;
  return sum / static_cast<double>(phases.size());
}

}  // namespace mnemo::bench
