#include "fpga/card/energy_model.h"

#include <algorithm>
#include <cmath>

#include "proto/layout/completion.h"

namespace mnemo::card {
namespace {

constexpr double kPico = 1e-12;
constexpr double kNano = 1e-9;
constexpr double kMicro = 1e-6;
constexpr double kMostMicrojoules = uint32_t{layout::kEnergyUnknown} - 1;

uint32_t Rounded(double joules) {
  return static_cast<uint32_t>(std::min(std::round(joules / kMicro), kMostMicrojoules));
}

}  // namespace

double JoulesOf(const CardWork& work, const EnergyFigures& figures) {
  return figures.idle_watts * static_cast<double>(work.time_ns) * kNano +
         figures.hbm_pj_per_byte * static_cast<double>(work.hbm_bytes) * kPico +
         figures.pcie_pj_per_byte * static_cast<double>(work.pcie_bytes) * kPico +
         figures.beat_nj * static_cast<double>(work.beats) * kNano;
}

uint32_t MicrojoulesOf(const CardWork& work, const EnergyFigures& figures) {
  return Rounded(JoulesOf(work, figures));
}

uint32_t MicrojoulesOf(uint64_t time_ns, double watts) {
  return Rounded(watts * static_cast<double>(time_ns) * kNano);
}

}  // namespace mnemo::card
