// The resolved configuration on its way from mnemod to its children: a sealed memfd that they inherit.
#pragma once

#include <vector>

#include "config/config.h"
#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::config {

// A sealed memfd that holds `config`, for any number of children. RESOURCE_EXHAUSTED when the memory is not
// there.
absl::StatusOr<UniqueFd> MakeImage(const Config& config);

// The configuration behind `fd`, checked against the schema, with `overrides` on top. Looks at no files that
// it names. `fd` stays the caller's; its offset is neither used nor changed. INVALID_ARGUMENT names key and
// bound.
absl::StatusOr<Config> LoadImage(int fd, const std::vector<Override>& overrides);

}  // namespace mnemo::config
