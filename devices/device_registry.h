// The kinds of device this build has, by name. A kind is one folder devices/KIND whose layer mnemo_KIND has
// the header devices/KIND/KIND_device.h with
//
//   namespace mnemo::devices::KIND { DeviceKind Kind(); }
//
// devices/factory lists every kind whose layer was built; nothing else names a kind.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/device.h"

namespace mnemo::devices {

struct DeviceKind {
  std::string name;  // DeviceOptions::kind
  // Instruction sets that this build has and this machine can run, best last; empty where it has no meaning.
  // DeviceOptions::isa has been checked against it ("auto" is still to be resolved) and threads is in range
  // when the functions below are called.
  std::vector<std::string> isas;
  absl::StatusOr<std::unique_ptr<Device>> (*create)(const DeviceOptions& options) = nullptr;
  absl::StatusOr<std::unique_ptr<WeightPacker>> (*create_packer)(const DeviceOptions& options) = nullptr;
};

// All kinds of this build, in a fixed order. Defined by the layer mnemo_device_factory, as are CreateDevice,
// CreateWeightPacker and SupportedIsas.
std::vector<DeviceKind> DeviceKinds();

}  // namespace mnemo::devices
