#include "server/memory/capabilities.h"

#include <catch2/catch.hpp>
#include <functional>

namespace mnemo::memory {
namespace {

using layout::AttachHello;
using Method = AttentionSettings::Method;

constexpr MemoryShape kShape = {.layers = 2, .kv_heads = 3, .group = 4, .head_dim = 64, .softmax_scale = 1};
constexpr int kTokens = 4096;

AttachHello Everything() {
  AttachHello granted{};
  granted.ops = granted.formats = ~0U;
  granted.score_ops = granted.group_ops = granted.select_ops = 0xFF;
  granted.cascade = 1;
  granted.dims = 0xFFFF;
  granted.max_group = 4;
  granted.max_heads = 3;
  granted.max_tokens = kTokens;
  return granted;
}

Needs Of(Method method, uint32_t kv_format = 0) {
  const AttentionSettings settings = {.method = method, .token_budget = 512, .first_stage_tokens = 1024};
  return NeedsOf(methods::FindMethod(method)->steps(settings, {}), kShape, kv_format, kTokens);
}

std::string Without(const Needs& needs, const std::function<void(AttachHello*)>& change) {
  AttachHello granted = Everything();
  change(&granted);
  return MissingOf(needs, granted);
}

void Clear(uint32_t* mask, int bit) { *mask &= ~(1U << bit); }

TEST_CASE("nothing is missing where everything is granted, to the last of each limit") {
  for (const methods::Method* method : methods::Methods()) {
    if (method->weights.empty())
      CHECK(MissingOf(Of(method->id, layout::kFormatScaledKeys), Everything()).empty());
  }
}

TEST_CASE("a method lacks what its own steps use, and nothing else") {
  CHECK(Without(Of(Method::kBlockMean), [](auto* g) { Clear(&g->formats, layout::kFormatMeans); }) ==
        "format MEANS");
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { Clear(&g->formats, layout::kFormatMeans); }).empty());
  const auto no_page_bound = [](auto* g) {
    g->score_ops = static_cast<uint8_t>(g->score_ops & ~(1U << layout::kScorePageBound));
  };
  CHECK(Without(Of(Method::kPageBound), no_page_bound) == "score operation PAGE_BOUND");
  CHECK(Without(Of(Method::kCascade), no_page_bound).empty());
  const auto no_sum = [](auto* g) {
    g->group_ops = static_cast<uint8_t>(g->group_ops & ~(1U << layout::kGroupExp2Sum));
  };
  CHECK(Without(Of(Method::kBlockMean), no_sum) == "group operation EXP2_SUM");
  CHECK(Without(Of(Method::kPageBound), no_sum).empty());
  CHECK(Without(Of(Method::kCascade), [](auto* g) { g->cascade = 0; }) == "selection in two stages");
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { g->cascade = 0; }).empty());
}

TEST_CASE("keys and values that are to be kept need their operations and their format") {
  const auto no_gather = [](auto* g) {
    Clear(&g->ops, layout::kOpGather);
    Clear(&g->ops, layout::kOpKvStore);
    Clear(&g->formats, layout::kFormatScaledBytes);
  };
  CHECK(Without(Of(Method::kTokenTopk), no_gather).empty());
  CHECK(Without(Of(Method::kTokenTopk, layout::kFormatScaledBytes), no_gather) ==
        "operation KV_STORE, operation GATHER and format SCALED_BYTES");
}

TEST_CASE("limits that are too low are named with what is granted") {
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { g->max_group = 3; }) ==
        "groups of 4 query heads (it takes 3)");
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { g->max_heads = 2; }) == "3 KV heads (it takes 2)");
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { g->max_tokens = 4095; }) ==
        "indexes of 4096 tokens (it takes 4095)");
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { g->dims = 32; }) == "heads of 64 dimensions");
  CHECK(Without(Of(Method::kTokenTopk), [](auto* g) { g->select_ops = 0; }) == "select operation TOP_K");
}

}  // namespace
}  // namespace mnemo::memory
