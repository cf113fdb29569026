// Files of sysfs and procfs: some lines of text, made when they are read.
#pragma once

#include <cstdint>
#include <string>

#include "devices/base/status.h"

namespace mnemo::energy {

// At most the first 4,096 bytes, without blanks at the end. NOT_FOUND, PERMISSION_DENIED, or UNAVAILABLE for
// any other error, with the path. Blocks to read.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);
// The same for a file that holds one decimal number. DATA_LOSS: it holds something else.
absl::StatusOr<uint64_t> ReadNumber(const std::string& path);

}  // namespace mnemo::energy
