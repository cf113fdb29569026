// The device that a worker's command line asks for.
#pragma once

#include "devices/device.h"
#include "server/worker/service/worker_options.h"

namespace mnemo::worker {

// Cores this process may run on, at least 1.
int AvailableCores();

// Threads are at least 1.
devices::DeviceOptions DeviceOptionsOf(const WorkerOptions& options);

}  // namespace mnemo::worker
