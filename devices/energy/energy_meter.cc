#include "devices/energy/energy_meter.h"

namespace mnemo::energy {

const char* Name(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kDram:
      return "dram";
    case DeviceKind::kGpu:
      return "gpu";
    case DeviceKind::kFpga:
      return "fpga";
  }
  return "";
}

const char* Name(DropReason reason) {
  switch (reason) {
    case DropReason::kBackwards:
      return "backwards";
    case DropReason::kStuck:
      return "stuck";
    case DropReason::kGap:
      return "gap";
    case DropReason::kError:
      return "error";
  }
  return "";
}

std::string MeteredDevice::Label() const { return Name(kind) + std::to_string(index); }

}  // namespace mnemo::energy
