// The loader over text in memory: for Load, for what a child inherits, and for fuzzing.
#pragma once

#include <string>

#include "config/config.h"

namespace mnemo::config {

// `name` stands for the file in messages; empty = there is none, and options.file is not looked at. As Load
// else.
absl::StatusOr<Config> LoadText(const std::string& name, const std::string& text, const LoadOptions& options);

}  // namespace mnemo::config
