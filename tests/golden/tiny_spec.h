// Options of a tiny model from JSON: the golden file names the models of its logits.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "tests/support/tiny_model.h"

namespace mnemo::golden {

inline devices::TensorType TensorTypeNamed(const std::string& name) {
  for (uint32_t type = 0; type < 64; ++type) {
    const devices::TensorTypeTraits* traits = devices::FindTensorType(type);
    if (traits != nullptr && traits->name == name) return traits->type;
  }
  throw std::runtime_error("no tensor type is named " + name);
}

// Absent fields keep their default; a field that TinyModelOptions lacks is an error.
inline testing::TinyModelOptions TinyOptionsFromJson(const nlohmann::json& json) {
  testing::TinyModelOptions options;
  for (const auto& [key, value] : json.items()) {
    if (key == "architecture") {
      options.architecture = value;
    } else if (key == "matrix_type") {
      options.matrix_type = TensorTypeNamed(value);
    } else if (key == "layers") {
      options.layers = value;
    } else if (key == "dim") {
      options.dim = value;
    } else if (key == "ffn_dim") {
      options.ffn_dim = value;
    } else if (key == "heads") {
      options.heads = value;
    } else if (key == "kv_heads") {
      options.kv_heads = value;
    } else if (key == "head_dim") {
      options.head_dim = value;
    } else if (key == "sliding_window") {
      options.sliding_window = value;
    } else if (key == "tied_output") {
      options.tied_output = value;
    } else if (key == "rope_factors") {
      options.rope_factors = value;
    } else if (key == "seed") {
      options.seed = value;
    } else {
      throw std::runtime_error("tiny models have no option " + key);
    }
  }
  return options;
}

}  // namespace mnemo::golden
