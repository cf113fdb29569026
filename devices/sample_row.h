// Sampling of one row as a plain function that CPU devices share, so that equal logits give equal tokens on
// all of them. Uses only baseline instructions and portable arithmetic, so results are the same on any
// machine.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "devices/sampling.h"

namespace mnemo::devices {

// Working memory of SampleOneRow, one object per thread. No allocation once it is sized for a vocabulary.
struct SampleScratch {
  struct Candidate {
    float logit = 0;
    int32_t id = 0;
  };
  // Sizes the memory for vocabularies of up to this size.
  void Reserve(int vocabulary);

  std::vector<float> logits;   // [vocabulary]
  std::vector<float> weights;  // [vocabulary]
  // Sums of blocks of `weights`.
  std::vector<double> block_sums;
  // The most likely tokens.
  std::vector<Candidate> candidates;
};

// row.logits is readable host memory, [vocabulary], vocabulary >= 1. NaN counts as -inf. When no logit is
// above -inf, the token is 0 and its logprob -inf. Ids in counts and bias are below `vocabulary`.
// Alternatives at -inf are left out.
SampleResult SampleOneRow(const SampleRow& row, int vocabulary, SampleScratch* scratch);

// Returns the lowest index of the largest value of x[0..n), n >= 1; NaN counts as -inf.
int32_t ArgMax(const float* x, int n);

// Philox 4x32 with 10 rounds.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

}  // namespace mnemo::devices
