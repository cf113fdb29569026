#include "server/memory/indexed_layers.h"

#include "proto/layout/record.h"
#include "server/model/model_config.h"

namespace mnemo::memory {

std::vector<int> IndexedLayers(const model::ModelConfig& config, int dense_layers) {
  std::vector<int> layers;
  for (int layer = 0; layer < config.layers; ++layer) {
    if (config.layer_is_windowed[static_cast<size_t>(layer)]) continue;
    if (dense_layers > 0) {
      --dense_layers;
      continue;
    }
    layers.push_back(layer);
  }
  return layers;
}

std::vector<int> IndexableLayers(const model::ModelConfig& config, int dense_layers) {
  if (!layout::IsIndexDim(static_cast<uint32_t>(config.head_dim))) return {};
  return IndexedLayers(config, dense_layers);
}

}  // namespace mnemo::memory
