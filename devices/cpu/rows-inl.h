// Kernels that work row by row: norms, quantisation of activations, rotary embedding, writes to the KV cache.

// Lane i of the sum accumulates the squares of elements i, i + 16, ...; the lanes are added at the end.
MNEMO_INLINE float InverseRms(const float* x, float eps, int64_t cols) {
  F32 sum = Set(0.0f);
  for (int64_t i = 0; i < cols; i += kLanes) {
    const F32 v = LoadFirst(x + i, cols - i);
    sum = Fma(v, v, sum);
  }
  return 1.0f / __builtin_sqrtf(ReduceAdd(sum) / static_cast<float>(cols) + eps);
}

void NormRow(const float* x, const float* weight, float eps, int64_t cols, bool accumulate, float* out) {
  const F32 inverse = Set(InverseRms(x, eps, cols));
  for (int64_t i = 0; i < cols; i += kLanes) {
    F32 y = Mul(Mul(LoadFirst(x + i, cols - i), inverse), LoadFirst(weight + i, cols - i));
    if (accumulate) y = Add(LoadFirst(out + i, cols - i), y);
    StoreFirst(out + i, y, cols - i);
  }
}

// Quantises one digit of a block: scale = max |x| / 127, stored = round(x / scale). `first` and `second`
// become the remainders.
MNEMO_INLINE void QuantizeDigit(F32* first, F32* second, int slot, ActivationBlock* block) {
  const float largest = ReduceMax(Max(Abs(*first), Abs(*second)));
  const float scale = largest * (1.0f / 127.0f);
  const F32 inverse = Set(largest > 0.0f ? 127.0f / largest : 0.0f);
  const I32 q0 = RoundToInt(Mul(*first, inverse));
  const I32 q1 = RoundToInt(Mul(*second, inverse));
  int8_t bytes[kBlockCols];
  StoreInt8(bytes, q0);
  StoreInt8(bytes + kLanes, q1);
  for (int g = 0; g < 8; ++g) __builtin_memcpy(block->values[g][slot], bytes + 4 * g, 4);
  // Sums of integers of at most 127 are exact in float32.
  const F32 f0 = ToFloat(q0);
  const F32 f1 = ToFloat(q1);
  const float first_sum = ReduceAdd(f0);
  const float sum = ReduceAdd(Add(f0, f1));
  block->scale[slot] = scale;
  block->scaled_sum[slot] = scale * sum;
  block->minus_sum[slot] = -static_cast<int32_t>(sum);
  block->minus_first_sum[slot] = -static_cast<int32_t>(first_sum);
  const F32 minus_scale = Set(-scale);
  *first = Fma(f0, minus_scale, *first);
  *second = Fma(f1, minus_scale, *second);
}

void QuantizeRow(const float* x, const float* norm_weight, float eps, int64_t cols, int digits, int slot,
                 ActivationBlock* group) {
  const F32 inverse = Set(norm_weight == nullptr ? 1.0f : InverseRms(x, eps, cols));
  for (int64_t i = 0; i < cols; i += kBlockCols) {
    F32 first = Load(x + i);
    F32 second = Load(x + i + kLanes);
    if (norm_weight != nullptr) {
      first = Mul(Mul(first, inverse), Load(norm_weight + i));
      second = Mul(Mul(second, inverse), Load(norm_weight + i + kLanes));
    }
    for (int digit = 0; digit < digits; ++digit) QuantizeDigit(&first, &second, slot, group++);
  }
}

void ScaleRow(const float* x, float factor, int64_t count, float* out) {
  const F32 f = Set(factor);
  for (int64_t i = 0; i < count; i += kLanes) {
    StoreFirst(out + i, Mul(LoadFirst(x + i, count - i), f), count - i);
  }
}

MNEMO_INLINE void RotateInterleaved(float* x, const float* cos_sin, int dims) {
  for (int i = 0; i < dims; i += kLanes) {
    const F32 v = LoadFirst(x + i, dims - i);
    const F32 cs = LoadFirst(cos_sin + i, dims - i);
    // Even lanes: a cos - b sin; odd lanes: b cos + a sin.
    const F32 y = FmaAddSub(v, DupEven(cs), Mul(SwapPairs(v), DupOdd(cs)));
    StoreFirst(x + i, y, dims - i);
  }
}

// cosines and sines: [dims / 2] each.
MNEMO_INLINE void RotateHalves(float* x, const float* cosines, const float* sines, int dims) {
  const int half = dims / 2;
  const F32 minus = Set(-1.0f);
  for (int i = 0; i < half; i += kLanes) {
    const F32 a = LoadFirst(x + i, half - i);
    const F32 b = LoadFirst(x + half + i, half - i);
    const F32 c = LoadFirst(cosines + i, half - i);
    const F32 s = LoadFirst(sines + i, half - i);
    const F32 y0 = Fma(a, c, Mul(Mul(b, s), minus));
    const F32 y1 = Fma(b, c, Mul(a, s));
    StoreFirst(x + i, y0, half - i);
    StoreFirst(x + half + i, y1, half - i);
  }
}

constexpr int kMaxRotaryDims = 1024;

void RotaryRow(const RotaryTask& t) {
  float cosines[kMaxRotaryDims / 2 + kLanes];
  float sines[kMaxRotaryDims / 2 + kLanes];
  if (t.halves) {
    for (int i = 0; i < t.rotary_dims / 2; ++i) {
      cosines[i] = t.cos_sin[2 * i];
      sines[i] = t.cos_sin[2 * i + 1];
    }
  }
  for (int h = 0; h < t.heads + t.kv_heads; ++h) {
    const bool query = h < t.heads;
    float* x = query ? t.q + h * t.head_dim : t.k + (h - t.heads) * t.head_dim;
    const float* norm = query ? t.q_norm : t.k_norm;
    if (norm != nullptr) NormRow(x, norm, t.norm_eps, t.head_dim, false, x);
    if (t.halves) {
      RotateHalves(x, cosines, sines, t.rotary_dims);
    } else {
      RotateInterleaved(x, t.cos_sin, t.rotary_dims);
    }
  }
}

MNEMO_INLINE void StoreCache(CacheFormat format, uint16_t* p, F32 v) {
  if (format == CacheFormat::kF16) {
    StoreF16(p, v);
  } else {
    StoreBf16(p, v);
  }
}

// Returns the largest magnitude of fixed point for which a sum of head_dim products stays within 32 bits.
MNEMO_INLINE float FixedPointLimit(int head_dim) {
  const float limit = __builtin_floorf(__builtin_sqrtf(2147480000.0f / static_cast<float>(head_dim)));
  return limit < 32767.0f ? limit : 32767.0f;
}

constexpr int kMaxHeadDim = 1024;

// Computes a + b and a - b for lanes a and b that are kDistance apart.
template <int kDistance>
MNEMO_INLINE F32 AddDifferences(F32 v) {
  alignas(64) static constexpr float kSigns[] = {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
  float signs[kLanes];
  for (int i = 0; i < kLanes; ++i) signs[i] = kSigns[i * (8 / kDistance) % kLanes];
  return Fma(v, Load(signs), SwapLanes<kDistance>(v));
}

// Walsh-Hadamard transform of each block of x, scaled to preserve lengths. It is its own inverse and
// preserves dot products. It spreads elements that are much larger than the others, so that fixed point at
// the largest one's scale preserves more of the rest.
MNEMO_INLINE void Rotate(float* x, int head_dim) {
  const int block = RotatedBlock(head_dim);
  for (int d = 0; d < head_dim; d += kLanes) {
    F32 v = LoadFirst(x + d, head_dim - d);
    if (block > 1) v = AddDifferences<1>(v);
    if (block > 2) v = AddDifferences<2>(v);
    if (block > 4) v = AddDifferences<4>(v);
    if (block > 8) v = AddDifferences<8>(v);
    StoreFirst(x + d, v, head_dim - d);
  }
  for (int half = kLanes; half < block; half *= 2) {
    for (int i = 0; i < head_dim; i += 2 * half) {
      for (int j = i; j < i + half; j += kLanes) {
        const F32 a = Load(x + j);
        const F32 b = Load(x + j + half);
        Store(x + j, Add(a, b));
        Store(x + j + half, Sub(a, b));
      }
    }
  }
  ScaleRow(x, 1.0f / __builtin_sqrtf(static_cast<float>(block)), head_dim, x);
}

MNEMO_INLINE float LargestOf(const float* x, F32 factor, int head_dim) {
  F32 largest = Set(0.0f);
  for (int d = 0; d < head_dim; d += kLanes) {
    largest = Max(largest, Abs(Mul(LoadFirst(x + d, head_dim - d), factor)));
  }
  return ReduceMax(largest);
}

// out = round(factor * x / scale), in [-limit, limit], with head_dim rounded up to even; returns scale.
MNEMO_INLINE float ToFixedPoint(const float* x, float factor, int head_dim, float limit, int16_t* out) {
  const F32 f = Set(factor);
  const float maximum = LargestOf(x, f, head_dim);
  const F32 inverse = Set(maximum > 0.0f ? limit / maximum : 0.0f);
  const int even = (head_dim + 1) / 2 * 2;
  for (int d = 0; d < even; d += kLanes) {
    const I32 stored = RoundToInt(Mul(Mul(LoadFirst(x + d, head_dim - d), f), inverse));
    if (even - d >= kLanes) {
      StoreInt16(out + d, stored);
    } else {
      int16_t lanes[kLanes];
      StoreInt16(lanes, stored);
      __builtin_memcpy(out + d, lanes, static_cast<size_t>(even - d) * sizeof(int16_t));
    }
  }
  return maximum / limit;
}

float QuantizeQuery(const float* x, float factor, int head_dim, CacheFormat format, int16_t* out) {
  if (format != CacheFormat::kQ8) {
    return ToFixedPoint(x, factor, head_dim, FixedPointLimit(head_dim), out);
  }
  float rotated[kMaxHeadDim];
  __builtin_memcpy(rotated, x, static_cast<size_t>(head_dim) * sizeof(float));
  Rotate(rotated, head_dim);
  int16_t fixed[kMaxHeadDim] = {};
  const float scale = ToFixedPoint(rotated, factor, head_dim, kQuery8Limit, fixed);
  LayOutQuery8(fixed, head_dim, out);
  return scale;
}

MNEMO_INLINE uint32_t BitsOf(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
MNEMO_INLINE float FloatOf(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// Returns the scales of a key and a value with these largest magnitudes, as one word (see CacheView). Both
// are the smallest possible, except for rounding up.
MNEMO_INLINE uint32_t ScalesOf(float largest_key, float largest_value) {
  const uint32_t value = (BitsOf(largest_value * (1.0f / 127.0f)) + 0xffff) >> 16;
  const uint32_t key = BitsOf(largest_key * (1.0f / 127.0f));
  const uint32_t word = (key & 0xffff0000) | value;
  return word < key ? word + 0x10000 : word;
}

// Writes round(x / scale) + offset (0 or 128), [head_dim], one byte each.
MNEMO_INLINE void ToBytes(const float* x, float scale, int head_dim, uint8_t offset, uint8_t* out) {
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  // The inverse of a scale among the smallest numbers overflows.
  const F32 factor = Set(inverse < 3e38f ? inverse : 0.0f);
  for (int d = 0; d < head_dim; d += kLanes) {
    int8_t lanes[kLanes];
    const F32 scaled = Mul(LoadFirst(x + d, head_dim - d), factor);
    StoreInt8(lanes, RoundToInt(Max(Min(scaled, Set(127.0f)), Set(-127.0f))));
    for (int8_t& lane : lanes) lane = static_cast<int8_t>(lane ^ static_cast<int8_t>(offset));
    __builtin_memcpy(out + d, lanes, static_cast<size_t>(head_dim - d < kLanes ? head_dim - d : kLanes));
  }
}

MNEMO_INLINE void StoreRow8(const float* k, const float* v, int head_dim, const CacheView& cache,
                            uint16_t* head, int64_t key) {
  const F32 one = Set(1.0f);
  float rotated[kMaxHeadDim];
  __builtin_memcpy(rotated, k, static_cast<size_t>(head_dim) * sizeof(float));
  Rotate(rotated, head_dim);
  const uint32_t scales = ScalesOf(LargestOf(rotated, one, head_dim), LargestOf(v, one, head_dim));
  __builtin_memcpy(head + cache.scale_offset + key * 2, &scales, sizeof scales);
  uint8_t bytes[kMaxHeadDim + 4] = {};
  ToBytes(rotated, FloatOf(scales), head_dim, 128, bytes);
  auto* keys = reinterpret_cast<uint8_t*>(head) + key * 4;
  for (int d = 0; d < head_dim; d += 4) __builtin_memcpy(keys + d * kKeysPerPage, bytes + d, 4);
  if (cache.row_offset != 0) {
    __builtin_memcpy(head + cache.row_offset + key * cache.row_stride, bytes, static_cast<size_t>(head_dim));
  }
  ToBytes(v, FloatOf(scales << 16), head_dim, 0, bytes);
  __builtin_memcpy(head + cache.value_offset + key * cache.row_stride, bytes, static_cast<size_t>(head_dim));
}

void StoreRow(const float* k, const float* v, int kv_heads, int head_dim, const CacheView& cache,
              int64_t slot) {
  uint16_t* page = cache.base + slot / kKeysPerPage * cache.page_stride;
  const int64_t key = slot % kKeysPerPage;
  int16_t fixed[kMaxHeadDim];
  for (int h = 0; h < kv_heads; ++h) {
    uint16_t* head = page + h * cache.head_stride;
    if (cache.format == CacheFormat::kQ8) {
      StoreRow8(k + h * head_dim, v + h * head_dim, head_dim, cache, head, key);
      continue;
    }
    const float scale = ToFixedPoint(k + h * head_dim, 1.0f, head_dim, FixedPointLimit(head_dim), fixed);
    __builtin_memcpy(head + cache.scale_offset + key * 2, &scale, sizeof scale);
    uint16_t* keys = head + key * 2;
    for (int d = 0; d < head_dim; d += 2) __builtin_memcpy(keys + d * kKeysPerPage, fixed + d, 4);
    if (cache.row_offset != 0) {
      __builtin_memcpy(head + cache.row_offset + key * cache.row_stride, fixed,
                       static_cast<size_t>(head_dim) * sizeof(int16_t));
    }
    uint16_t* values = head + cache.value_offset + key * cache.row_stride;
    for (int d = 0; d < head_dim; d += kLanes) {
      // The width of values is a multiple of 16, so the last vector fits; its padding is zero.
      StoreCache(cache.format, values + d, LoadFirst(v + h * head_dim + d, head_dim - d));
    }
  }
}
