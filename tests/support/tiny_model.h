// Small models with random weights and a byte-level vocabulary, for tests that need a whole model file in
// milliseconds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "devices/tensor_type.h"

namespace mnemo::testing {

struct TinyModelOptions {
  std::string architecture = "llama";  // llama | qwen2 | qwen3 | gemma3
  int layers = 2;
  int dim = 64;
  int ffn_dim = 128;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int context_tokens = 1024;
  int sliding_window = 64;  // gemma3 only
  bool tied_output = true;
  bool rope_factors = false;  // llama only: adds rope_freqs.weight
  // Falls back to F32 where a row is not whole blocks.
  devices::TensorType matrix_type = devices::TensorType::kF32;
  uint64_t seed = 1;
};

// A GGUF file image. Vocabulary: the 256 bytes as gpt2 byte-level tokens (ids 0..255), then
// "<|im_start|>" 256, "<|im_end|>" 257 (eos), "<|endoftext|>" 258 (bos), no merges, chatml template.
std::vector<std::byte> TinyModel(const TinyModelOptions& options);
inline constexpr int kTinyVocabulary = 259;

// Writes it under the test's temporary folder; returns the path.
std::string WriteTinyModel(const TinyModelOptions& options, const std::string& folder);

}  // namespace mnemo::testing
