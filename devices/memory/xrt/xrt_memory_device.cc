#include "devices/memory/xrt/xrt_memory_device.h"

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "devices/memory/option_values.h"
#include "fpga/xrt/host_check.h"

namespace mnemo::memory_device::xrt {
namespace {

// In the order of xrt_card::HostMemory.
constexpr std::string_view kMemories[] = {"host", "hbm"};
// In the order of xrt_card::Interrupts.
constexpr std::string_view kInterrupts[] = {"auto", "on", "off"};
constexpr uint64_t kHostGrain = 4096;  // bytes

// As in 0000:3b:00.1: figures of four, two, two and one hexadecimal digits.
bool IsBusAddress(std::string_view text) {
  constexpr std::string_view kForm = "hhhh:hh:hh.h";
  constexpr std::string_view kDigits = "0123456789abcdef";
  return text.size() == kForm.size() &&
         std::equal(text.begin(), text.end(), kForm.begin(), [&](char c, char form) {
           return form == 'h' ? kDigits.find(c) != std::string_view::npos : c == form;
         });
}

absl::Status ParseOne(const std::string& key, const std::string& value, XrtOptions* options) {
  xrt_card::XrtPortOptions& port = options->port;
  const auto number = [&](uint64_t least, uint64_t most) {
    return ParseNumber({.key = key, .least = least, .most = most}, value);
  };
  if (key == "xclbin") {
    port.xclbin = value;
  } else if (key == "index") {
    MNEMO_ASSIGN_OR_RETURN(const uint64_t index, number(0, 255));
    port.device = std::to_string(index);
  } else if (key == "bdf") {
    if (!IsBusAddress(value)) {
      return InvalidArgument(
          "device option \"bdf\": \"{}\"; allowed: domain, bus, device and function in lower-case "
          "hexadecimal, as "
          "0000:3b:00.1",
          value);
    }
    port.device = value;
  } else if (key == "memory") {
    MNEMO_ASSIGN_OR_RETURN(const size_t memory, ParseName(key, kMemories, value));
    port.memory = static_cast<xrt_card::HostMemory>(memory);
  } else if (key == "hbm_bytes") {
    MNEMO_ASSIGN_OR_RETURN(port.hbm_bytes, number(uint64_t{4} << 20, uint64_t{32} << 30));
  } else if (key == "host_bytes") {
    MNEMO_ASSIGN_OR_RETURN(port.host_bytes, number(uint64_t{4} << 20, uint64_t{1} << 30));
    port.host_bytes = port.host_bytes / kHostGrain * kHostGrain;
  } else if (key == "clock_mhz") {
    MNEMO_ASSIGN_OR_RETURN(const uint64_t clock, number(0, 1000));
    port.clock_mhz = static_cast<uint32_t>(clock);
  } else if (key == "interrupts") {
    MNEMO_ASSIGN_OR_RETURN(const size_t interrupts, ParseName(key, kInterrupts, value));
    port.interrupts = static_cast<xrt_card::Interrupts>(interrupts);
  } else if (key == "watchdog") {
    MNEMO_ASSIGN_OR_RETURN(const uint64_t cycles, number(1000, UINT32_MAX));
    options->watchdog = static_cast<uint32_t>(cycles);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<MemoryDevice>> Create(const MemoryDeviceOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const XrtOptions parsed, ParseOptions(options));
  MNEMO_ASSIGN_OR_RETURN(card::CardDriverOptions card, DriverOptions(parsed));
  return card::CardDriver::Create(options, std::move(card));
}

}  // namespace

absl::StatusOr<XrtOptions> ParseOptions(const MemoryDeviceOptions& options) {
  XrtOptions parsed;
  bool named = false;
  for (const auto& [key, value] : options.device_options) {
    if (key == "index" || key == "bdf") {
      if (named) return InvalidArgument("device options \"index\" and \"bdf\": only one names the card");
      named = true;
    }
    MNEMO_RETURN_IF_ERROR(ParseOne(key, value, &parsed));
  }
  if (parsed.port.xclbin.empty()) {
    return InvalidArgument(
        "device option \"xclbin\": the path of the card's image is missing; fpga/build makes an "
        "image, `card_emulation` one for XRT's emulation");
  }
  return parsed;
}

absl::StatusOr<card::CardDriverOptions> DriverOptions(const XrtOptions& options,
                                                      const xrt_card::XrtHost& host) {
  MNEMO_ASSIGN_OR_RETURN(const xrt_card::XrtImage image, host.read_image(options.port.xclbin));
  if (image.clock_mhz == 0) {
    return InvalidArgument("xclbin {}: it tells no clock of its kernel", options.port.xclbin);
  }
  card::CardDriverOptions card;
  card.kind = "xrt";
  card.clock_mhz = image.clock_mhz;
  card.watchdog_cycles = options.watchdog;
  card.simulated_time = image.emulation;
  card.energy = card::kU55cEnergy;
  // A port that is made again replaces one whose card was lost: the whole card is reset first.
  card.make_port = [port = options.port, clock = image.clock_mhz, host,
                    reset = std::make_shared<xrt_card::HotReset>(options.reset_patience)]() mutable
      -> absl::StatusOr<std::unique_ptr<card::CardPort>> {
    absl::StatusOr<std::unique_ptr<xrt_card::XrtPort>> made = xrt_card::XrtPort::Create(port, host);
    port.driver_clock_mhz = clock;
    port.hot_reset = reset;
    return made;
  };
  return card;
}

MemoryDeviceKind Kind() {
  return {.name = "xrt",
          .option_keys = {"xclbin", "index", "bdf", "memory", "hbm_bytes", "host_bytes", "clock_mhz",
                          "interrupts", "watchdog"},
          .create = Create};
}

}  // namespace mnemo::memory_device::xrt
