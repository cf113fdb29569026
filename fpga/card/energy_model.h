#pragma once

// Energy of a card by a model: for cards that no counter watches, the functional model and the simulated RTL.
// Energies of the first order, whose error shows only beside a card (docs/ENERGY.md).

#include <cstdint>

namespace mnemo::card {

// Figures of one card.
struct EnergyFigures {
  // Power without work. Alveo U55C, two cards: 14.5 and 15.0 W by the documents of Paderborn's PC2.
  double idle_watts = 15.0;
  // HBM2, with its controller: 3.9 pJ a bit. O'Connor et al., "Fine-Grained DRAM", MICRO 2017.
  double hbm_pj_per_byte = 31.0;
  // PCIe, both ends: 6 pJ a bit, an assumption of three times a transmitter of the fourth generation, which
  // takes 1.93. Bae et al., Electronics 2021, 10(1), 68.
  double pcie_pj_per_byte = 48.0;
  // Scan of a beat of 64 bytes, chosen: a scan at 460 GB/s, which is 7.2 G beats/s, then draws about 40 W.
  // Published designs on cards of this kind draw 25 to 45 W.
  double beat_nj = 1.4;
};

// Amount of work of an operation.
struct CardWork {
  uint64_t time_ns = 0;     // of the card for it alone
  uint64_t hbm_bytes = 0;   // read and written
  uint64_t pcie_bytes = 0;  // both ways
  uint64_t beats = 0;       // scored
};

inline constexpr EnergyFigures kU55cEnergy{};

double JoulesOf(const CardWork& work, const EnergyFigures& figures);

// For layout::Completion::energy_uj: rounded to the nearest, at most the largest that a completion can tell.
uint32_t MicrojoulesOf(const CardWork& work, const EnergyFigures& figures);
// The same for a time at the power that a card's own counter tells.
uint32_t MicrojoulesOf(uint64_t time_ns, double watts);

}  // namespace mnemo::card
