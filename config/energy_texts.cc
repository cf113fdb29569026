#include "config/energy_texts.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

namespace mnemo::config {
namespace {

constexpr int kMaxDevices = 1024;  // of one kind

std::optional<double> ParseWatts(std::string_view text) {
  double watts = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), watts, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(watts >= 0 && watts <= kMaxWatts)) return std::nullopt;
  return watts;
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
  if (words.size() != 3) return wrong("does not have the form \"cpu0 idle=WATTS busy=WATTS\"");
  ModelFigures figures;
  figures.device = std::string(words[0]);
  if (!IsDevice(words[0], {"cpu", "dram"})) return wrong("names no device: cpuN or dramN, N in [0, 1023]");
  bool has_idle = false, has_busy = false;
  for (const std::string_view word : {words[1], words[2]}) {
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    const std::optional<double> watts =
        equals == std::string_view::npos ? std::nullopt : ParseWatts(word.substr(equals + 1));
    if (name != "idle" && name != "busy") return wrong("has a figure that is neither idle nor busy");
    if (!watts) return wrong("has a figure that is no number of watts in [0, 100000]");
    (name == "idle" ? figures.idle_watts : figures.busy_watts) = *watts;
    (name == "idle" ? has_idle : has_busy) = true;
  }
  if (!has_idle || !has_busy) return wrong("needs idle and busy");
  if (figures.busy_watts < figures.idle_watts || figures.busy_watts == 0) {
    return wrong("needs a busy figure above 0 and not below idle");
  }
  return figures;
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
