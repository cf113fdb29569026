// Layers of a model to which memory processing applies. Independent of the pipeline, so that mnemod can
// compute sizes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/memory/attention_settings.h"

namespace mnemo::model {
struct ModelConfig;
}

namespace mnemo::memory {

// Full-attention layers of the model except the first `dense_layers` of them, ascending.
std::vector<int> IndexedLayers(const model::ModelConfig& config, int dense_layers);
// The same, or empty when an index cannot hold the model's heads. Requests for a method are then refused with
// the reason.
std::vector<int> IndexableLayers(const model::ModelConfig& config, int dense_layers);

// Why no index can hold heads of `head_dim` dimensions; empty: an index can.
std::string WhyNoIndex(int head_dim);
// Why the model cannot use sparse methods; empty: it can.
std::string WhyDenseOnly(const model::ModelConfig& config, int dense_layers);
// Returns UNIMPLEMENTED, whose message says that the method does not work with the model, and why.
absl::Status Unsuitable(AttentionSettings::Method method, std::string_view why);

}  // namespace mnemo::memory
