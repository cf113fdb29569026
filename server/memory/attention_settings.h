// Settings of attention under the names that the worker and the front end use.
#pragma once

#include "server/memory/methods/settings.h"

namespace mnemo::memory {

using methods::AttentionSettings;

}  // namespace mnemo::memory
