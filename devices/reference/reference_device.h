// Plain float32 on any x86-64 machine, with the same results on all of them: the oracle for golden tokens.
#pragma once

#include "devices/device_registry.h"

namespace mnemo::devices::reference {

DeviceKind Kind();

}  // namespace mnemo::devices::reference
