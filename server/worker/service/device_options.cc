#include "server/worker/service/device_options.h"

#include <sched.h>

#include <algorithm>

namespace mnemo::worker {

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

devices::DeviceOptions DeviceOptionsOf(const WorkerOptions& options, const model::ModelConfig& model) {
  devices::DeviceOptions device;
  device.kind = options.device;
  device.isa = options.isa;
  device.threads = options.threads > 0 ? options.threads : AvailableCores();
  device.cpus = options.cpus;
  device.kv_type = devices::KvTypeOfName(options.engine.kv_type).value_or(model::DefaultKvType(model));
  return device;
}

}  // namespace mnemo::worker
