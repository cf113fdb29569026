#include "config/energy_texts.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <span>

namespace mnemo::config {
namespace {

constexpr int kMaxDevices = 1024;  // of one kind

// Watts are written without an exponent; joules of one byte mostly have one.
std::optional<double> ParseNumber(std::string_view text, std::chars_format format, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, format);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(number >= 0 && number <= most)) return std::nullopt;
  return number;
}

std::optional<double> ParseWatts(std::string_view text) {
  return ParseNumber(text, std::chars_format::fixed, kMaxWatts);
}

// A kind's name and a number without leading zeros.
bool IsDevice(std::string_view text, std::initializer_list<std::string_view> kinds) {
  for (const std::string_view kind : kinds) {
    if (!text.starts_with(kind)) continue;
    const std::string_view digits = text.substr(kind.size());
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error != std::errc() || end != digits.data() + digits.size()) continue;
    if (index < 0 || index >= kMaxDevices || digits != std::to_string(index)) continue;
    return true;
  }
  return false;
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.empty()) return words;
    const size_t length = std::min(text.find(' '), text.size());
    words.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
}

absl::StatusOr<ModelFigures> ParseFigures(const std::string& text) {
  const auto wrong = [&](std::string_view what) { return InvalidArgument("\"{}\" {}", text, what); };
  const std::vector<std::string_view> words = Words(text);
  if (words.size() < 3 || words.size() > 4) {
    return wrong(
        "does not have the form \"cpu0 idle=WATTS busy=WATTS\" or \"cpu0 idle=WATTS byte=JOULES "
        "operation=JOULES\"");
  }
  std::optional<double> idle, busy, byte, operation;
  for (const std::string_view word : std::span(words).subspan(1)) {
    const size_t equals = std::min(word.find('='), word.size());
    const std::string_view name = word.substr(0, equals);
    const std::string_view value = word.substr(std::min(equals + 1, word.size()));
    const bool is_power = name == "idle" || name == "busy";
    if (!is_power && name != "byte" && name != "operation") {
      return wrong("has a figure that is none of idle, busy, byte and operation");
    }
    std::optional<double>& figure = name == "idle"   ? idle
                                    : name == "busy" ? busy
                                    : name == "byte" ? byte
                                                     : operation;
    if (figure) return wrong("has a figure twice");
    figure = is_power ? ParseWatts(value) : ParseNumber(value, std::chars_format::general, kMaxWorkJoules);
    if (!figure && is_power) return wrong("has a figure that is no number of watts in [0, 100000]");
    if (!figure) return wrong("has a figure that is no number of joules in [0, 0.001]");
  }
  const bool counts_work = byte && operation && !busy;
  if (!idle || !(counts_work || (busy && !byte && !operation))) {
    return wrong("needs idle and busy, or idle, byte and operation");
  }
  if (counts_work && !IsDevice(words[0], {"cpu", "dram", "gpu", "fpga"})) {
    return wrong("names no device: cpuN, dramN, gpuN or fpgaN, N in [0, 1023]");
  }
  if (!counts_work && !IsDevice(words[0], {"cpu", "dram"})) {
    return wrong("names no device: cpuN or dramN, N in [0, 1023]");
  }
  if (!counts_work && (*busy < *idle || *busy == 0)) {
    return wrong("needs a busy figure above 0 and not below idle");
  }
  if (counts_work && *byte == 0 && *operation == 0) return wrong("needs a byte or an operation above 0");
  return ModelFigures{.device = std::string(words[0]),
                      .idle_watts = *idle,
                      .busy_watts = busy.value_or(0),
                      .joules_per_byte = byte.value_or(0),
                      .joules_per_operation = operation.value_or(0)};
}

}  // namespace

absl::Status CheckEnergySources(const std::vector<std::string>& texts) {
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    if (std::find(std::begin(kEnergySources), std::end(kEnergySources), text) == std::end(kEnergySources)) {
      return InvalidArgument("\"{}\" is no source", text);
    }
    if (!seen.insert(text).second) return InvalidArgument("\"{}\" is there twice", text);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DeviceWatts>> ParseIdleWatts(const std::vector<std::string>& texts) {
  std::vector<DeviceWatts> all;
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) return InvalidArgument("\"{}\" is not DEVICE=WATTS", text);
    const std::string device = text.substr(0, equals);
    if (!IsDevice(device, {"cpu", "dram", "gpu", "fpga"})) {
      return InvalidArgument("\"{}\" names no device: cpuN, dramN, gpuN or fpgaN, N in [0, 1023]", text);
    }
    const std::optional<double> watts = ParseWatts(std::string_view(text).substr(equals + 1));
    if (!watts) return InvalidArgument("\"{}\" has no number of watts in [0, 100000]", text);
    if (!seen.insert(device).second) return InvalidArgument("\"{}\" is there twice", device);
    all.push_back({device, *watts});
  }
  return all;
}

absl::StatusOr<std::vector<ModelFigures>> ParseEnergyModel(const std::vector<std::string>& texts) {
  std::vector<ModelFigures> all;
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    MNEMO_ASSIGN_OR_RETURN(ModelFigures figures, ParseFigures(text));
    if (!seen.insert(figures.device).second) {
      return InvalidArgument("\"{}\" is there twice", figures.device);
    }
    all.push_back(std::move(figures));
  }
  return all;
}

}  // namespace mnemo::config
