// Names that people gave and that are shown to others: in messages, logs, metrics and terminals.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mnemo {

inline constexpr size_t kMaxNameBytes = 256;

// Why a name cannot be shown as it is, as "has a control character at byte 4"; empty: it can. Allowed are up
// to kMaxNameBytes of UTF-8 with no control characters: none of Unicode's category Cc, no line or paragraph
// separator, and none of the marks that turn the direction of what follows.
std::string NameProblem(std::string_view name);

// The name with an underscore for each character, or byte that is no UTF-8, which NameProblem would name, cut
// at a character's end to kMaxNameBytes.
std::string SafeName(std::string_view name);

}  // namespace mnemo
