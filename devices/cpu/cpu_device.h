// The fast CPU device: packed weights, int8 activations, a paged KV cache, one thread pool.
#pragma once

#include "devices/device_registry.h"

namespace mnemo::devices::cpu {

DeviceKind Kind();

}  // namespace mnemo::devices::cpu
