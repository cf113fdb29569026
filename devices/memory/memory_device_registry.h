// The kinds of memory device this build has, by name. A kind is one folder devices/memory/KIND whose layer
// mnemo_memory_KIND has the header devices/memory/KIND/KIND_memory_device.h with
//
//   namespace mnemo::memory_device::KIND { MemoryDeviceKind Kind(); }
//
// devices/memory/factory lists every kind whose layer was built; nothing else names a kind.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "devices/memory/memory_device.h"

namespace mnemo::memory_device {

struct MemoryDeviceKind {
  std::string name;  // MemoryDeviceOptions::kind
  // Keys that MemoryDeviceOptions::device_options may have. MakeMemoryDevice has checked that there are no
  // others and that none is there twice; `create` checks the values.
  std::vector<std::string> option_keys;
  absl::StatusOr<std::unique_ptr<MemoryDevice>> (*create)(const MemoryDeviceOptions& options) = nullptr;
};

// All kinds of this build, in a fixed order. Defined, with the functions below and MakeMemoryDevice, by the
// layer mnemo_memory_factory.
std::vector<MemoryDeviceKind> BuiltMemoryDeviceKinds();
// The same, then those that were added.
std::vector<MemoryDeviceKind> MemoryDeviceKinds();

// Result of CheckKind, for callers that name the fields at fault each in their own way.
struct KindCheck {
  enum class Fault { kNone, kUnknownKind, kUnknownKey, kRepeatedKey };
  Fault fault = Fault::kNone;
  MemoryDeviceKind kind;             // the named one, unless it is unknown
  std::string key;                   // the option at fault
  std::vector<std::string> allowed;  // names of all kinds for an unknown one, else the kind's option_keys
};

// Looks for the kind `name`, and checks the keys of device_options against it. Values are not checked.
KindCheck CheckKind(const std::string& name,
                    const std::vector<std::pair<std::string, std::string>>& device_options);

// Adds a kind to this process, for tests. Before the first device is made; not thread-safe. A kind of the
// same name as one that is there is a bug.
void AddMemoryDeviceKind(const MemoryDeviceKind& kind);

}  // namespace mnemo::memory_device
