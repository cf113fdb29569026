#include "devices/energy/energy_meter.h"

#include <charconv>
#include <system_error>

namespace mnemo::energy {
namespace {

constexpr int kMaxIndex = 1023;

}  // namespace

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

std::optional<MeteredDevice> ParseDevice(std::string_view label) {
  for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kDram, DeviceKind::kGpu, DeviceKind::kFpga}) {
    const std::string_view name = Name(kind);
    if (!label.starts_with(name)) continue;
    const std::string_view digits = label.substr(name.size());
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error != std::errc() || end != digits.data() + digits.size() || index < 0 || index > kMaxIndex) {
      return std::nullopt;
    }
    return MeteredDevice{kind, index, ""};
  }
  return std::nullopt;
}

bool IsSameDevice(const MeteredDevice& a, const MeteredDevice& b) {
  return a.kind == b.kind && a.index == b.index;
}

}  // namespace mnemo::energy
