#include "server/frontend/attention_check.h"

#include <algorithm>
#include <limits>
#include <string_view>

namespace mnemo::frontend {
namespace {

using Method = memory::AttentionSettings::Method;

// What an index takes: the Hadamard transform needs powers of two (proto/layout/record.h).
constexpr int kMinHeadDim = 16;
constexpr int kMaxHeadDim = 512;
constexpr int kPageTokens = 64;
constexpr int kFirstStageFactor = 4;

absl::Status CheckRange(std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("attention.{}: {} is out of range; allowed: [{}, {}]", field, value, low, high);
}

v1::AttentionMethod Public(Method method) { return static_cast<v1::AttentionMethod>(method); }

// To ignore a field would pass off one kind of attention as another.
absl::Status Unused(std::string_view field, Method method) {
  return InvalidArgument("attention.{}: not used by {}; leave it out", field,
                         v1::AttentionMethod_Name(Public(method)));
}

absl::StatusOr<Method> ChooseMethod(const v1::GenerateRequest& request, const AttentionServing& serving) {
  const v1::AttentionMethod method = request.attention().method();
  switch (method) {
    case v1::ATTENTION_METHOD_UNSPECIFIED: {
      const std::string& name =
          request.has_attention() ? serving.defaults.sparse_method : serving.defaults.default_method;
      const std::optional<Method> known = memory::MethodNamed(name);
      if (!known) return Internal("attention: the configured method {} is unknown", name);
      return *known;
    }
    case v1::ATTENTION_METHOD_DENSE:
    case v1::ATTENTION_METHOD_PAGE_BOUND:
    case v1::ATTENTION_METHOD_BLOCK_MEAN:
    case v1::ATTENTION_METHOD_TOKEN_TOPK:
    case v1::ATTENTION_METHOD_CASCADE:
      return static_cast<Method>(method);
    case v1::ATTENTION_METHOD_BLOCK_GATE:
      return Unimplemented(
          "attention.method: ATTENTION_METHOD_BLOCK_GATE needs the weights of a trained gate for each layer, "
          "which the model file does not have; ATTENTION_METHOD_BLOCK_MEAN does without");
    case v1::ATTENTION_METHOD_TOKEN_INDEXER:
      return Unimplemented(
          "attention.method: ATTENTION_METHOD_TOKEN_INDEXER needs the weights of a trained indexer for each "
          "layer, which the model file does not have; ATTENTION_METHOD_TOKEN_TOPK does without");
    default:
      return InvalidArgument("attention.method: {} is no known method; see ListModels.attention_methods",
                             static_cast<int>(method));
  }
}

// A threshold is a selection of its own, so that leaving it out would pass off one kind of attention as
// another. Other fields mean nothing to methods that do not use them: a client may set them for all methods
// alike. Their ranges are checked anyway.
absl::Status CheckGiven(const v1::Attention& in, Method method) {
  if (in.has_threshold()) return Unused("threshold", method);
  if (in.has_keep_first())
    MNEMO_RETURN_IF_ERROR(CheckRange("keep_first", in.keep_first(), 0, memory::kMaxKeepFirst));
  if (in.has_keep_last())
    MNEMO_RETURN_IF_ERROR(CheckRange("keep_last", in.keep_last(), 0, memory::kMaxKeepLast));
  if (in.has_reuse_interval()) {
    MNEMO_RETURN_IF_ERROR(CheckRange("reuse_interval", in.reuse_interval(), 1, memory::kMaxReuseInterval));
  }
  // Of other methods FillBudget tells it, whose bound depends on what is kept.
  if (in.has_token_budget() && method == Method::kDense) {
    MNEMO_RETURN_IF_ERROR(
        CheckRange("token_budget", in.token_budget(), kPageTokens, std::numeric_limits<int32_t>::max()));
  }
  if (in.has_first_stage_tokens()) {
    MNEMO_RETURN_IF_ERROR(
        CheckRange("first_stage_tokens", in.first_stage_tokens(), 1, std::numeric_limits<int32_t>::max()));
  }
  if (!v1::Placement_IsValid(in.placement())) {
    return InvalidArgument("attention.placement: {} is no known placement; allowed: [0, {}]",
                           static_cast<int>(in.placement()), static_cast<int>(v1::Placement_MAX));
  }
  const int bits = in.has_key_bits() ? in.key_bits() : 2;
  if (bits != 2 && bits != 4 && bits != 8) {
    return InvalidArgument("attention.key_bits: {} is out of range; allowed: 2, 4 or 8", bits);
  }
  return absl::OkStatus();
}

absl::Status CheckPlacement(v1::Placement placement, const AttentionServing& serving) {
  if (placement == v1::PLACEMENT_MEMORY_SERVICE && !serving.has_memory_service) {
    return FailedPrecondition(
        "attention.placement: PLACEMENT_MEMORY_SERVICE, and no memory service is configured (memory.services "
        "is 0 and memory.addresses empty)");
  }
  return absl::OkStatus();
}

absl::Status FillBudget(const v1::Attention& in, const config::Config::Attention& defaults,
                        internal::v1::Attention* out) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  out->set_keep_first(in.has_keep_first() ? in.keep_first() : defaults.keep_first);
  out->set_keep_last(in.has_keep_last() ? in.keep_last() : defaults.keep_last);
  out->set_reuse_interval(in.has_reuse_interval() ? in.reuse_interval() : defaults.reuse_interval);
  MNEMO_RETURN_IF_ERROR(CheckRange("keep_first", out->keep_first(), 0, memory::kMaxKeepFirst));
  MNEMO_RETURN_IF_ERROR(CheckRange("keep_last", out->keep_last(), 0, memory::kMaxKeepLast));
  MNEMO_RETURN_IF_ERROR(CheckRange("reuse_interval", out->reuse_interval(), 1, memory::kMaxReuseInterval));
  const int least = out->keep_first() + out->keep_last() + kPageTokens;
  // A default gives way to what the request asks to keep; what the request says itself is checked.
  out->set_token_budget(in.has_token_budget() ? in.token_budget() : std::max(defaults.token_budget, least));
  if (out->token_budget() < least) {
    return InvalidArgument(
        "attention.token_budget: {} is out of range; allowed: [{}, {}], at least keep_first + keep_last + {}",
        out->token_budget(), least, kMost, kPageTokens);
  }
  return absl::OkStatus();
}

absl::Status FillStages(const v1::Attention& in, const config::Config::Attention& defaults, Method method,
                        internal::v1::Attention* out) {
  if (method == Method::kTokenTopk) {
    out->set_key_bits(in.has_key_bits() ? in.key_bits() : defaults.key_bits);
  } else if (method == Method::kCascade) {
    out->set_key_bits(in.has_key_bits() ? in.key_bits() : 2);
  } else {
    return absl::OkStatus();
  }
  if (out->key_bits() != 2 && out->key_bits() != 4 && out->key_bits() != 8) {
    return InvalidArgument("attention.key_bits: {} is out of range; allowed: 2, 4 or 8", out->key_bits());
  }
  if (method != Method::kCascade) return absl::OkStatus();
  if (out->key_bits() != 2) {
    return InvalidArgument(
        "attention.key_bits: {} is out of range with {}; allowed: 2, as its first stage reads the plane of "
        "signs, which keys of 4 and 8 bits do not have",
        out->key_bits(), v1::AttentionMethod_Name(Public(method)));
  }
  const int64_t budget = out->token_budget();
  int64_t first = in.first_stage_tokens();
  if (!in.has_first_stage_tokens()) {
    first = defaults.first_stage_tokens > 0 ? std::max<int64_t>(defaults.first_stage_tokens, budget)
                                            : kFirstStageFactor * budget;
    first = std::min<int64_t>(first, std::numeric_limits<int32_t>::max());
  }
  if (first < budget) {
    return InvalidArgument(
        "attention.first_stage_tokens: {} is out of range; allowed: [{}, {}], at least token_budget", first,
        budget, std::numeric_limits<int32_t>::max());
  }
  out->set_first_stage_tokens(static_cast<int32_t>(first));
  return absl::OkStatus();
}

std::string WhyDenseOnly(const model::ModelConfig& model, int dense_layers) {
  const bool is_power_of_two = model.head_dim > 0 && (model.head_dim & (model.head_dim - 1)) == 0;
  if (!is_power_of_two || model.head_dim < kMinHeadDim || model.head_dim > kMaxHeadDim) {
    return fmt::format("its heads have {} dimensions, and an index takes powers of two from {} to {}",
                       model.head_dim, kMinHeadDim, kMaxHeadDim);
  }
  const auto windowed = std::count(model.layer_is_windowed.begin(), model.layer_is_windowed.end(), true);
  const int full = model.layers - static_cast<int>(windowed);
  if (full <= dense_layers) {
    return fmt::format("its {} full-attention layers are within attention.dense_layers, {}", full,
                       dense_layers);
  }
  return "";
}

}  // namespace

AttentionServing MakeAttentionServing(const config::Config& config, const model::ModelConfig& model) {
  AttentionServing serving;
  serving.defaults = config.attention;
  serving.has_memory_service = config.memory.service_count() > 0 || !config.workers.addresses.empty();
  serving.why_dense_only = WhyDenseOnly(model, config.attention.dense_layers);
  return serving;
}

absl::Status CheckDefaultMethod(const AttentionServing& serving) {
  if (serving.defaults.default_method == memory::MethodName(Method::kDense) ||
      serving.why_dense_only.empty()) {
    return absl::OkStatus();
  }
  return InvalidArgument("attention.default_method: {} does not work with the model: {}",
                         serving.defaults.default_method, serving.why_dense_only);
}

absl::Status FillAttention(const v1::GenerateRequest& request, const AttentionServing& serving,
                           internal::v1::Submit* out) {
  MNEMO_ASSIGN_OR_RETURN(const Method method, ChooseMethod(request, serving));
  const v1::Attention& in = request.attention();
  MNEMO_RETURN_IF_ERROR(CheckGiven(in, method));
  if (method == Method::kDense) return absl::OkStatus();
  if (!serving.why_dense_only.empty()) {
    return Unimplemented(
        "attention.method: {} does not work with the model: {}; available: "
        "ATTENTION_METHOD_DENSE",
        v1::AttentionMethod_Name(Public(method)), serving.why_dense_only);
  }
  MNEMO_RETURN_IF_ERROR(CheckPlacement(in.placement(), serving));
  internal::v1::Attention* attention = out->mutable_attention();
  attention->set_method(static_cast<int32_t>(method));
  attention->set_placement(static_cast<int32_t>(in.placement()));
  MNEMO_RETURN_IF_ERROR(FillBudget(in, serving.defaults, attention));
  return FillStages(in, serving.defaults, method, attention);
}

}  // namespace mnemo::frontend
