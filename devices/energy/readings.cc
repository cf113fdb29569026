#include "devices/energy/readings.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <optional>

namespace mnemo::energy {
namespace {

constexpr std::string_view kMagic = "mnemo-energy";
constexpr int kVersion = 1;
constexpr size_t kMaxSource = 16;

// Takes the next word, up to one blank.
std::string_view TakeWord(std::string_view* line) {
  const std::string_view word = line->substr(0, line->find(' '));
  line->remove_prefix(std::min(line->size(), word.size() + 1));
  return word;
}

template <typename T>
bool TakeInteger(std::string_view* line, T* number) {
  const std::string_view word = TakeWord(line);
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), *number);
  return error == std::errc() && end == word.data() + word.size();
}

std::optional<Reading> ParseLine(std::string_view line) {
  Reading reading;
  const std::optional<MeteredDevice> device = ParseDevice(TakeWord(&line));
  const std::string_view source = TakeWord(&line);
  if (!device || source.empty() || source.size() > kMaxSource) return std::nullopt;
  if (source.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") != std::string_view::npos) return std::nullopt;
  reading.meter.device = *device;
  reading.meter.device.source = std::string(source);
  int is_up = -1;
  if (!TakeInteger(&line, &is_up) || is_up < 0 || is_up > 1) return std::nullopt;
  reading.meter.is_up = is_up == 1;
  if (!TakeInteger(&line, &reading.end_ns) || reading.end_ns < 0) return std::nullopt;
  if (!TakeInteger(&line, &reading.tenths)) return std::nullopt;
  for (uint64_t& dropped : reading.meter.dropped) {
    if (!TakeInteger(&line, &dropped)) return std::nullopt;
  }
  return line.empty() ? std::optional(reading) : std::nullopt;
}

}  // namespace

std::string EncodeReadings(const Readings& readings) {
  std::string message = fmt::format("{} {} {}\n", kMagic, kVersion, readings.instance);
  for (const Reading& reading : readings.meters) {
    fmt::format_to(std::back_inserter(message), "{} {} {} {} {}", reading.meter.device.Label(),
                   reading.meter.device.source, reading.meter.is_up ? 1 : 0, reading.end_ns, reading.tenths);
    for (const uint64_t dropped : reading.meter.dropped) {
      fmt::format_to(std::back_inserter(message), " {}", dropped);
    }
    message += '\n';
  }
  return message;
}

absl::StatusOr<Readings> DecodeReadings(std::string_view message) {
  Readings readings;
  for (int number = 1; !message.empty(); ++number) {
    const size_t length = message.find('\n');
    if (length == std::string_view::npos) return DataLoss("line {} has no end", number);
    std::string_view line = message.substr(0, length);
    message.remove_prefix(length + 1);
    if (number == 1) {
      int version = 0;
      if (TakeWord(&line) != kMagic || !TakeInteger(&line, &version) || version != kVersion ||
          !TakeInteger(&line, &readings.instance) || !line.empty()) {
        return DataLoss("line 1 is not that of mnemo-energy, version {}", kVersion);
      }
      continue;
    }
    const std::optional<Reading> reading = ParseLine(line);
    if (!reading) return DataLoss("line {} is no reading", number);
    if (readings.meters.size() == kMaxReadings) return DataLoss("more than {} readings", kMaxReadings);
    readings.meters.push_back(*reading);
  }
  if (readings.instance == 0) return DataLoss("no line of mnemo-energy");
  return readings;
}

}  // namespace mnemo::energy
