// Which layers of a model memory processing is for; without the pipeline, so that mnemod can tell sizes.
#pragma once

#include <vector>

namespace mnemo::model {
struct ModelConfig;
}

namespace mnemo::memory {

// Full-attention layers of the model but the first `dense_layers` of them, ascending.
std::vector<int> IndexedLayers(const model::ModelConfig& config, int dense_layers);
// The same; none where an index could not hold the model's heads: requests for a method are refused then,
// with the reason.
std::vector<int> IndexableLayers(const model::ModelConfig& config, int dense_layers);

}  // namespace mnemo::memory
