// Checks on user-supplied names that are shown in messages, logs, metrics and terminals.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mnemo {

inline constexpr size_t kMaxNameBytes = 256;

// Returns why the name cannot be shown as it is, for example "has a control character at byte 4", or an empty
// string when it can. A valid name is at most kMaxNameBytes of UTF-8 without control characters. Rejected are
// Unicode category Cc, line and paragraph separators, and marks that change the direction of text.
std::string NameProblem(std::string_view name);

// Returns the name with an underscore for each character that NameProblem rejects and for each byte that is
// not UTF-8. The result is cut at a character boundary to at most kMaxNameBytes.
std::string SafeName(std::string_view name);

}  // namespace mnemo
