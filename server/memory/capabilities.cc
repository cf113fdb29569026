#include "server/memory/capabilities.h"

#include <bit>
#include <span>
#include <string_view>
#include <vector>

#include "proto/layout/descriptor.h"

namespace mnemo::memory {
namespace {

struct Name {
  int value;
  std::string_view name;
};

constexpr Name kOps[] = {{layout::kOpCreate, "CREATE"},
                         {layout::kOpAppend, "APPEND"},
                         {layout::kOpFork, "FORK"},
                         {layout::kOpTruncate, "TRUNCATE"},
                         {layout::kOpFree, "FREE"},
                         {layout::kOpKvStore, "KV_STORE"},
                         {layout::kOpScoreSelect, "SCORE_SELECT"},
                         {layout::kOpGather, "GATHER"},
                         {layout::kOpScoreGather, "SCORE_GATHER"}};
constexpr Name kFormats[] = {{layout::kFormatCodes2, "CODES2"},
                             {layout::kFormatCodes4, "CODES4"},
                             {layout::kFormatCodes8, "CODES8"},
                             {layout::kFormatBounds, "BOUNDS"},
                             {layout::kFormatMeans, "MEANS"},
                             {layout::kFormatF16, "F16"},
                             {layout::kFormatBf16, "BF16"},
                             {layout::kFormatF32, "F32"},
                             {layout::kFormatScaledKeys, "SCALED_KEYS"},
                             {layout::kFormatScaledBytes, "SCALED_BYTES"}};
constexpr Name kScoreOps[] = {{layout::kScoreDot, "DOT"},
                              {layout::kScoreReluDot, "RELU_DOT"},
                              {layout::kScorePageBound, "PAGE_BOUND"},
                              {layout::kScoreBlockMean, "BLOCK_MEAN"}};
constexpr Name kGroupOps[] = {{layout::kGroupNone, "NONE"},
                              {layout::kGroupMax, "MAX"},
                              {layout::kGroupExp2Sum, "EXP2_SUM"},
                              {layout::kGroupPlainMax, "PLAIN_MAX"}};
constexpr Name kSelectOps[] = {{layout::kSelectTopK, "TOP_K"},
                               {layout::kSelectThreshold, "THRESHOLD"},
                               {layout::kSelectWeightedSum, "WEIGHTED_SUM"},
                               {layout::kSelectLatest, "LATEST"}};

constexpr uint32_t Bit(uint32_t n) { return uint32_t{1} << n; }

void AddMissing(std::string_view kind, uint32_t needed, uint32_t granted, std::span<const Name> names,
                std::vector<std::string>* missing) {
  for (const auto& [value, name] : names) {
    if ((needed & ~granted & Bit(static_cast<uint32_t>(value))) != 0)
      missing->push_back(fmt::format("{} {}", kind, name));
  }
}

}  // namespace

Needs NeedsOf(const MemoryShape& shape, uint32_t kv_format) {
  Needs needs;
  needs.ops = Bit(layout::kOpCreate) | Bit(layout::kOpAppend) | Bit(layout::kOpFork) | Bit(layout::kOpFree) |
              Bit(layout::kOpScoreSelect);
  needs.formats = Bit(layout::kFormatF32);  // keys are sent to an index in this format
  needs.select_ops = Bit(layout::kSelectTopK);
  needs.head_dim = shape.head_dim;
  needs.group = shape.group;
  needs.kv_heads = shape.kv_heads;
  if (kv_format != 0) {
    needs.ops |= Bit(layout::kOpKvStore) | Bit(layout::kOpGather);
    needs.formats |= Bit(kv_format);
  }
  return needs;
}

Needs NeedsOf(const methods::MethodSteps& steps, const MemoryShape& shape, uint32_t kv_format, int tokens) {
  Needs needs = NeedsOf(shape, kv_format);
  needs.formats |= Bit(steps.prepare.record_format);
  needs.score_ops = Bit(steps.relevancy.score_op);
  needs.group_ops = Bit(steps.relevancy.group_op);
  needs.two_stages = steps.retrieval.first_stage_tokens > 0;
  needs.tokens = tokens;
  return needs;
}

std::string MissingOf(const Needs& needs, const layout::AttachHello& granted) {
  std::vector<std::string> missing;
  AddMissing("operation", needs.ops, granted.ops, kOps, &missing);
  AddMissing("format", needs.formats, granted.formats, kFormats, &missing);
  AddMissing("score operation", needs.score_ops, granted.score_ops, kScoreOps, &missing);
  AddMissing("group operation", needs.group_ops, granted.group_ops, kGroupOps, &missing);
  AddMissing("select operation", needs.select_ops, granted.select_ops, kSelectOps, &missing);
  if (needs.two_stages && granted.cascade == 0) missing.emplace_back("selection in two stages");
  if ((granted.dims >> std::countr_zero(static_cast<unsigned>(needs.head_dim)) & 1) == 0)
    missing.push_back(fmt::format("heads of {} dimensions", needs.head_dim));
  const auto at_most = [&missing](std::string_view what, int64_t needed, int64_t allowed) {
    if (needed > allowed)
      missing.push_back(fmt::format("{} (it takes {})", fmt::format(fmt::runtime(what), needed), allowed));
  };
  at_most("groups of {} query heads", needs.group, granted.max_group);
  at_most("{} KV heads", needs.kv_heads, granted.max_heads);
  at_most("indexes of {} tokens", needs.tokens, granted.max_tokens);
  return methods::Joined({missing.begin(), missing.end()}, "and");
}

}  // namespace mnemo::memory
