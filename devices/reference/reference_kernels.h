// Plain float32 arithmetic. A sum over n products has eight partial sums: sum j takes the elements i with i %
// 8 == j in ascending order. They combine as ((s0+s4)+(s2+s6)) + ((s1+s5)+(s3+s7)). A product and its
// addition round separately.
#pragma once

#include <cstdint>

namespace mnemo::devices::reference {

float Dot(const float* a, const float* b, int64_t n);

// y[r][c - col_begin] = x[r] . w[c] for c in [col_begin, col_end), each element as by Dot. x: [rows] pointers
// to [k]; w: [*, k]; y: rows `y_stride` apart.
void MatMul(const float* const* x, int rows, const float* w, int64_t k, int64_t col_begin, int64_t col_end,
            float* y, int64_t y_stride);

// out = x / sqrt(mean(x^2) + eps) * weight. The squares are summed as double, ascending.
void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* out);

// gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)).
void SiluGate(float* gate, const float* up, int64_t n);
// gate[i] = gelu(gate[i]) * up[i], gelu(x) = x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
void GeluGate(float* gate, const float* up, int64_t n);

// Rotates the pairs of x[0..dims): (a, b) -> (a cos - b sin, a sin + b cos). Pair i is elements (2i, 2i + 1),
// or (i, i + dims / 2) with `halves`. cos_sin: [dims / 2, 2].
void Rotate(float* x, int dims, bool halves, const float* cos_sin);

// Running softmax over the positions so far: the largest score, the sum of exp(score - largest), and the sum
// of exp(score - largest) * value.
struct SoftmaxState {
  float largest = 0;
  float sum = 0;
  float* values = nullptr;  // [head_dim]
  bool empty = true;
};

// Adds `count` positions in ascending order. scores: [count], overwritten; v: [count] pointers to rows of
// [head_dim].
void AddPositions(float* scores, const float* const* v, int count, int head_dim, float* part,
                  SoftmaxState* state);
void FinishSoftmax(const SoftmaxState& state, int head_dim, float* out);

}  // namespace mnemo::devices::reference
