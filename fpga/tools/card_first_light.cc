// First light of a card behind XRT: opens it, prints what it is, and compares one descriptor of each format
// with the reference. The first thing that is wrong ends it, with what to do.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "devices/memory/memory_device_registry.h"
#include "devices/memory/xrt/xrt_memory_device.h"
#include "fpga/tools/first_light.h"

namespace mnemo::first_light {
namespace {

namespace xrt = memory_device::xrt;

absl::StatusOr<memory_device::MemoryDeviceOptions> Options(const std::vector<std::string>& pairs) {
  memory_device::MemoryDeviceOptions options{.kind = "xrt", .name = "card"};
  const std::vector<std::string> keys = xrt::Kind().option_keys;
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    const std::string key = pair.substr(0, equals);
    if (equals == std::string::npos || std::find(keys.begin(), keys.end(), key) == keys.end()) {
      return InvalidArgument("option \"{}\"; allowed: KEY=VALUE with one of the keys {}", pair,
                             fmt::join(keys, ", "));
    }
    options.device_options.emplace_back(key, pair.substr(equals + 1));
  }
  return options;
}

absl::Status Run(const std::vector<std::string>& pairs) {
  MNEMO_ASSIGN_OR_RETURN(const memory_device::MemoryDeviceOptions options, Options(pairs));
  MNEMO_ASSIGN_OR_RETURN(const xrt::XrtOptions parsed, xrt::ParseOptions(options));
  MNEMO_ASSIGN_OR_RETURN(const xrt_card::XrtImage image, xrt_card::ReadImage(parsed.port.xclbin));
  std::printf("image: %s, for %s, %u MHz, uuid %s\n", image.emulation ? "emulation" : "card",
              image.platform.c_str(), image.clock_mhz, image.uuid.c_str());
  MNEMO_ASSIGN_OR_RETURN(card::CardDriverOptions driver, xrt::DriverOptions(parsed));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<xrt_card::XrtPort> port, xrt_card::XrtPort::Create(parsed.port));
  std::printf("device %s: %s\n", parsed.port.device.c_str(), port->device_name().c_str());
  const std::optional<double> watts = port->watts();
  std::printf("power: %s\n", watts.has_value() ? fmt::format("{} W", *watts).c_str() : "no sensor");
  const std::optional<double> degrees = port->degrees();
  std::printf("temperature: %s\n", degrees.has_value() ? fmt::format("{} C", *degrees).c_str() : "no sensor");
  std::fputs(DescribeCard(port.get()).c_str(), stdout);
  std::fflush(stdout);
  driver.make_port = [&port]() -> absl::StatusOr<std::unique_ptr<card::CardPort>> {
    if (port == nullptr) return Unavailable("the card was lost");
    return std::move(port);
  };
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<card::CardDriver> device,
                         card::CardDriver::Create(options, driver));
  std::string lines;
  const absl::Status compared = CompareWithReference(device.get(), &lines);
  std::fputs(lines.c_str(), stdout);
  if (!compared.ok() && !device->failure().ok()) {
    return Internal("{}; {}", std::string(compared.message()), std::string(device->failure().message()));
  }
  return compared;
}

int Main(int argc, char** argv) {
  std::vector<std::string> pairs;
  CLI::App app(
      "First light of a card behind XRT: prints what it is and compares what it computes with the reference.",
      "card_first_light");
  app.add_option("options", pairs,
                 "KEY=VALUE, as mnemo-memory's --device-option for the device xrt; xclbin=PATH is needed")
      ->required();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(pairs);
  std::fflush(stdout);
  if (status.ok()) {
    std::printf("the card works\n");
    return 0;
  }
  std::fprintf(stderr, "card_first_light: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace mnemo::first_light

int main(int argc, char** argv) { return mnemo::first_light::Main(argc, argv); }
