// Sampling: from logits to a token, the same on every device. Order of the transforms: logit_bias, penalties,
// temperature, top_k, top_p, min_p. Then one draw by a counter-based generator keyed by (seed, index of the
// output token). Ties go to the lower id.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace mnemo::devices {

inline constexpr int kMaxAlternatives = 20;

struct TokenCount {
  int32_t id = 0;
  // Occurrences among generated tokens; the repetition penalty applies to every listed id.
  int32_t in_output = 0;
};

struct TokenBias {
  int32_t id = 0;
  float bias = 0;
};

// Constant over a request. The defaults leave logits unchanged.
struct SamplingParams {
  // [0, 5]; 0: greedy (argmax after bias and penalties).
  float temperature = 1.0f;
  // 0: off.
  int32_t top_k = 0;
  // (0, 1]: the smallest set of most likely tokens whose probability reaches top_p.
  float top_p = 1.0f;
  // [0, 1]: keeps tokens at least min_p times as likely as the best.
  float min_p = 0.0f;
  // (0, 10]: divides a positive logit, multiplies a negative one.
  float repetition_penalty = 1.0f;
  // [-2, 2], subtracted once for a token in the output.
  float presence_penalty = 0.0f;
  // [-2, 2], subtracted per occurrence in the output.
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
};

struct SampleRow {
  // Device memory, [vocabulary]; not changed.
  const float* logits = nullptr;
  const SamplingParams* params = nullptr;
  // Tokens of prompt and output, each id once; read only when a penalty is on.
  std::span<const TokenCount> counts;
  // Each id once.
  std::span<const TokenBias> bias;
  // Index of the output token: 0 for the first generated one.
  uint64_t index = 0;
  // >= 0: no sampling, the result's `id` is this one (scoring and replay).
  int32_t forced_id = -1;
  // -1: no logprobs. 0..20: logprob and rank of the id, and this number of alternatives.
  int32_t alternatives = -1;
};

struct SampleResult {
  int32_t id = 0;
  // Natural log of the softmax of the raw logits at id; set only if alternatives >= 0.
  float logprob = 0;
  // 0: the most likely by raw logits, ties to the lower id.
  int32_t rank = 0;
  int32_t alternative_count = 0;
  // By falling logprob, ties to the lower id.
  std::array<int32_t, kMaxAlternatives> alternative_ids = {};
  std::array<float, kMaxAlternatives> alternative_logprobs = {};
};

// Uniform in [0, 1) with 53 bits, from a counter-based generator (Philox 4x32-10, Salmon et al. 2011) with
// key = seed and counter = index. The same on every machine.
double UniformDraw(uint64_t seed, uint64_t index);

}  // namespace mnemo::devices
