#include "devices/energy/xrt.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

namespace mnemo::energy {
namespace {

constexpr double kMaxCardWatts = 1000;
constexpr char kField[] = "power_consumption_watts";

class ElectricalCounter : public Counter {
 public:
  ElectricalCounter(int index, std::function<absl::StatusOr<std::string>()> read) : read_(std::move(read)) {
    info_.device = {DeviceKind::kFpga, index, "xrt"};
    info_.is_power = true;
    info_.max_watts = kMaxCardWatts;
  }
  const CounterInfo& info() const override { return info_; }
  absl::StatusOr<RawReading> Read() override {
    MNEMO_ASSIGN_OR_RETURN(const std::string json, read_());
    MNEMO_ASSIGN_OR_RETURN(const double watts, ParseElectricalWatts(json));
    return RawReading{.watts = watts};
  }

 private:
  const std::function<absl::StatusOr<std::string>()> read_;
  CounterInfo info_;
};

}  // namespace

absl::StatusOr<double> ParseElectricalWatts(const std::string& json) {
  const nlohmann::json root = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return DataLoss("electrical of XRT is no JSON object");
  const auto field = root.find(kField);
  if (field == root.end()) return Unimplemented("electrical of XRT has no {}", kField);
  // XRT writes numbers as texts.
  if (field->is_number()) return field->get<double>();
  if (!field->is_string()) return DataLoss("{} of XRT is neither a number nor a text", kField);
  const auto& text = field->get_ref<const std::string&>();
  if (text == "N/A") return Unimplemented("{} of XRT is N/A", kField);
  double watts = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), watts);
  if (error != std::errc() || end != text.data() + text.size()) {
    return DataLoss("{} of XRT is \"{}\"", kField, text);
  }
  return watts;
}

std::unique_ptr<Counter> MakeElectricalCounter(int index, std::function<absl::StatusOr<std::string>()> read) {
  return std::make_unique<ElectricalCounter>(index, std::move(read));
}

}  // namespace mnemo::energy
