// Attention of one request: what the request says, what the configuration adds, and the settings that result.
#pragma once

#include <optional>

#include "devices/base/status.h"
#include "server/memory/methods/list.h"

namespace mnemo::memory::methods {

// Settings as the worker gets them: the front end has resolved every figure.
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
  int keep_last = 0;               // newest tokens always attended to, the open page besides
  int reuse_interval = 1;          // decode positions that share one selection
  int first_stage_tokens = 0;      // tokens that pass the first stage, of methods with two stages
  int key_bits = 2;                // bits of a stored key's element, of methods that use them
  Placement placement = Placement::kAny;
};

// Bounds as the public protocol's comments give them. The least value is 0, and 1 for reuse_interval.
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

// Ranges of the fields that are given, used by the method or not, so that a client may set them for all
// methods alike. INVALID_ARGUMENT names the field and the bound. A threshold is refused: it is a selection of
// its own, and to ignore it would pass off one kind of attention as another.
absl::Status CheckGiven(const GivenSettings& given);

// Settings of a known method other than dense: `given`, completed by `defaults`. A default gives way to what
// the request asks to keep. Errors as CheckSettings.
absl::StatusOr<AttentionSettings> Resolve(const GivenSettings& given, const SettingsDefaults& defaults);

// The validation of resolved settings, for front end and worker alike. Dense settings are always valid.
// Errors as CheckMethod; INVALID_ARGUMENT names the field and the bound.
absl::Status CheckSettings(const AttentionSettings& settings);

}  // namespace mnemo::memory::methods
