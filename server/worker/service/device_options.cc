#include "server/worker/service/device_options.h"

#include "devices/base/resources.h"

namespace mnemo::worker_service {

devices::DeviceOptions DeviceOptionsOf(const config::Config& config, const model::ModelConfig& model) {
  devices::DeviceOptions device;
  device.kind = config.device;
  device.isa = config.cpu.isa;
  device.threads = config.cpu.threads > 0 ? config.cpu.threads : AvailableResources().cores;
  device.kv_type = devices::KvTypeOfName(config.engine.kv_type).value_or(model::DefaultKvType(model));
  return device;
}

}  // namespace mnemo::worker_service
