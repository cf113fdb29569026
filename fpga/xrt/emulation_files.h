// The files that XRT's software emulation needs to run a simulated card.
#pragma once

#include <string>

#include "devices/base/status.h"
#include "fpga/xrt/xclbin_file.h"

namespace mnemo::xrt_card {

inline constexpr char kImageName[] = "mnemo_card.xclbin";

// Writes into a folder, which is made, and replaces what is there:
//   mnemo_card.xclbin  the image
//   vitis              XRT finds `program` there as its device process
//   xrt                its folder lib is a link to `xrt_libraries`
//   xrt.ini, run       settings of XRT, and the folder of its own files
//   environment        a file of shell variables
absl::Status WriteEmulationFiles(const std::string& folder, const std::string& program,
                                 const std::string& xrt_libraries, const XclbinSpec& spec);

}  // namespace mnemo::xrt_card
