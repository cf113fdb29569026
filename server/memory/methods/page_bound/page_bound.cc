#include "server/memory/methods/page_bound/page_bound.h"

#include "proto/layout/record.h"

namespace mnemo::memory::methods {
namespace {

MethodSteps Steps(const AttentionSettings&, const MethodOptions& options) {
  MethodSteps steps;
  steps.prepare.record_format = layout::kFormatBounds;
  steps.relevancy.score_op = layout::kScorePageBound;
  steps.relevancy.group_op = layout::kGroupPlainMax;
  steps.relevancy.pages_of_64 = options.entry_tokens == layout::kPageTokens;
  steps.apply.entry_tokens = options.entry_tokens;
  return steps;
}

}  // namespace

const Method kPageBound = {.id = AttentionSettings::Method::kPageBound, .name = "page_bound", .steps = Steps};

}  // namespace mnemo::memory::methods
