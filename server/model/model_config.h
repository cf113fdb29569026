// What a model file says of the network: read from GGUF metadata, checked against the tensors that are there.
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
  std::string name;          // general.name, or the file's stem; UTF-8 that can be shown (SafeName)
  std::string name_problem;  // why general.name is not that name; empty = it is, or is absent
  std::string quantization;  // most frequent matrix type by bytes, e.g. "Q4_1"
  // Share of the elements of the layers' matrices, embedding and output tables left out, that is stored in
  // at most 9 bits: block formats. [0, 1]
  double coarse_share = 0;
  int64_t parameters = 0;
  int64_t weight_bytes = 0;  // of all tensors as stored in the file
  int vocabulary = 0;        // rows of the embedding table
  int context_tokens = 0;    // trained context
  int layers = 0;
  int dim = 0;
  int ffn_dim = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float norm_eps = 0;
  float attention_scale = 0;  // on q . k
  devices::RotaryStyle rotary_style = devices::RotaryStyle::kInterleaved;
  int rotary_dims = 0;
  double rope_theta = 10000.0;     // full-attention layers
  double rope_theta_local = 0;     // sliding-window layers, without scaling (gemma3); 0 = as the other layers
  double rope_linear_scale = 1.0;  // positions are divided by it ("linear" scaling)
  std::vector<float> rope_factors;      // [rotary_dims / 2] or empty: frequencies are divided by them
                                        // (rope_freqs.weight: Llama 3.x)
  int sliding_window = 0;               // 0 = none
  std::vector<bool> layer_is_windowed;  // [layers]
  bool qkv_bias = false;                // qwen2
  bool qk_norm = false;                 // qwen3, gemma3
  bool post_norms = false;              // gemma3: norm after attention and after the feed-forward network
  bool gelu = false;                    // gemma3: tanh gelu instead of silu
  float embedding_scale = 1.0f;         // gemma3: sqrt(dim)
  bool tied_output = false;             // no output.weight: the embedding table is used
  std::vector<std::string> warnings;    // keys that are present and not used, or missed: for the log, once
};

// UNIMPLEMENTED for an unknown architecture or rope scaling, with the known ones, and for a key that could
// decide a number and is not supported (metadata_keys.h); INVALID_ARGUMENT names the key or tensor that is
// missing, out of range or of the wrong shape.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file);

// The smallest KV cache whose error stays below that of the weights' own rounding. q8, whose head has one
// scale, for heads of up to 128 dimensions without a bias on keys, when most of the layers' weights are in a
// block format (8.5 bits a weight or fewer); else F16 (docs/PERFORMANCE.md, "Fidelity", has the figures).
devices::KvType DefaultKvType(const ModelConfig& config);

// The tensors a worker needs, with role and [rows, cols], in file order; data stays in `file`.
absl::StatusOr<std::vector<devices::TensorSource>> WeightSources(const GgufFile& file,
                                                                 const ModelConfig& config);

}  // namespace mnemo::model
