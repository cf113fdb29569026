// From logits to a token, the same on every device. Order of the transforms: logit_bias, penalties,
// temperature, top_k, top_p, min_p, then one draw by a counter-based generator keyed by (seed, index of the
// output token). Ties go to the lower id.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace mnemo::devices {

inline constexpr int kMaxAlternatives = 20;

struct TokenCount {
  int32_t id = 0;
  int32_t in_output =
      0;  // occurrences among generated tokens; the repetition penalty applies to every id listed
};

struct TokenBias {
  int32_t id = 0;
  float bias = 0;
};

// Constant over a request. Defaults leave logits as they are.
struct SamplingParams {
  float temperature = 1.0f;  // [0, 5]; 0 = greedy (argmax after bias and penalties)
  int32_t top_k = 0;         // 0 = off
  float top_p = 1.0f;        // (0, 1]: smallest set of most likely tokens whose probability reaches top_p
  float min_p = 0.0f;        // [0, 1]: keep tokens at least min_p times as likely as the best
  float repetition_penalty = 1.0f;  // (0, 10]: a positive logit is divided by it, a negative one multiplied
  float presence_penalty = 0.0f;    // [-2, 2], subtracted once for a token in the output
  float frequency_penalty = 0.0f;   // [-2, 2], subtracted per occurrence in the output
  uint64_t seed = 0;
};

struct SampleRow {
  const float* logits = nullptr;  // device memory, [vocabulary]; not changed
  const SamplingParams* params = nullptr;
  std::span<const TokenCount>
      counts;  // tokens of prompt and output, each id once; only read when a penalty is on
  std::span<const TokenBias> bias;  // each id once
  uint64_t index = 0;               // of the output token: 0 for the first generated one
  int32_t forced_id = -1;           // >= 0: no sampling, `id` is this one (scoring and replay)
  int32_t alternatives =
      -1;  // -1: no logprobs wanted; 0..20: logprob and rank of id, and so many alternatives
};

struct SampleResult {
  int32_t id = 0;
  float logprob = 0;  // natural log of the softmax of the raw logits, at id; only if alternatives >= 0
  int32_t rank = 0;   // 0 = the most likely by raw logits, ties to the lower id
  int32_t alternative_count = 0;
  std::array<int32_t, kMaxAlternatives> alternative_ids = {};  // by falling logprob, ties to the lower id
  std::array<float, kMaxAlternatives> alternative_logprobs = {};
};

// Uniform in [0, 1) with 53 bits: a counter-based generator (Philox 4x32-10, Salmon et al. 2011), key = seed,
// counter = index. The same on every machine.
double UniformDraw(uint64_t seed, uint64_t index);

}  // namespace mnemo::devices
