#include "server/memory/position_plan.h"

#include <algorithm>

#include "proto/layout/record.h"

namespace mnemo::memory {
namespace {

int RoundDown(int x, int unit) { return x / unit * unit; }
int RoundUp(int x, int unit) { return (x + unit - 1) / unit * unit; }

}  // namespace

PositionPlan PlanPosition(const AttentionSettings& settings, const methods::MethodSteps& steps, int position,
                          int decode_begin) {
  const int interval = settings.reuse_interval;
  const int entry = steps.apply.entry_tokens;
  PositionPlan plan;
  plan.anchor = std::max(RoundDown(position, interval), decode_begin);
  plan.dense = plan.anchor + 1 <= settings.token_budget;
  plan.first_end = RoundUp(settings.keep_first, entry);
  plan.begin = plan.first_end;
  // The page that the anchor's own key completes is not in the index yet when the anchor is computed.
  plan.end = std::max(RoundDown(plan.anchor - settings.keep_last, layout::kPageTokens), 0);
  if (plan.end <= plan.begin) plan.end = plan.begin;
  plan.tail_begin = plan.end;
  const int last = RoundDown(position, interval) + interval - 1;
  const int room = settings.token_budget - plan.first_end - (last + 1 - plan.tail_begin);
  const int entries = (plan.end - plan.begin) / entry;
  plan.k = std::clamp(room / entry, 0, entries);
  if (room < 0) {
    // Not even what is attended to without being selected fits: what keep_first was rounded up by goes, then
    // the oldest of the tail. The budget has room for 64 besides what is kept, and an interval is no longer.
    plan.first_end = settings.keep_first;
    const int fits = last + 1 - (settings.token_budget - plan.first_end);
    plan.tail_begin =
        std::max({RoundDown(plan.anchor - settings.keep_last, layout::kPageTokens), plan.first_end, fits});
  }
  if (steps.retrieval.first_stage_tokens > 0) {
    plan.k1 = std::max(std::min(steps.retrieval.first_stage_tokens, entries), plan.k);
  }
  return plan;
}

}  // namespace mnemo::memory
