#include <xrt/xrt_device.h>

#include <exception>
#include <memory>
#include <utility>

#include "devices/energy/xrt.h"

namespace mnemo::energy {
namespace {

constexpr unsigned kMostCards = 64;

// XRT reports errors by exceptions.
absl::StatusOr<std::string> ReadElectrical(const xrt::device& card) {
  try {
    return card.get_info<xrt::info::device::electrical>();
  } catch (const std::exception& error) {
    return Unavailable("XRT: {}", error.what());
  }
}

}  // namespace

absl::StatusOr<Counters> FindXrtCounters() {
  Counters counters;
  for (unsigned index = 0; index < kMostCards; ++index) {
    try {
      auto card = std::make_shared<xrt::device>(index);
      counters.push_back(
          MakeElectricalCounter(static_cast<int>(index), [card] { return ReadElectrical(*card); }));
    } catch (const std::exception&) {
      break;  // no card has that number
    }
  }
  return counters;
}

}  // namespace mnemo::energy
