#include <fmt/ranges.h>

#include <algorithm>

#include "devices/memory/memory_device_registry.h"

namespace mnemo::memory_device {
namespace {

std::vector<MemoryDeviceKind>& AddedKinds() {
  static std::vector<MemoryDeviceKind> kinds;
  return kinds;
}

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
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

KindCheck CheckKind(const std::string& name,
                    const std::vector<std::pair<std::string, std::string>>& device_options) {
  KindCheck check{.fault = KindCheck::Fault::kUnknownKind};
  for (const MemoryDeviceKind& kind : MemoryDeviceKinds()) {
    check.allowed.push_back(kind.name);
    if (kind.name != name) continue;
    check = {.kind = kind, .allowed = kind.option_keys};
    std::vector<std::string> seen;
    for (const auto& [key, value] : device_options) {
      const bool known = Contains(kind.option_keys, key);
      if (!known || Contains(seen, key)) {
        check.fault = known ? KindCheck::Fault::kRepeatedKey : KindCheck::Fault::kUnknownKey;
        check.key = key;
        return check;
      }
      seen.push_back(key);
    }
    return check;
  }
  return check;
}

absl::StatusOr<std::unique_ptr<MemoryDevice>> MakeMemoryDevice(const MemoryDeviceOptions& options) {
  const KindCheck check = CheckKind(options.kind, options.device_options);
  switch (check.fault) {
    case KindCheck::Fault::kNone:
      return check.kind.create(options);
    case KindCheck::Fault::kUnknownKind:
      return InvalidArgument("memory device \"{}\" is not known; there are: {}", options.kind,
                             fmt::join(check.allowed, ", "));
    case KindCheck::Fault::kUnknownKey:
      if (check.allowed.empty()) {
        return InvalidArgument("device option \"{}\": memory device {} has no options", check.key,
                               check.kind.name);
      }
      return InvalidArgument("device option \"{}\" is not known; memory device {} has: {}", check.key,
                             check.kind.name, fmt::join(check.allowed, ", "));
    case KindCheck::Fault::kRepeatedKey:
      break;
  }
  return InvalidArgument("device option \"{}\" is given twice", check.key);
}

}  // namespace mnemo::memory_device
