// Configuration of a network, read from GGUF metadata and checked against the file's tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/device.h"
#include "devices/weights.h"
#include "server/model/gguf.h"

namespace mnemo::model {

struct ModelConfig {
  std::string architecture;  // "llama" | "qwen2" | "qwen3" | "gemma3"
  // general.name, or the file's stem; displayable UTF-8 (SafeName).
  std::string name;
  // Why general.name is not used; empty when it is used or absent.
  std::string name_problem;
  // The most frequent matrix type by bytes, e.g. "Q4_1".
  std::string quantization;
  // Share of the elements of the layers' matrices, without embedding and output tables, that is stored in at
  // most 9 bits: block formats. [0, 1]
  double coarse_share = 0;
  int64_t parameters = 0;
  // All tensors as stored in the file.
  int64_t weight_bytes = 0;
  // Rows of the embedding table.
  int vocabulary = 0;
  // Context length that the model was trained for.
  int context_tokens = 0;
  int layers = 0;
  int dim = 0;
  int ffn_dim = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float norm_eps = 0;
  // Factor on q . k.
  float attention_scale = 0;
  devices::RotaryStyle rotary_style = devices::RotaryStyle::kInterleaved;
  int rotary_dims = 0;
  // For full-attention layers.
  double rope_theta = 10000.0;
  // For sliding-window layers, without scaling (gemma3); 0: as the other layers.
  double rope_theta_local = 0;
  // Divisor of positions ("linear" scaling).
  double rope_linear_scale = 1.0;
  // [rotary_dims / 2] or empty: divisors of the frequencies (rope_freqs.weight: Llama 3.x).
  std::vector<float> rope_factors;
  // In tokens; 0: none.
  int sliding_window = 0;
  std::vector<bool> layer_is_windowed;  // [layers]
  // qwen2.
  bool qkv_bias = false;
  // qwen3, gemma3.
  bool qk_norm = false;
  // gemma3: norm after attention and after the feed-forward network.
  bool post_norms = false;
  // gemma3: tanh gelu instead of silu.
  bool gelu = false;
  // gemma3: sqrt(dim).
  float embedding_scale = 1.0f;
  // True when there is no output.weight: the embedding table is used.
  bool tied_output = false;
  // Keys that are present but not used, or absent but expected; to be logged once.
  std::vector<std::string> warnings;
};

// UNIMPLEMENTED for an unknown architecture or rope scaling, listing the known ones, and for an unsupported
// key that could change a number (metadata_keys.h). INVALID_ARGUMENT names the key or tensor that is missing,
// out of range or of the wrong shape.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file);

// Returns the type of the smallest KV cache whose error stays below that of the weights' own rounding. q8 has
// one scale per head, so it needs heads of up to 128 dimensions and keys without a bias. It also needs most
// of the layers' weights in a block format (at most 8.5 bits per weight). Otherwise F16. Measurements:
// docs/PERFORMANCE.md, "Fidelity".
devices::KvType DefaultKvType(const ModelConfig& config);

// Returns the tensors that a worker needs, with role and [rows, cols], in file order; `file` keeps the data.
absl::StatusOr<std::vector<devices::TensorSource>> WeightSources(const GgufFile& file,
                                                                 const ModelConfig& config);

}  // namespace mnemo::model
