// The device that a configuration asks for.
#pragma once

#include "config/config.h"
#include "devices/device.h"
#include "server/model/model_config.h"

namespace mnemo::worker_service {

// For the model that it is to run. Threads are at least 1: by default one for each core that may be used.
devices::DeviceOptions DeviceOptionsOf(const config::Config& config, const model::ModelConfig& model);

}  // namespace mnemo::worker_service
