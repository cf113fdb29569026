#include "devices/memory/rtl/rtl_memory_device.h"

#include <absl/strings/numbers.h>

#include <memory>
#include <string>
#include <utility>

#include "fpga/card/card_driver.h"
#include "fpga/sim/rtl_port.h"

namespace mnemo::memory_device::rtl {
namespace {

struct Number {
  const char* key;
  uint64_t least;
  uint64_t most;
};

absl::StatusOr<uint64_t> ParseNumber(const Number& number, const std::string& text) {
  uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < number.least || value > number.most) {
    return InvalidArgument("device option \"{}\": \"{}\"; allowed: whole numbers from {} to {}", number.key,
                           text, number.least, number.most);
  }
  return value;
}

struct FaultName {
  const char* name;
  sim::Fault fault;
};
constexpr FaultName kFaults[] = {{"none", sim::Fault::kNone},
                                 {"channel-stops", sim::Fault::kChannelStops},
                                 {"channel-error", sim::Fault::kChannelError},
                                 {"host-stops", sim::Fault::kHostStops},
                                 {"host-error", sim::Fault::kHostError}};

absl::StatusOr<sim::Fault> ParseFault(const std::string& text) {
  std::string names;
  for (const FaultName& fault : kFaults) {
    if (text == fault.name) return fault.fault;
    names += std::string(names.empty() ? "" : ", ") + fault.name;
  }
  return InvalidArgument("device option \"fault\": \"{}\"; allowed: {}", text, names);
}

struct Options {
  sim::RtlOptions rtl;
  uint32_t watchdog = 1 << 22;  // a scan of a million tokens of 8 bits on two channels takes a third
};

absl::StatusOr<Options> Parse(const MemoryDeviceOptions& options) {
  Options parsed;
  sim::RtlOptions& rtl = parsed.rtl;
  for (const auto& [key, value] : options.device_options) {
    if (key == "channels") {
      MNEMO_RETURN_IF_ERROR(
          ParseNumber({"channels", sim::RtlPort::Channels(), sim::RtlPort::Channels()}, value).status());
    } else if (key == "hbm_bytes") {
      MNEMO_ASSIGN_OR_RETURN(rtl.hbm_bytes, ParseNumber({"hbm_bytes", 1 << 17, uint64_t{16} << 30}, value));
    } else if (key == "clock_mhz") {
      MNEMO_ASSIGN_OR_RETURN(const uint64_t clock, ParseNumber({"clock_mhz", 50, 1000}, value));
      rtl.clock_mhz = static_cast<uint32_t>(clock);
    } else if (key == "seed") {
      MNEMO_ASSIGN_OR_RETURN(rtl.seed, ParseNumber({"seed", 0, UINT32_MAX}, value));
    } else if (key == "fault") {
      MNEMO_ASSIGN_OR_RETURN(rtl.fault, ParseFault(value));
    } else if (key == "fault_at") {
      MNEMO_ASSIGN_OR_RETURN(rtl.fault_at, ParseNumber({"fault_at", 0, UINT32_MAX}, value));
    } else if (key == "watchdog") {
      MNEMO_ASSIGN_OR_RETURN(const uint64_t cycles, ParseNumber({"watchdog", 1000, UINT32_MAX}, value));
      parsed.watchdog = static_cast<uint32_t>(cycles);
    } else if (key == "trace") {
      rtl.trace = value;
    }
  }
  return parsed;
}

absl::StatusOr<std::unique_ptr<MemoryDevice>> Create(const MemoryDeviceOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const Options parsed, Parse(options));
  card::CardDriverOptions card;
  card.kind = "rtl";
  card.make_port = [rtl = parsed.rtl]() -> absl::StatusOr<std::unique_ptr<card::CardPort>> {
    return sim::RtlPort::Make(rtl);
  };
  card.clock_mhz = parsed.rtl.clock_mhz;
  card.simulated_time = true;
  card.watchdog_cycles = parsed.watchdog;
  card.energy = card::kU55cEnergy;
  return card::CardDriver::Create(options, std::move(card));
}

}  // namespace

MemoryDeviceKind Kind() {
  return {
      .name = "rtl",
      .option_keys = {"channels", "hbm_bytes", "clock_mhz", "seed", "fault", "fault_at", "watchdog", "trace"},
      .create = Create};
}

}  // namespace mnemo::memory_device::rtl
