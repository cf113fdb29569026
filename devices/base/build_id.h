#pragma once

#include <string>

namespace mnemo {

// Hexadecimal id that the linker gave this program (the GNU build id: a hash of what it contains), so that
// equal ids mean equal code; "unknown" when it was linked without one.
std::string BuildId();

}  // namespace mnemo
