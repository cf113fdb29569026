// Kernels that this machine can run.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "devices/cpu/kernels.h"

namespace mnemo::devices::cpu {

// Returns the instruction sets of this build that the machine has, best last.
std::vector<std::string> Isas();
// Returns nullptr when `isa` is not among Isas(); "auto" is the best.
const Kernels* FindKernels(std::string_view isa);

}  // namespace mnemo::devices::cpu
