// From a request's `attention` to what a worker gets: every figure resolved and in range.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"
#include "mnemo/v1/generation.pb.h"
#include "server/memory/attention_settings.h"
#include "server/model/model_config.h"

namespace mnemo::frontend {

// The kinds of attention that this server offers.
struct AttentionServing {
  config::Config::Attention defaults;
  std::string why_dense_only;       // why the model takes no sparse method; empty = it takes them
  bool has_memory_service = false;  // one is configured, or may be at a worker that others run
};

AttentionServing MakeAttentionServing(const config::Config& config, const model::ModelConfig& model);

// INVALID_ARGUMENT: the configured attention.default_method cannot run with the model.
absl::Status CheckDefaultMethod(const AttentionServing& serving);

// Resolves `request`'s attention into `out`, which stays empty for dense attention; without the field, that
// of attention.default_method. INVALID_ARGUMENT names the field and its bound, UNIMPLEMENTED what is missing
// for a method, FAILED_PRECONDITION a placement that the configuration has no process for.
absl::Status FillAttention(const v1::GenerateRequest& request, const AttentionServing& serving,
                           internal::v1::Submit* out);

}  // namespace mnemo::frontend
