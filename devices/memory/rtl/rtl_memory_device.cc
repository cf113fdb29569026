#include "devices/memory/rtl/rtl_memory_device.h"

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "devices/memory/option_values.h"
#include "fpga/card/card_driver.h"
#include "fpga/sim/rtl_port.h"

namespace mnemo::memory_device::rtl {
namespace {

// In the order of sim::Fault.
constexpr std::string_view kFaults[] = {"none", "channel-stops", "channel-error", "host-stops", "host-error"};

struct Options {
  sim::RtlOptions rtl;
  uint32_t max_group = layout::kMaxGroup;
  uint32_t max_k = card::kMostEntries;
  uint32_t watchdog = 1 << 26;  // a weighted sum over all that both banks of two lanes hold takes two thirds
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
      rtl.card.clock_mhz = static_cast<uint32_t>(clock);
    } else if (key == "seed") {
      MNEMO_ASSIGN_OR_RETURN(rtl.card.seed, ParseNumber({"seed", 0, UINT32_MAX}, value));
    } else if (key == "fault") {
      MNEMO_ASSIGN_OR_RETURN(const size_t fault, ParseName("fault", kFaults, value));
      rtl.card.fault = static_cast<sim::Fault>(fault);
    } else if (key == "fault_at") {
      MNEMO_ASSIGN_OR_RETURN(rtl.card.fault_at, ParseNumber({"fault_at", 0, UINT32_MAX}, value));
    } else if (key == "max_group") {
      MNEMO_ASSIGN_OR_RETURN(const uint64_t group, ParseNumber({"max_group", 1, layout::kMaxGroup}, value));
      parsed.max_group = static_cast<uint32_t>(group);
    } else if (key == "max_k") {
      MNEMO_ASSIGN_OR_RETURN(const uint64_t entries, ParseNumber({"max_k", 1, card::kMostEntries}, value));
      parsed.max_k = static_cast<uint32_t>(entries);
    } else if (key == "watchdog") {
      MNEMO_ASSIGN_OR_RETURN(const uint64_t cycles, ParseNumber({"watchdog", 1000, UINT32_MAX}, value));
      parsed.watchdog = static_cast<uint32_t>(cycles);
    } else if (key == "trace") {
      rtl.card.trace = value;
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
  card.clock_mhz = parsed.rtl.card.clock_mhz;
  card.simulated_time = true;
  card.watchdog_cycles = parsed.watchdog;
  card.energy = card::kU55cEnergy;
  card.max_group = parsed.max_group;
  card.max_k = parsed.max_k;
  return card::CardDriver::Create(options, std::move(card));
}

}  // namespace

MemoryDeviceKind Kind() {
  return {.name = "rtl",
          .option_keys = {"channels", "hbm_bytes", "clock_mhz", "seed", "fault", "fault_at", "max_group",
                          "max_k", "watchdog", "trace"},
          .create = Create};
}

}  // namespace mnemo::memory_device::rtl
