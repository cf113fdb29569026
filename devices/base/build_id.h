#pragma once

#include <string>
#include <string_view>

namespace mnemo {

// The answer of BuildId in a program that was linked without one.
inline constexpr std::string_view kUnknownBuildId = "unknown";

// The build id of this program in hexadecimal: the GNU build id, a hash of the program's contents that the
// linker writes. Equal ids mean equal code.
std::string BuildId();

}  // namespace mnemo
