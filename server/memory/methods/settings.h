// Attention of one request: the fields of the request, the configured defaults, and the resulting settings.
#pragma once

#include <optional>

#include "devices/base/status.h"
#include "server/memory/methods/list.h"

namespace mnemo::memory::methods {

// Settings as sent to the worker: the front end has resolved every field.
struct AttentionSettings {
  // Numbers of mnemo.v1.AttentionMethod. A number that a peer sends may have no name here.
#define MNEMO_METHOD_ID(number, name) k##name = number,
  enum class Method { kDense = 1, MNEMO_MEMORY_METHODS(MNEMO_METHOD_ID) };
#undef MNEMO_METHOD_ID
  // Where prepare, relevancy and retrieval run; numbers of mnemo.v1.Placement.
  enum class Placement { kAny = 0, kInline = 1, kMemoryService = 2 };

  Method method = Method::kDense;  // kDense uses none of the fields below
  int token_budget = 0;            // tokens attended to, keep_first, keep_last and the open page included
  int keep_first = 0;              // oldest tokens always attended to
  int keep_last = 0;               // newest tokens always attended to, in addition to the open page
  int reuse_interval = 1;          // decode positions that share one selection
  int first_stage_tokens = 0;      // methods with two stages: tokens that pass the first stage
  int key_bits = 2;                // methods that store keys: bits of a key's element
  Placement placement = Placement::kAny;
};

// Upper bounds as in the comments of the public protocol. The least value is 0, and 1 for reuse_interval.
inline constexpr int kMaxKeepFirst = 1024;
inline constexpr int kMaxKeepLast = 4096;
inline constexpr int kMaxReuseInterval = 64;

// Fields of a request's `attention`; nullopt: the request leaves the field out.
struct GivenSettings {
  AttentionSettings::Method method = AttentionSettings::Method::kDense;
  std::optional<float> threshold;
  std::optional<int> token_budget;
  std::optional<int> keep_first;
  std::optional<int> keep_last;
  std::optional<int> reuse_interval;
  std::optional<int> first_stage_tokens;
  std::optional<int> key_bits;
  AttentionSettings::Placement placement = AttentionSettings::Placement::kAny;
};

// Configured values of the fields that a request may leave out.
struct SettingsDefaults {
  int token_budget = 0;
  int keep_first = 0;
  int keep_last = 0;
  int reuse_interval = 1;
  int first_stage_tokens = 0;  // 0: a multiple of the token budget
  int key_bits = 2;
};

// INVALID_ARGUMENT: `id` is no known method; UNIMPLEMENTED: the method needs weights that no model file has.
absl::Status CheckMethod(AttentionSettings::Method id);

// Checks the ranges of all given fields, including those that the method does not use, so that a client may
// set the same fields for all methods. INVALID_ARGUMENT names the field and the bound. A threshold is
// refused, since it is a different kind of selection and must not be ignored.
absl::Status CheckGiven(const GivenSettings& given);

// Settings of a known method other than dense: `given`, completed by `defaults`. The default token budget is
// raised to the tokens that the request keeps. Errors as CheckSettings.
absl::StatusOr<AttentionSettings> Resolve(const GivenSettings& given, const SettingsDefaults& defaults);

// Validates resolved settings, in the front end and in the worker. Dense settings are always valid. Errors as
// CheckMethod; INVALID_ARGUMENT names the field and the bound.
absl::Status CheckSettings(const AttentionSettings& settings);

}  // namespace mnemo::memory::methods
