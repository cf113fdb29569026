#pragma once

// The card's RTL, simulated cycle by cycle, as a memory device: the driver of fpga/card over fpga/sim. Its
// times are simulated: cycles of the card's clock.

#include "devices/memory/memory_device_registry.h"

namespace mnemo::memory_device::rtl {

// Options, KEY=VALUE:
//   channels   of the simulated card: those that the build has (MNEMO_RTL_CHANNELS of cmake, 2)
//   hbm_bytes  card memory in all, up to 16 GiB; only what is written takes memory of the host (1 GiB)
//   clock_mhz  of the card, 50 to 1,000 (250)
//   seed       of latencies and of what lies in memory and registers at the start (1)
//   fault      none, channel-stops, channel-error, host-stops or host-error (none), from the burst
//   fault_at   on, counted from 0 (1,000)
//   max_group  queries of a group that are offered at most (64)
//   max_k      entries of a selection that are offered at most (16,384); see card-model
//   watchdog   cycles that a job may take, from 1,000 (67,108,864)
//   trace      file of waveforms (none); builds with MNEMO_RTL_TRACE have it
MemoryDeviceKind Kind();

}  // namespace mnemo::memory_device::rtl
