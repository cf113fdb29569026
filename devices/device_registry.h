// The kinds of device in this build, by name. A kind is one folder devices/KIND whose layer mnemo_KIND has
// the header devices/KIND/KIND_device.h with
//
//   namespace mnemo::devices::KIND { DeviceKind Kind(); }
//
// devices/factory lists every kind whose layer was built; no other code names a kind.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/device.h"

namespace mnemo::devices {

struct DeviceKind {
  // The value of DeviceOptions::kind.
  std::string name;
  // Instruction sets that this build has and this machine can run, best last; empty when not applicable.
  // Before the functions below are called, DeviceOptions::isa is checked against it and threads is in range.
  // The functions resolve "auto" themselves.
  std::vector<std::string> isas;
  absl::StatusOr<std::unique_ptr<Device>> (*create)(const DeviceOptions& options) = nullptr;
  absl::StatusOr<std::unique_ptr<WeightPacker>> (*create_packer)(const DeviceOptions& options) = nullptr;
};

// Returns all kinds of this build, in a fixed order. The layer mnemo_device_factory defines it, together with
// CreateDevice, CreateWeightPacker and SupportedIsas.
std::vector<DeviceKind> DeviceKinds();

}  // namespace mnemo::devices
