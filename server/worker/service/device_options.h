// The device that a worker's command line asks for.
#pragma once

#include "devices/device.h"
#include "server/model/model_config.h"
#include "server/worker/service/worker_options.h"

namespace mnemo::worker_service {

// For the model that it is to run. Threads are at least 1: by default one for each core that may be used.
devices::DeviceOptions DeviceOptionsOf(const WorkerOptions& options, const model::ModelConfig& model);

}  // namespace mnemo::worker_service
