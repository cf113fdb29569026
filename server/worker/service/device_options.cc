#include "server/worker/service/device_options.h"

#include "devices/base/resources.h"

namespace mnemo::worker_service {

devices::DeviceOptions DeviceOptionsOf(const WorkerOptions& options, const model::ModelConfig& model) {
  devices::DeviceOptions device;
  device.kind = options.device;
  device.isa = options.isa;
  device.threads = options.threads > 0 ? options.threads : AvailableResources().cores;
  device.cpus = options.cpus;
  device.kv_type = devices::KvTypeOfName(options.engine.kv_type).value_or(model::DefaultKvType(model));
  return device;
}

}  // namespace mnemo::worker_service
