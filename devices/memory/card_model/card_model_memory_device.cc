#include "devices/memory/card_model/card_model_memory_device.h"

#include <memory>
#include <string>
#include <utility>

#include "devices/memory/option_values.h"
#include "fpga/card/card_driver.h"
#include "fpga/card/model/model_port.h"

namespace mnemo::memory_device::card_model {
namespace {

struct Options {
  uint64_t channels = 32;
  uint64_t hbm_bytes = uint64_t{16} << 30;
  uint64_t group = 4;
  uint64_t scorers = 16;
  uint64_t bank_words = 4096;
  uint64_t clock_mhz = 250;
  uint64_t max_group = layout::kMaxGroup;
  uint64_t max_k = card::kMostEntries;
};

struct Number {
  NumberOption option;
  uint64_t Options::*field;
};
constexpr Number kNumbers[] = {
    {{"channels", 1, 32, true}, &Options::channels},
    {{"hbm_bytes", 1 << 17, uint64_t{16} << 30}, &Options::hbm_bytes},
    {{"group", 1, 16, true}, &Options::group},
    {{"scorers", 1, 64, true}, &Options::scorers},
    {{"bank_words", 8, 1 << 20, true}, &Options::bank_words},
    {{"clock_mhz", 50, 1000}, &Options::clock_mhz},
    {{"max_group", 1, layout::kMaxGroup}, &Options::max_group},
    {{"max_k", 1, card::kMostEntries}, &Options::max_k},
};
constexpr uint64_t kChannelGrain = 4096;  // bytes

absl::StatusOr<Options> Parse(const MemoryDeviceOptions& options) {
  Options parsed;
  for (const auto& [key, value] : options.device_options) {
    for (const Number& number : kNumbers) {
      if (key != number.option.key) continue;
      MNEMO_ASSIGN_OR_RETURN(parsed.*number.field, ParseNumber(number.option, value));
    }
  }
  if (parsed.scorers < parsed.group) {
    return InvalidArgument("device option \"scorers\": \"{}\"; allowed: at least \"group\", {}",
                           parsed.scorers, parsed.group);
  }
  if (parsed.hbm_bytes % (parsed.channels * kChannelGrain) != 0) {
    return InvalidArgument("device option \"hbm_bytes\": \"{}\"; allowed: multiples of {} with {} channels",
                           parsed.hbm_bytes, parsed.channels * kChannelGrain, parsed.channels);
  }
  return parsed;
}

absl::StatusOr<std::unique_ptr<MemoryDevice>> Create(const MemoryDeviceOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const Options parsed, Parse(options));
  card::model::ModelOptions model;
  model.shape = {.channels = static_cast<uint32_t>(parsed.channels),
                 .queries = static_cast<uint32_t>(parsed.group),
                 .scores = static_cast<uint32_t>(parsed.scorers),
                 .bank_words = static_cast<uint32_t>(parsed.bank_words)};
  model.channel_bytes = parsed.hbm_bytes / parsed.channels;
  card::CardDriverOptions card;
  card.kind = "card-model";
  card.make_port = [model]() -> absl::StatusOr<std::unique_ptr<card::CardPort>> {
    return card::model::ModelPort::Make(model);
  };
  card.clock_mhz = static_cast<double>(parsed.clock_mhz);
  card.simulated_time = true;
  card.energy = card::kU55cEnergy;
  card.max_group = static_cast<uint32_t>(parsed.max_group);
  card.max_k = static_cast<uint32_t>(parsed.max_k);
  return card::CardDriver::Create(options, std::move(card));
}

}  // namespace

MemoryDeviceKind Kind() {
  MemoryDeviceKind kind{.name = "card-model", .option_keys = {}, .create = Create};
  for (const Number& number : kNumbers) kind.option_keys.emplace_back(number.option.key);
  return kind;
}

}  // namespace mnemo::memory_device::card_model
