// The host of a card behind XRT, before XRT is asked: what misses is named with what to do about it. XRT
// itself exits, waits for minutes, or tells a number.
#pragma once

#include <string>

#include "devices/base/status.h"

namespace mnemo::xrt_card {

// The device process of XRT's software emulation, below the folder that XILINX_VITIS names.
inline constexpr char kModelPath[] = "data/emulation/unified/cpu_em/generic_pcie/model/genericpciemodel";

// Roots of the file systems, for tests.
struct HostRoots {
  std::string sys = "/sys";
  std::string dev = "/dev";
};

// XRT's software emulation is asked for, XCL_EMULATION_MODE=sw_emu.
bool IsSoftwareEmulation();

// Index of a card, at most three digits; else it is a bus address.
bool IsIndex(const std::string& device);

// FAILED_PRECONDITION: XRT's libraries, its emulation or its driver is not set up. NOT_FOUND: no such card.
// PERMISSION_DENIED: this user may not open it.
absl::Status CheckHost(const std::string& device, const HostRoots& roots = {});

}  // namespace mnemo::xrt_card
