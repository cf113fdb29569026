#include <fmt/ranges.h>

#include <algorithm>

#include "devices/device_registry.h"

namespace mnemo::devices {
namespace {

constexpr int kMaxThreads = 1024;

absl::StatusOr<DeviceKind> FindKind(const DeviceOptions& options) {
  std::vector<DeviceKind> kinds = DeviceKinds();
  std::vector<std::string> names;
  for (const DeviceKind& kind : kinds) names.push_back(kind.name);
  const auto found = std::find(names.begin(), names.end(), options.kind);
  if (found == names.end()) {
    return InvalidArgument("device kind \"{}\" is not known; there are: {}", options.kind,
                           fmt::join(names, ", "));
  }
  DeviceKind kind = std::move(kinds[static_cast<size_t>(found - names.begin())]);
  const bool isa_known = options.isa == "auto" || kind.isas.empty() ||
                         std::find(kind.isas.begin(), kind.isas.end(), options.isa) != kind.isas.end();
  if (!isa_known) {
    return InvalidArgument("isa \"{}\": this machine has for device kind {}: auto, {}", options.isa,
                           kind.name, fmt::join(kind.isas, ", "));
  }
  if (options.threads < 1 || options.threads > kMaxThreads) {
    return InvalidArgument("threads is {}; 1 to {} are allowed", options.threads, kMaxThreads);
  }
  return kind;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateDevice(const DeviceOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const DeviceKind kind, FindKind(options));
  return kind.create(options);
}

absl::StatusOr<std::unique_ptr<WeightPacker>> CreateWeightPacker(const DeviceOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const DeviceKind kind, FindKind(options));
  return kind.create_packer(options);
}

std::vector<std::string> SupportedIsas() {
  std::vector<std::string> isas;
  for (const DeviceKind& kind : DeviceKinds()) isas.insert(isas.end(), kind.isas.begin(), kind.isas.end());
  return isas;
}

}  // namespace mnemo::devices
