// Which layers of a model memory processing is for; without the pipeline, so that mnemod can tell sizes.
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

// Full-attention layers of the model but the first `dense_layers` of them, ascending.
std::vector<int> IndexedLayers(const model::ModelConfig& config, int dense_layers);
// The same; none where an index could not hold the model's heads: requests for a method are refused then,
// with the reason.
std::vector<int> IndexableLayers(const model::ModelConfig& config, int dense_layers);

// Why no index can hold heads of so many dimensions; empty: one can.
std::string WhyNoIndex(int head_dim);
// Why the model takes no sparse method; empty: it does.
std::string WhyDenseOnly(const model::ModelConfig& config, int dense_layers);
// UNIMPLEMENTED: the method does not work with the model, and why.
absl::Status Unsuitable(AttentionSettings::Method method, std::string_view why);

}  // namespace mnemo::memory
