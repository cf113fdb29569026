#include "fpga/xrt/host_check.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

namespace mnemo::xrt_card {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kInstall = "install XRT's package for this kernel and `modprobe xocl`";

std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::Status CheckEmulation() {
  if (Variable("USER").empty()) {
    return FailedPrecondition("USER is not set: XRT's emulation names its socket by it");
  }
  const std::string vitis = Variable("XILINX_VITIS");
  if (vitis.empty()) {
    return FailedPrecondition(
        "XILINX_VITIS is not set: XRT's emulation starts its device process from there; `card_emulation "
        "FOLDER` writes such a folder");
  }
  const fs::path model = fs::path(vitis) / kModelPath;
  if (::access(model.c_str(), X_OK) != 0) {
    return FailedPrecondition(
        "{}: {}; XRT's emulation starts it as its device process, `card_emulation FOLDER` "
        "writes such a folder",
        model.string(), std::generic_category().message(errno));
  }
  return absl::OkStatus();
}

// Bus addresses of the driver's cards, in order.
std::vector<std::string> CardsOf(const fs::path& driver) {
  std::vector<std::string> cards;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(driver, ignored)) {
    const std::string name = entry.path().filename();
    if (std::count(name.begin(), name.end(), ':') == 2) cards.push_back(name);
  }
  std::sort(cards.begin(), cards.end());
  return cards;
}

// A card's file in /dev; empty: it has none.
std::string NodeOf(const fs::path& card, const std::string& dev) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(card / "drm", ignored)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("renderD")) return dev + "/dri/" + name;
  }
  return "";
}

absl::Status CheckDriver(const std::string& device, const HostRoots& roots) {
  const fs::path driver = fs::path(roots.sys) / "bus/pci/drivers/xocl";
  if (!fs::exists(driver)) {
    return FailedPrecondition("device {}: the driver xocl is not loaded; {}", device, kInstall);
  }
  const std::vector<std::string> cards = CardsOf(driver);
  if (cards.empty()) {
    return NotFound(
        "device {}: the driver xocl has no card; `lspci -d 10ee:` shows whether the host sees one, "
        "`xbmgmt examine` whether it has its platform",
        device);
  }
  // XRT counts the cards that are ready; what it does not count, it reports itself.
  const std::string card = IsIndex(device) ? (cards.size() == 1 ? cards[0] : "") : device;
  if (IsIndex(device) && std::stoul(device) >= cards.size()) {
    return NotFound("device {}: the driver xocl has {} cards: {}", device, cards.size(),
                    fmt::join(cards, ", "));
  }
  if (!card.empty() && std::find(cards.begin(), cards.end(), card) == cards.end()) {
    return NotFound("device {}: the driver xocl has no such card; it has: {}", device,
                    fmt::join(cards, ", "));
  }
  if (card.empty()) return absl::OkStatus();
  const std::string node = NodeOf(driver / card, roots.dev);
  if (node.empty()) {
    return FailedPrecondition(
        "device {}: the driver xocl has made no file renderD* for it; `xbutil examine -d {}` "
        "tells why, and a card that hangs comes back by `xbutil reset -d {}`",
        device, card, card);
  }
  if (::access(node.c_str(), R_OK | W_OK) != 0) {
    return absl::PermissionDeniedError(
        fmt::format("device {}: {}: {}; add the user to the file's group (`usermod -aG render USER`)", device,
                    node, std::generic_category().message(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsSoftwareEmulation() { return Variable("XCL_EMULATION_MODE") == "sw_emu"; }

bool IsIndex(const std::string& device) {
  return !device.empty() && device.size() < 4 &&
         std::all_of(device.begin(), device.end(), [](char c) { return c >= '0' && c <= '9'; });
}

absl::Status CheckHost(const std::string& device, const HostRoots& roots) {
  const std::string root = Variable("XILINX_XRT");
  if (root.empty()) {
    return FailedPrecondition(
        "XILINX_XRT is not set: it must name the folder of XRT, whose folder lib has XRT's libraries");
  }
  if (!fs::is_directory(fs::path(root) / "lib")) {
    return FailedPrecondition("XILINX_XRT: {}/lib: no such folder; it must have XRT's libraries", root);
  }
  if (IsSoftwareEmulation()) return CheckEmulation();
  if (!Variable("XCL_EMULATION_MODE").empty()) {
    return FailedPrecondition("XCL_EMULATION_MODE: {}; allowed: sw_emu, or not set for a card",
                              Variable("XCL_EMULATION_MODE"));
  }
  return CheckDriver(device, roots);
}

}  // namespace mnemo::xrt_card
