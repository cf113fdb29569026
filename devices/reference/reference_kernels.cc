#include "devices/reference/reference_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "devices/portable_math.h"

namespace mnemo::devices::reference {
namespace {

// Four floats of the baseline instruction set.
using Float4 = float __attribute__((vector_size(16)));

Float4 Load(const float* p) {
  Float4 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

constexpr int kLanes = 8;
// Rows of x that are processed together, so that they stay in the cache while the weights stream through.
constexpr int kRowBlock = 32;

// y[r][o] = x[r] . w[o] for a tile that fits the registers.
template <int kRows, int kOutputs>
void Tile(const float* const* x, const float* w, int64_t k, float* y, int64_t y_stride) {
  Float4 low[kRows][kOutputs] = {};
  Float4 high[kRows][kOutputs] = {};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) {
      const Float4 w_low = Load(w + o * k + i);
      const Float4 w_high = Load(w + o * k + i + 4);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        low[r][o] += Load(x[r] + i) * w_low;
        high[r][o] += Load(x[r] + i + 4) * w_high;
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o) {
      float s[kLanes];
      std::memcpy(s, &low[r][o], sizeof(Float4));
      std::memcpy(s + 4, &high[r][o], sizeof(Float4));
      for (int64_t j = i; j < k; ++j) s[j - i] += x[r][j] * w[o * k + j];
      y[r * y_stride + o] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    }
  }
}

template <int kRows, int kOutputs>
void TileRow(const float* const* x, const float* w, int64_t k, int64_t outputs, float* y, int64_t y_stride) {
  int64_t o = 0;
  for (; o + kOutputs <= outputs; o += kOutputs) Tile<kRows, kOutputs>(x, w + o * k, k, y + o, y_stride);
  for (; o < outputs; ++o) Tile<kRows, 1>(x, w + o * k, k, y + o, y_stride);
}

}  // namespace

float Dot(const float* a, const float* b, int64_t n) {
  float y;
  Tile<1, 1>(&a, b, n, &y, 0);
  return y;
}

void MatMul(const float* const* x, int rows, const float* w, int64_t k, int64_t col_begin, int64_t col_end,
            float* y, int64_t y_stride) {
  constexpr int kOutputs = 3;
  w += col_begin * k;
  const int64_t outputs = col_end - col_begin;
  if (rows == 1) return TileRow<1, 4>(x, w, k, outputs, y, y_stride);
  for (int row_begin = 0; row_begin < rows; row_begin += kRowBlock) {
    const int row_end = std::min(rows, row_begin + kRowBlock);
    for (int64_t o = 0; o < outputs; o += kOutputs) {
      const int64_t count = std::min<int64_t>(kOutputs, outputs - o);
      int r = row_begin;
      for (; r + 2 <= row_end; r += 2) {
        TileRow<2, kOutputs>(x + r, w + o * k, k, count, y + r * y_stride + o, y_stride);
      }
      if (r < row_end) TileRow<1, kOutputs>(x + r, w + o * k, k, count, y + r * y_stride + o, y_stride);
    }
  }
}

void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const float mean = static_cast<float>(sum / static_cast<double>(n));
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void SiluGate(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + PortableExp(-gate[i])) * up[i];
}

void GeluGate(float* gate, const float* up, int64_t n) {
  constexpr float kSqrtTwoOverPi = 0.7978845608f;
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    const float inner = kSqrtTwoOverPi * (x + 0.044715f * x * x * x);
    gate[i] = 0.5f * x * (1.0f + PortableTanh(inner)) * up[i];
  }
}

void Rotate(float* x, int dims, bool halves, const float* cos_sin) {
  const int pairs = dims / 2;
  for (int i = 0; i < pairs; ++i) {
    float& first = x[halves ? i : 2 * i];
    float& second = x[halves ? i + pairs : 2 * i + 1];
    const float cosine = cos_sin[2 * i];
    const float sine = cos_sin[2 * i + 1];
    const float a = first * cosine - second * sine;
    const float b = first * sine + second * cosine;
    first = a;
    second = b;
  }
}

void AddPositions(float* scores, const float* const* v, int count, int head_dim, float* part,
                  SoftmaxState* state) {
  float largest = scores[0];
  for (int i = 1; i < count; ++i) largest = scores[i] > largest ? scores[i] : largest;
  for (int i = 0; i < count; ++i) scores[i] = PortableExp(scores[i] - largest);
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += scores[i];
  std::fill(part, part + head_dim, 0.0f);
  for (int i = 0; i < count; ++i) {
    for (int d = 0; d < head_dim; ++d) part[d] += scores[i] * v[i][d];
  }
  if (state->empty) {
    state->empty = false;
    state->largest = largest;
    state->sum = sum;
    std::copy(part, part + head_dim, state->values);
    return;
  }
  const float joint = std::max(state->largest, largest);
  const float old_factor = PortableExp(state->largest - joint);
  const float new_factor = PortableExp(largest - joint);
  state->largest = joint;
  state->sum = state->sum * old_factor + sum * new_factor;
  for (int d = 0; d < head_dim; ++d) state->values[d] = state->values[d] * old_factor + part[d] * new_factor;
}

void FinishSoftmax(const SoftmaxState& state, int head_dim, float* out) {
  for (int d = 0; d < head_dim; ++d) out[d] = state.values[d] / state.sum;
}

}  // namespace mnemo::devices::reference
