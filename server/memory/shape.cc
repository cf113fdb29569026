#include "server/memory/shape.h"

#include "proto/layout/descriptor.h"
#include "server/model/model_config.h"
#include "server/model/transformer.h"

namespace mnemo::memory {

uint32_t KvFormat(devices::KvType type) {
  switch (devices::StoredForm(type)) {
    case devices::StoredKvForm::kFloat32:
      return layout::kFormatF32;
    case devices::StoredKvForm::kScaledKeys:
      return layout::kFormatScaledKeys;
    case devices::StoredKvForm::kScaledBytes:
      return layout::kFormatScaledBytes;
  }
  return 0;
}

MemoryShape ShapeOf(const model::Transformer& transformer) {
  const model::ModelConfig& config = transformer.config();
  return {.layers = static_cast<int>(transformer.options().indexed_layers.size()),
          .kv_heads = config.kv_heads,
          .group = config.heads / config.kv_heads,
          .head_dim = config.head_dim,
          .softmax_scale = config.attention_scale};
}

absl::Status CheckSettings(const AttentionSettings& settings, const MemoryShape& shape) {
  MNEMO_RETURN_IF_ERROR(methods::CheckSettings(settings));
  if (settings.method == AttentionSettings::Method::kDense) return absl::OkStatus();
  std::string why;
  if (shape.layers == 0) {
    why = "it has no layer that could attend to a selection";
  } else {
    why = WhyNoIndex(shape.head_dim);
  }
  return why.empty() ? absl::OkStatus() : Unsuitable(settings.method, why);
}

}  // namespace mnemo::memory
