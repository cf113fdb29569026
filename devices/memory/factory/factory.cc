#include <fmt/ranges.h>

#include <algorithm>

#include "devices/memory/memory_device_registry.h"

namespace mnemo::memory_device {
namespace {

std::vector<MemoryDeviceKind>& AddedKinds() {
  static std::vector<MemoryDeviceKind> kinds;
  return kinds;
}

absl::Status CheckDeviceOptions(const MemoryDeviceKind& kind, const MemoryDeviceOptions& options) {
  std::vector<std::string> seen;
  for (const auto& [key, value] : options.device_options) {
    if (kind.option_keys.empty()) {
      return InvalidArgument("device option \"{}\": memory device {} has no options", key, kind.name);
    }
    if (std::find(kind.option_keys.begin(), kind.option_keys.end(), key) == kind.option_keys.end()) {
      return InvalidArgument("device option \"{}\" is not known; memory device {} has: {}", key, kind.name,
                             fmt::join(kind.option_keys, ", "));
    }
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
      return InvalidArgument("device option \"{}\" is given twice", key);
    }
    seen.push_back(key);
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<MemoryDeviceKind> MemoryDeviceKinds() {
  std::vector<MemoryDeviceKind> kinds = BuiltMemoryDeviceKinds();
  kinds.insert(kinds.end(), AddedKinds().begin(), AddedKinds().end());
  return kinds;
}

void AddMemoryDeviceKind(const MemoryDeviceKind& kind) {
  for (const MemoryDeviceKind& known : MemoryDeviceKinds()) MNEMO_CHECK(known.name != kind.name);
  AddedKinds().push_back(kind);
}

absl::StatusOr<std::unique_ptr<MemoryDevice>> MakeMemoryDevice(const MemoryDeviceOptions& options,
                                                               IndexStore* store) {
  std::vector<std::string> names;
  for (const MemoryDeviceKind& kind : MemoryDeviceKinds()) {
    if (kind.name == options.kind) {
      MNEMO_RETURN_IF_ERROR(CheckDeviceOptions(kind, options));
      return kind.create(options, store);
    }
    names.push_back(kind.name);
  }
  return InvalidArgument("memory device \"{}\" is not known; there are: {}", options.kind,
                         fmt::join(names, ", "));
}

}  // namespace mnemo::memory_device
