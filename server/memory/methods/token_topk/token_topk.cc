// Keys of 2, 4 or 8 bits, rotated and centred on their page; the very tokens that the query group ranks
// highest.
#include "server/memory/methods/method.h"

namespace mnemo::memory::methods {
namespace {

MethodSteps Steps(const AttentionSettings& settings, const MethodOptions&) {
  MethodSteps steps;
  steps.prepare.record_format = settings.key_bits == 8   ? layout::kFormatCodes8
                                : settings.key_bits == 4 ? layout::kFormatCodes4
                                                         : layout::kFormatCodes2;
  return steps;
}

void Fill(const GivenSettings& given, const SettingsDefaults& defaults, AttentionSettings* settings) {
  settings->key_bits = given.key_bits.value_or(defaults.key_bits);
}

}  // namespace

constinit const Method kTokenTopk = {.id = AttentionSettings::Method::kTokenTopk,
                                     .name = "token_topk",
                                     .key_bits = KeyBits::kChosen,
                                     .steps = Steps,
                                     .fill = Fill};

}  // namespace mnemo::memory::methods
