// The fast CPU device: packed weights, int8 activations, a KV cache in pages, one team of threads.
#pragma once

#include "devices/device_registry.h"

namespace mnemo::devices::cpu {

DeviceKind Kind();

}  // namespace mnemo::devices::cpu
