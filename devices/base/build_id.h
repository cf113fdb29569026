#pragma once

#include <string>

namespace mnemo {

// The build id of this program in hexadecimal: the GNU build id, a hash of the program's contents that the
// linker writes. Equal ids mean equal code. "unknown" when the program was linked without one.
std::string BuildId();

}  // namespace mnemo
