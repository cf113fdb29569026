#include "server/memory/methods/token_topk/token_topk.h"

namespace mnemo::memory::methods {
namespace {

MethodSteps Steps(const AttentionSettings& settings, const MethodOptions&) {
  MethodSteps steps;
  steps.prepare.record_format = settings.key_bits == 8   ? layout::kFormatCodes8
                                : settings.key_bits == 4 ? layout::kFormatCodes4
                                                         : layout::kFormatCodes2;
  return steps;
}

}  // namespace

const Method kTokenTopk = {.id = AttentionSettings::Method::kTokenTopk, .name = "token_topk", .steps = Steps};

}  // namespace mnemo::memory::methods
