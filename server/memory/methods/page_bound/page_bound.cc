// Pages by an upper bound of query . key from the lowest and highest key element (LServe, Quest). A page of
// 64 takes the largest bound of its four logical pages of 16; a page's rank is the largest bound of its query
// group.
#include "proto/layout/record.h"
#include "server/memory/methods/method.h"

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

constinit const Method kPageBound = {
    .id = AttentionSettings::Method::kPageBound, .name = "page_bound", .selects_pages = true, .steps = Steps};

}  // namespace mnemo::memory::methods
