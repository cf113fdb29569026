#include "devices/memory/card_model/card_model_memory_device.h"

#include <absl/strings/numbers.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <string>
#include <utility>

#include "fpga/card/card_driver.h"
#include "fpga/card/model/model_port.h"

namespace mnemo::memory_device::card_model {
namespace {

constexpr uint32_t kMostEntries = 16384;

struct Options {
  uint64_t channels = 32;
  uint64_t hbm_bytes = uint64_t{16} << 30;
  uint64_t group = 4;
  uint64_t scorers = 16;
  uint64_t bank_words = 4096;
  uint64_t clock_mhz = 250;
  uint64_t max_group = layout::kMaxGroup;
  uint64_t max_k = kMostEntries;
};

struct Number {
  const char* key;
  uint64_t Options::*field;
  uint64_t least;
  uint64_t most;
  bool power_of_two;
};
constexpr Number kNumbers[] = {
    {"channels", &Options::channels, 1, 32, true},
    {"hbm_bytes", &Options::hbm_bytes, 1 << 17, uint64_t{16} << 30, false},
    {"group", &Options::group, 1, 16, true},
    {"scorers", &Options::scorers, 1, 64, true},
    {"bank_words", &Options::bank_words, 8, 1 << 20, true},
    {"clock_mhz", &Options::clock_mhz, 50, 1000, false},
    {"max_group", &Options::max_group, 1, layout::kMaxGroup, false},
    {"max_k", &Options::max_k, 1, kMostEntries, false},
};
constexpr uint64_t kChannelGrain = 4096;  // bytes

absl::Status ParseOne(const Number& number, const std::string& text, Options* options) {
  uint64_t& value = options->*number.field;
  if (!absl::SimpleAtoi(text, &value) || value < number.least || value > number.most ||
      (number.power_of_two && !std::has_single_bit(value))) {
    return InvalidArgument("device option \"{}\": \"{}\"; allowed: {} from {} to {}", number.key, text,
                           number.power_of_two ? "powers of two" : "whole numbers", number.least,
                           number.most);
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> Parse(const MemoryDeviceOptions& options) {
  Options parsed;
  for (const auto& [key, value] : options.device_options) {
    for (const Number& number : kNumbers) {
      if (key == number.key) MNEMO_RETURN_IF_ERROR(ParseOne(number, value, &parsed));
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
  MemoryDeviceOptions offered = options;
  offered.max_group = std::min(offered.max_group, static_cast<uint32_t>(parsed.max_group));
  offered.max_k = std::min(offered.max_k, static_cast<uint32_t>(parsed.max_k));
  return card::CardDriver::Create(offered, std::move(card));
}

}  // namespace

MemoryDeviceKind Kind() {
  MemoryDeviceKind kind{.name = "card-model", .option_keys = {}, .create = Create};
  for (const Number& number : kNumbers) kind.option_keys.emplace_back(number.key);
  return kind;
}

}  // namespace mnemo::memory_device::card_model
