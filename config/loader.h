// The loader over text in memory, for Load and for fuzzing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/config.h"

namespace mnemo::config {

// `name` stands for the file in messages; empty = there is none. As Load else.
absl::StatusOr<Config> LoadText(const std::string& name, const std::string& text,
                                const std::vector<std::pair<std::string, std::string>>& overrides);

}  // namespace mnemo::config
