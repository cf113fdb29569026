#include "server/memory/methods/cascade/cascade.h"

namespace mnemo::memory::methods {
namespace {

MethodSteps Steps(const AttentionSettings& settings, const MethodOptions&) {
  MethodSteps steps;
  steps.prepare.record_format = layout::kFormatCodes2;
  steps.retrieval.first_stage_tokens = settings.first_stage_tokens;
  return steps;
}

}  // namespace

const Method kCascade = {.id = AttentionSettings::Method::kCascade, .name = "cascade", .steps = Steps};

}  // namespace mnemo::memory::methods
