// What one request's attention is to be, every figure resolved by the front end.
#pragma once

#include <optional>
#include <string_view>

namespace mnemo::memory {

struct AttentionSettings {
  // Numbers of mnemo.v1.AttentionMethod.
  enum class Method { kDense = 1, kPageBound = 2, kBlockMean = 4, kTokenTopk = 6, kCascade = 7 };
  // Of prepare, relevancy and retrieval; numbers of mnemo.v1.Placement.
  enum class Placement { kAny = 0, kInline = 1, kMemoryService = 2 };

  Method method = Method::kDense;  // all that follows is for the other ones
  int token_budget = 0;            // tokens attended to, keep_first, keep_last and the open page included
  int keep_first = 0;              // oldest tokens always attended to
  int keep_last = 0;               // newest tokens always attended to, the open page besides
  int reuse_interval = 1;          // decode positions that share one selection
  int first_stage_tokens = 0;      // kCascade: tokens that pass the first stage
  int key_bits = 2;                // kTokenTopk and kCascade: of a stored key's element
  Placement placement = Placement::kAny;
};

// What the public protocol's comments allow; the least value of each is 0, of reuse_interval 1.
inline constexpr int kMaxKeepFirst = 1024;
inline constexpr int kMaxKeepLast = 4096;
inline constexpr int kMaxReuseInterval = 64;

// As configured and as reported: "token_topk". Empty for a number that is no method's.
std::string_view MethodName(AttentionSettings::Method method);
std::optional<AttentionSettings::Method> MethodNamed(std::string_view name);

}  // namespace mnemo::memory
