// The container file of a card's image, as XRT loads it, for emulation: the sections that name the kernel,
// its registers and its memories, without a bitstream. Hardware's file comes from v++ (fpga/build).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mnemo::xrt_card {

inline constexpr char kKernelName[] = "mnemo_card";
inline constexpr char kInstanceName[] = "mnemo_card_1";
// Emulation's bus address of the kernel's registers.
inline constexpr uint64_t kKernelAddress = 0x1800000;
inline constexpr uint32_t kKernelRegisterBytes = 0x10000;

struct XclbinSpec {
  std::string platform = "xilinx_u55c_gen3x16_xdma_base_3";
  uint32_t channels = 2;
  uint64_t channel_bytes = uint64_t{512} << 20;
  uint64_t host_bytes = uint64_t{1} << 30;  // reach of HOST[0]
  uint16_t clock_mhz = 250;
};

// Memory groups, for buffer objects: channel n is group n, host memory the one after the last channel.
inline uint32_t HostGroup(const XclbinSpec& spec) { return spec.channels; }

// The whole file. Its UUID is a function of the spec.
std::vector<uint8_t> MakeEmulationXclbin(const XclbinSpec& spec);

}  // namespace mnemo::xrt_card
