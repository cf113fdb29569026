#include "server/memory/methods/settings.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

#include "devices/base/range.h"
#include "proto/layout/record.h"
#include "server/memory/methods/method.h"

namespace mnemo::memory::methods {
namespace {

constexpr int kMost = std::numeric_limits<int32_t>::max();
constexpr int kPageTokens = layout::kPageTokens;

absl::Status CheckGivenRange(std::string_view field, std::optional<int> value, int low, int high) {
  return value ? CheckFieldRange(field, *value, low, high) : absl::OkStatus();
}

absl::Status CheckKeyBits(int bits) {
  if (bits == 2 || bits == 4 || bits == 8) return absl::OkStatus();
  return InvalidArgument("attention.key_bits: {} is out of range; allowed: 2, 4 or 8", bits);
}

absl::Status CheckPlacement(AttentionSettings::Placement placement) {
  const int number = static_cast<int>(placement);
  const int last = static_cast<int>(AttentionSettings::Placement::kMemoryService);
  if (number >= 0 && number <= last) return absl::OkStatus();
  return InvalidArgument("attention.placement: {} is no known placement; allowed: [0, {}]", number, last);
}

// Least token budget: the tokens that are always attended to, and a page.
int LeastBudget(const AttentionSettings& settings) {
  return settings.keep_first + settings.keep_last + kPageTokens;
}

}  // namespace

absl::Status CheckMethod(AttentionSettings::Method id) {
  if (id == AttentionSettings::Method::kDense) return absl::OkStatus();
  const Method* const method = FindMethod(id);
  if (method == nullptr) {
    return InvalidArgument("attention.method: {} is no known method; see ListModels.attention_methods",
                           static_cast<int>(id));
  }
  if (method->weights.empty()) return absl::OkStatus();
  const std::optional<AttentionSettings::Method> other = MethodNamed(method->without_weights);
  return Unimplemented(
      "attention.method: {} needs the weights of {} for each layer, which the model file does not have{}",
      ProtocolName(id), method->weights, other ? fmt::format("; {} does without", ProtocolName(*other)) : "");
}

absl::Status CheckGiven(const GivenSettings& given) {
  if (given.threshold) {
    return InvalidArgument("attention.threshold: not used by {}; leave it out", ProtocolName(given.method));
  }
  MNEMO_RETURN_IF_ERROR(CheckGivenRange("attention.keep_first", given.keep_first, 0, kMaxKeepFirst));
  MNEMO_RETURN_IF_ERROR(CheckGivenRange("attention.keep_last", given.keep_last, 0, kMaxKeepLast));
  MNEMO_RETURN_IF_ERROR(
      CheckGivenRange("attention.reuse_interval", given.reuse_interval, 1, kMaxReuseInterval));
  // For other methods CheckSettings checks the bound, which depends on keep_first and keep_last.
  if (given.method == AttentionSettings::Method::kDense) {
    MNEMO_RETURN_IF_ERROR(CheckGivenRange("attention.token_budget", given.token_budget, kPageTokens, kMost));
  }
  MNEMO_RETURN_IF_ERROR(CheckGivenRange("attention.first_stage_tokens", given.first_stage_tokens, 1, kMost));
  MNEMO_RETURN_IF_ERROR(CheckPlacement(given.placement));
  return CheckKeyBits(given.key_bits.value_or(2));
}

absl::StatusOr<AttentionSettings> Resolve(const GivenSettings& given, const SettingsDefaults& defaults) {
  const Method* const method = FindMethod(given.method);
  MNEMO_CHECK(method != nullptr);
  AttentionSettings settings;
  settings.method = given.method;
  settings.placement = given.placement;
  settings.keep_first = given.keep_first.value_or(defaults.keep_first);
  settings.keep_last = given.keep_last.value_or(defaults.keep_last);
  settings.reuse_interval = given.reuse_interval.value_or(defaults.reuse_interval);
  settings.token_budget = given.token_budget.value_or(std::max(defaults.token_budget, LeastBudget(settings)));
  if (method->fill != nullptr) method->fill(given, defaults, &settings);
  MNEMO_RETURN_IF_ERROR(CheckSettings(settings));
  return settings;
}

absl::Status CheckSettings(const AttentionSettings& settings) {
  MNEMO_RETURN_IF_ERROR(CheckMethod(settings.method));
  const Method* const method = FindMethod(settings.method);
  if (method == nullptr) return absl::OkStatus();  // dense
  MNEMO_RETURN_IF_ERROR(CheckFieldRange("attention.keep_first", settings.keep_first, 0, kMaxKeepFirst));
  MNEMO_RETURN_IF_ERROR(CheckFieldRange("attention.keep_last", settings.keep_last, 0, kMaxKeepLast));
  MNEMO_RETURN_IF_ERROR(
      CheckFieldRange("attention.reuse_interval", settings.reuse_interval, 1, kMaxReuseInterval));
  if (const int least = LeastBudget(settings); settings.token_budget < least) {
    return InvalidArgument(
        "attention.token_budget: {} is out of range; allowed: [{}, {}], at least keep_first + keep_last + {}",
        settings.token_budget, least, kMost, kPageTokens);
  }
  MNEMO_RETURN_IF_ERROR(CheckPlacement(settings.placement));
  if (method->key_bits != KeyBits::kNone) MNEMO_RETURN_IF_ERROR(CheckKeyBits(settings.key_bits));
  return method->check == nullptr ? absl::OkStatus() : method->check(settings);
}

}  // namespace mnemo::memory::methods
