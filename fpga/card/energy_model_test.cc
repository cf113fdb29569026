#include "fpga/card/energy_model.h"

#include <catch2/catch.hpp>

#include "proto/layout/completion.h"

namespace mnemo::card {
namespace {

TEST_CASE("joules are those of idling, both memories' bytes and beats") {
  const EnergyFigures figures = {
      .idle_watts = 10, .hbm_pj_per_byte = 20, .pcie_pj_per_byte = 50, .beat_nj = 2};
  CHECK(JoulesOf({}, figures) == 0);
  CHECK(JoulesOf({.time_ns = 3'000'000}, figures) == Approx(0.03));
  CHECK(JoulesOf({.hbm_bytes = 500'000'000}, figures) == Approx(0.01));
  CHECK(JoulesOf({.pcie_bytes = 1'000'000'000}, figures) == Approx(0.05));
  CHECK(JoulesOf({.beats = 7'000'000}, figures) == Approx(0.014));
  CHECK(JoulesOf(
            {.time_ns = 3'000'000, .hbm_bytes = 500'000'000, .pcie_bytes = 1'000'000'000, .beats = 7'000'000},
            figures) == Approx(0.104));
}

TEST_CASE("a scan of a million keys of 128 dimensions and 2 bits takes 3.1 mJ, all bandwidth 39 W") {
  // 15,625 pages of 36 beats: 36 MB at 460 GB/s take 78 us and 1.17 mJ of idling, 1.12 mJ of HBM, 0.79 of
  // beats.
  const CardWork scan = {.time_ns = 78'261, .hbm_bytes = 36'000'000, .pcie_bytes = 0, .beats = 562'500};
  CHECK(JoulesOf(scan, kU55cEnergy) == Approx(0.0030774).epsilon(1e-4));
  CHECK(MicrojoulesOf(scan, kU55cEnergy) == 3077);
  const CardWork second = {
      .time_ns = 1'000'000'000, .hbm_bytes = 460'000'000'000, .pcie_bytes = 0, .beats = 7'187'500'000};
  CHECK(JoulesOf(second, kU55cEnergy) == Approx(39.3225));
}

TEST_CASE("microjoules are rounded, and end below the mark of an unknown energy") {
  const EnergyFigures watt = {.idle_watts = 1, .hbm_pj_per_byte = 0, .pcie_pj_per_byte = 0, .beat_nj = 0};
  CHECK(MicrojoulesOf({.time_ns = 1'499}, watt) == 1);
  CHECK(MicrojoulesOf({.time_ns = 1'501}, watt) == 2);
  CHECK(MicrojoulesOf({.time_ns = 5'000'000'000'000}, watt) == layout::kEnergyUnknown - 1);
}

TEST_CASE("a counter's watts give microjoules of a time, rounded and bounded alike") {
  CHECK(MicrojoulesOf(1'000'000, 24.5) == 24'500);
  CHECK(MicrojoulesOf(1'000, 0.4) == 0);
  CHECK(MicrojoulesOf(1'000, 0.6) == 1);
  CHECK(MicrojoulesOf(5'000'000'000'000, 1.0) == layout::kEnergyUnknown - 1);
}

}  // namespace
}  // namespace mnemo::card
