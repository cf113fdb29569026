#pragma once

// A card behind XRT as a memory device: the driver of fpga/card over fpga/xrt. With XRT's software emulation
// the card is simulated, and its times are cycles of its clock.

#include <chrono>
#include <cstdint>

#include "devices/base/status.h"
#include "devices/memory/memory_device_registry.h"
#include "fpga/card/card_driver.h"
#include "fpga/xrt/xrt_calls.h"
#include "fpga/xrt/xrt_port.h"

namespace mnemo::memory_device::xrt {

// Options, KEY=VALUE:
//   xclbin      path of the card's image; needed
//   index       of the card among those of the host, 0 to 255 (0), or
//   bdf         its bus address as in 0000:3b:00.1
//   memory      where rings and results lie: host, or hbm for card memory over PCIe (host)
//   hbm_bytes   card memory in all, up to 32 GiB; XRT keeps a copy in the host's memory (all that there is)
//   host_bytes  for rings and results, 4 MiB to 1 GiB (64 MiB)
//   clock_mhz   that the image has at least, 0 to 1,000 (0)
//   interrupts  auto, on, or off: the card is polled; emulation has none (auto)
//   watchdog    cycles that a job may take, from 1,000 (1,073,741,824)
MemoryDeviceKind Kind();

struct XrtOptions {
  xrt_card::XrtPortOptions port;
  uint32_t watchdog = card::CardDriverOptions{}.watchdog_cycles;
  std::chrono::milliseconds reset_patience = std::chrono::seconds(20);  // for a reset of the whole card
};

// INVALID_ARGUMENT names the option, its value and what is allowed. Keys are those of Kind().
absl::StatusOr<XrtOptions> ParseOptions(const MemoryDeviceOptions& options);

// Options of a driver for the card. Reads the image's file.
absl::StatusOr<card::CardDriverOptions> DriverOptions(const XrtOptions& options,
                                                      const xrt_card::XrtHost& host = {});

}  // namespace mnemo::memory_device::xrt
