#pragma once

// The SystemVerilog package of the wire layout and of card.h, so that RTL and host code share one definition.

#include <string>

namespace mnemo::layout {

// Returns the text of fpga/rtl/mnemo_pkg.sv.
std::string CardPackage();

}  // namespace mnemo::layout
