#include "server/memory/method.h"

#include <algorithm>
#include <array>

#include "proto/layout/record.h"
#include "server/memory/methods/block_mean/block_mean.h"
#include "server/memory/methods/cascade/cascade.h"
#include "server/memory/methods/page_bound/page_bound.h"
#include "server/memory/methods/token_topk/token_topk.h"

namespace mnemo::memory {
namespace {

constexpr std::array<const Method*, 4> kMethods = {&methods::kTokenTopk, &methods::kCascade,
                                                   &methods::kPageBound, &methods::kBlockMean};

int RoundDown(int x, int unit) { return x / unit * unit; }
int RoundUp(int x, int unit) { return (x + unit - 1) / unit * unit; }

absl::Status CheckRange(std::string_view field, int value, int low, int high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("attention.{} is {}; allowed: {} to {}", field, value, low, high);
}

}  // namespace

std::span<const Method* const> Methods() { return kMethods; }

const Method* FindMethod(AttentionSettings::Method id) {
  const auto found =
      std::find_if(kMethods.begin(), kMethods.end(), [id](const Method* m) { return m->id == id; });
  return found == kMethods.end() ? nullptr : *found;
}

PositionPlan PlanPosition(const AttentionSettings& settings, const MethodSteps& steps, int position,
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

absl::Status CheckSettings(const AttentionSettings& settings, const MemoryShape& shape) {
  using M = AttentionSettings::Method;
  if (settings.method == M::kDense) return absl::OkStatus();
  if (FindMethod(settings.method) == nullptr) {
    return Unimplemented("attention.method {} is not known to this worker",
                         static_cast<int>(settings.method));
  }
  if (shape.layers == 0) {
    return Unimplemented("attention.method: the model has no layer that could attend to a selection");
  }
  if (!layout::IsIndexDim(static_cast<uint32_t>(shape.head_dim))) {
    return Unimplemented(
        "attention.method: the model's heads have {} dimensions; an index takes powers of two from {} to {}",
        shape.head_dim, static_cast<int>(layout::kMinDim), static_cast<int>(layout::kMaxDim));
  }
  MNEMO_RETURN_IF_ERROR(CheckRange("keep_first", settings.keep_first, 0, kMaxKeepFirst));
  MNEMO_RETURN_IF_ERROR(CheckRange("keep_last", settings.keep_last, 0, kMaxKeepLast));
  MNEMO_RETURN_IF_ERROR(CheckRange("reuse_interval", settings.reuse_interval, 1, kMaxReuseInterval));
  const int least = settings.keep_first + settings.keep_last + layout::kPageTokens;
  if (settings.token_budget < least) {
    return InvalidArgument("attention.token_budget is {}; allowed: at least {}, keep_first + keep_last + {}",
                           settings.token_budget, least, static_cast<int>(layout::kPageTokens));
  }
  const bool has_codes = settings.method == M::kTokenTopk || settings.method == M::kCascade;
  if (has_codes && settings.key_bits != 2 && settings.key_bits != 4 && settings.key_bits != 8) {
    return InvalidArgument("attention.key_bits is {}; allowed: 2, 4 or 8", settings.key_bits);
  }
  if (settings.method == M::kCascade) {
    if (settings.key_bits != 2) {
      return InvalidArgument(
          "attention.key_bits is {}; allowed with CASCADE: 2, as its first stage reads the plane of signs",
          settings.key_bits);
    }
    if (settings.first_stage_tokens < settings.token_budget) {
      return InvalidArgument("attention.first_stage_tokens is {}; allowed: at least {}, token_budget",
                             settings.first_stage_tokens, settings.token_budget);
    }
  }
  return absl::OkStatus();
}

}  // namespace mnemo::memory
