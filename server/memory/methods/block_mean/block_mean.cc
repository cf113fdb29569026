#include "server/memory/methods/block_mean/block_mean.h"

#include "proto/layout/record.h"

namespace mnemo::memory::methods {
namespace {

MethodSteps Steps(const AttentionSettings&, const MethodOptions& options) {
  MethodSteps steps;
  steps.prepare.record_format = layout::kFormatMeans;
  steps.relevancy.score_op = layout::kScoreBlockMean;
  steps.relevancy.group_op = layout::kGroupExp2Sum;
  steps.relevancy.pages_of_64 = options.entry_tokens == layout::kPageTokens;
  steps.apply.entry_tokens = options.entry_tokens;
  return steps;
}

}  // namespace

const Method kBlockMean = {.id = AttentionSettings::Method::kBlockMean, .name = "block_mean", .steps = Steps};

}  // namespace mnemo::memory::methods
