// Pages by the mean of their keys: the training-free form of SeerAttention-R. The softmax of the group is
// summed.
#include "proto/layout/record.h"
#include "server/memory/methods/method.h"

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

constinit const Method kBlockMean = {
    .id = AttentionSettings::Method::kBlockMean, .name = "block_mean", .selects_pages = true, .steps = Steps};

}  // namespace mnemo::memory::methods
