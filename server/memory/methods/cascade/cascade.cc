// token_topk at half the bytes: bases and sign planes keep first_stage_tokens, all planes rank these.
#include <algorithm>
#include <limits>

#include "server/memory/methods/method.h"

namespace mnemo::memory::methods {
namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
constexpr int64_t kFirstStageFactor = 4;

MethodSteps Steps(const AttentionSettings& settings, const MethodOptions&) {
  MethodSteps steps;
  steps.prepare.record_format = layout::kFormatCodes2;
  steps.retrieval.first_stage_tokens = settings.first_stage_tokens;
  return steps;
}

void Fill(const GivenSettings& given, const SettingsDefaults& defaults, AttentionSettings* settings) {
  settings->key_bits = given.key_bits.value_or(2);
  const int64_t budget = settings->token_budget;
  const int64_t usual = defaults.first_stage_tokens > 0
                            ? std::max<int64_t>(defaults.first_stage_tokens, budget)
                            : kFirstStageFactor * budget;
  settings->first_stage_tokens =
      given.first_stage_tokens.value_or(static_cast<int>(std::clamp<int64_t>(usual, 0, kMost)));
}

absl::Status Check(const AttentionSettings& settings) {
  if (settings.key_bits != 2) {
    return InvalidArgument(
        "attention.key_bits: {} is out of range with {}; allowed: 2, as its first stage reads the plane of "
        "signs, which keys of 4 and 8 bits do not have",
        settings.key_bits, ProtocolName(settings.method));
  }
  if (settings.first_stage_tokens < settings.token_budget) {
    return InvalidArgument(
        "attention.first_stage_tokens: {} is out of range; allowed: [{}, {}], at least token_budget",
        settings.first_stage_tokens, settings.token_budget, kMost);
  }
  return absl::OkStatus();
}

}  // namespace

constinit const Method kCascade = {.id = AttentionSettings::Method::kCascade,
                                   .name = "cascade",
                                   .key_bits = KeyBits::kFixed,
                                   .two_stages = true,
                                   .steps = Steps,
                                   .fill = Fill,
                                   .check = Check};

}  // namespace mnemo::memory::methods
