#include "server/frontend/attention_check.h"

#include <string_view>

#include "server/memory/indexed_layers.h"
#include "server/memory/methods/method.h"

namespace mnemo::frontend {
namespace {

namespace methods = memory::methods;
using Method = memory::AttentionSettings::Method;
using Placement = memory::AttentionSettings::Placement;

absl::StatusOr<Method> ChooseMethod(const v1::GenerateRequest& request, const AttentionServing& serving) {
  if (request.attention().method() != v1::ATTENTION_METHOD_UNSPECIFIED) {
    const auto method = static_cast<Method>(request.attention().method());
    MNEMO_RETURN_IF_ERROR(methods::CheckMethod(method));
    return method;
  }
  const std::string& name =
      request.has_attention() ? serving.defaults.sparse_method : serving.defaults.default_method;
  const std::optional<Method> known = methods::MethodNamed(name);
  if (!known) return Internal("attention: the configured method {} is unknown", name);
  return *known;
}

methods::GivenSettings GivenOf(const v1::Attention& in, Method method) {
  methods::GivenSettings given;
  given.method = method;
  given.placement = static_cast<Placement>(in.placement());
  if (in.has_threshold()) given.threshold = in.threshold();
  if (in.has_token_budget()) given.token_budget = in.token_budget();
  if (in.has_keep_first()) given.keep_first = in.keep_first();
  if (in.has_keep_last()) given.keep_last = in.keep_last();
  if (in.has_reuse_interval()) given.reuse_interval = in.reuse_interval();
  if (in.has_first_stage_tokens()) given.first_stage_tokens = in.first_stage_tokens();
  if (in.has_key_bits()) given.key_bits = in.key_bits();
  return given;
}

methods::SettingsDefaults DefaultsOf(const config::Config::Attention& configured) {
  return {.token_budget = configured.token_budget,
          .keep_first = configured.keep_first,
          .keep_last = configured.keep_last,
          .reuse_interval = configured.reuse_interval,
          .first_stage_tokens = configured.first_stage_tokens,
          .key_bits = configured.key_bits};
}

absl::Status CheckPlacement(Placement placement, const AttentionServing& serving) {
  if (placement == Placement::kMemoryService && !serving.has_memory_service) {
    return FailedPrecondition(
        "attention.placement: PLACEMENT_MEMORY_SERVICE, and no memory service is configured (memory.services "
        "is 0 and memory.addresses empty)");
  }
  return absl::OkStatus();
}

// Fields that the method does not use stay unset.
void Send(const memory::AttentionSettings& settings, internal::v1::Attention* out) {
  const methods::Method& method = *methods::FindMethod(settings.method);
  out->set_method(static_cast<int32_t>(settings.method));
  out->set_placement(static_cast<int32_t>(settings.placement));
  out->set_token_budget(settings.token_budget);
  out->set_keep_first(settings.keep_first);
  out->set_keep_last(settings.keep_last);
  out->set_reuse_interval(settings.reuse_interval);
  if (method.key_bits != methods::KeyBits::kNone) out->set_key_bits(settings.key_bits);
  if (method.two_stages) out->set_first_stage_tokens(settings.first_stage_tokens);
}

}  // namespace

AttentionServing MakeAttentionServing(const config::Config& config, const model::ModelConfig& model) {
  AttentionServing serving;
  serving.defaults = config.attention;
  serving.has_memory_service = config.memory.service_count() > 0 || !config.workers.addresses.empty();
  serving.why_dense_only = memory::WhyDenseOnly(model, config.attention.dense_layers);
  return serving;
}

absl::Status CheckDefaultMethod(const AttentionServing& serving) {
  if (serving.defaults.default_method == methods::MethodName(Method::kDense) ||
      serving.why_dense_only.empty()) {
    return absl::OkStatus();
  }
  return InvalidArgument("attention.default_method: {} does not work with the model: {}",
                         serving.defaults.default_method, serving.why_dense_only);
}

absl::Status FillAttention(const v1::GenerateRequest& request, const AttentionServing& serving,
                           internal::v1::Submit* out) {
  MNEMO_ASSIGN_OR_RETURN(const Method method, ChooseMethod(request, serving));
  const methods::GivenSettings given = GivenOf(request.attention(), method);
  MNEMO_RETURN_IF_ERROR(methods::CheckGiven(given));
  if (method == Method::kDense) return absl::OkStatus();
  if (!serving.why_dense_only.empty()) return memory::Unsuitable(method, serving.why_dense_only);
  MNEMO_RETURN_IF_ERROR(CheckPlacement(given.placement, serving));
  MNEMO_ASSIGN_OR_RETURN(const memory::AttentionSettings settings,
                         methods::Resolve(given, DefaultsOf(serving.defaults)));
  Send(settings, out->mutable_attention());
  return absl::OkStatus();
}

}  // namespace mnemo::frontend
