#include "server/memory/indexed_layers.h"

#include <algorithm>

#include "proto/layout/record.h"
#include "server/memory/methods/method.h"
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
  if (!WhyNoIndex(config.head_dim).empty()) return {};
  return IndexedLayers(config, dense_layers);
}

std::string WhyNoIndex(int head_dim) {
  if (layout::IsIndexDim(static_cast<uint32_t>(head_dim))) return "";
  return fmt::format("its heads have {} dimensions, and an index takes powers of two from {} to {}", head_dim,
                     static_cast<int>(layout::kMinDim), static_cast<int>(layout::kMaxDim));
}

std::string WhyDenseOnly(const model::ModelConfig& config, int dense_layers) {
  if (std::string why = WhyNoIndex(config.head_dim); !why.empty()) return why;
  if (!IndexedLayers(config, dense_layers).empty()) return "";
  return fmt::format("its {} full-attention layers are within attention.dense_layers, {}",
                     IndexedLayers(config, 0).size(), dense_layers);
}

absl::Status Unsuitable(AttentionSettings::Method method, std::string_view why) {
  return Unimplemented(
      "attention.method: {} does not work with the model: {}; available: ATTENTION_METHOD_DENSE",
      methods::ProtocolName(method), why);
}

}  // namespace mnemo::memory
