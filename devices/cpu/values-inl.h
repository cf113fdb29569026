// Weighted sums of values of 8 bits (CacheView). Weights become fixed point as well, so the sum over the keys
// of a split is an integer sum. It is exact, whatever the order and form in which values are read.

// Source of values: bytes of the cache.
struct SourceBytes {
  using Element = int8_t;
  static constexpr bool kInCache = true;
};

// Largest weight of a row as fixed point: 512 products with 127 stay within 32 bits.
constexpr float kWeightLimit = 32767.0f;
static_assert(int64_t{kKeysPerSplit} * 32767 * 127 <= INT32_MAX);

struct KeyRange {
  int begin = 0;
  int end = 0;
};

// Converts the scores of `keys`, out of 512, to weights; other scores are not used. Stores keep(i, weights)
// in place of each vector of scores, from key i on. Sets the state's maximum and sum.
template <class Keep>
MNEMO_INLINE void Softmax(float* scores, KeyRange keys, float* state, Keep keep) {
  const float minus_infinity = -__builtin_inff();
  state[0] = minus_infinity;
  state[1] = 0.0f;
  if (keys.begin >= keys.end) return;
  const int first = keys.begin / kLanes * kLanes;
  const int last = (keys.end + kLanes - 1) / kLanes * kLanes;
  for (int i = first; i < keys.begin; ++i) scores[i] = minus_infinity;
  for (int i = keys.end; i < last; ++i) scores[i] = minus_infinity;
  F32 largest = Set(minus_infinity);
  for (int i = first; i < last; i += kLanes) largest = Max(largest, Load(scores + i));
  state[0] = ReduceMax(largest);
  const F32 shift = Set(state[0]);
  F32 total = Set(0.0f);
  for (int i = first; i < last; i += kLanes) {
    const F32 weight = Exp2(Sub(Load(scores + i), shift));
    Store(scores + i, keep(i, weight));
    total = Add(total, weight);
  }
  state[1] = ReduceAdd(total);
}

// Number of sums that one key contributes to: one per digit of the weights, or one for undivided weights.
#if defined(MNEMO_KERNELS_VNNI)
constexpr int kDigits = 2;
#else
constexpr int kDigits = 1;
#endif

// Stores the fixed point of 64 keys. With VNNI, the upper bytes of each four keys go to one area of 64 bytes
// and the lower bytes to the next. Without, their 16 bits each, the even keys first.
MNEMO_INLINE void StoreWeights(const I32 (&weights)[4], uint8_t* out) {
#if defined(MNEMO_KERNELS_VNNI)
  StoreDigits(weights, out, out + 64);
#else
  int16_t lanes[kKeysPerPage];
  for (int i = 0; i < 4; ++i) StoreInt16(lanes + i * kLanes, weights[i]);
  for (int i = 0; i < kKeysPerPage; i += 4) {
    const int16_t quad[] = {lanes[i], lanes[i + 2], lanes[i + 1], lanes[i + 3]};
    __builtin_memcpy(out + 2 * i, quad, sizeof quad);
  }
#endif
}

// Returns the offset in bytes of keys [key, key + 4) within a page's weights.
constexpr int WeightOffset(int key) {
  return kDigits == 2 ? key % kLanes / 4 * 16 + key / kLanes * 4 : 2 * key;
}

// Softmax of the scores of `mine`, replaced in place by the fixed point of weight x scale of the value, 128
// bytes per page. The other keys of the pages of `all` get weight 0. scales(i) returns the scales of keys [i,
// i + 16). Returns the value of one step of fixed point.
template <class Scales>
MNEMO_INLINE float FixedSoftmax(float* scores, KeyRange mine, KeyRange all, Scales scales, float* state) {
  F32 largest = Set(0.0f);
  Softmax(scores, mine, state, [&](int i, F32 weight) {
    // 0 where the weight is 0, whatever the cache holds there.
    const F32 scaled = ZeroUnlessGreater(weight, Set(0.0f), Mul(weight, ValueScales(scales(i))));
    largest = Max(largest, scaled);
    return scaled;
  });
  const float maximum = ReduceMax(largest);
  // The inverse of a maximum among the smallest numbers overflows.
  const F32 inverse = Set(maximum > 1e-30f ? kWeightLimit / maximum : 0.0f);
  auto* out = reinterpret_cast<uint8_t*>(scores);
  const int first = mine.begin / kLanes * kLanes;
  for (int page = all.begin / kKeysPerPage * kKeysPerPage; page < all.end; page += kKeysPerPage) {
    I32 fixed[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int at = page + i * kLanes;
      const bool seen = at >= first && at < mine.end;
      fixed[i] = seen ? RoundToInt(Mul(Load(scores + at), inverse)) : SetInt(0);
    }
    StoreWeights(fixed, out + 2 * page);
  }
  return maximum / kWeightLimit;
}

// Loads and interleaves values. With n = lane / 4 and e = lane % 4, a lane of vector `kFirst` + j holds the
// bytes of element 16 n + 4 j + e of the four keys. `count` bytes of each key are read, a multiple of 16.
template <int kFirst, int kVectors>
MNEMO_INLINE void LoadQuads(const int8_t* const (&keys)[4], int64_t count, I32 (&out)[kVectors]) {
  I32 k[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) k[i] = LoadFirstBytes(keys[i], count);
#pragma GCC unroll 2
  for (int half = kFirst / 2; half < (kFirst + kVectors + 1) / 2; ++half) {
    const I32 a = half == 0 ? InterleaveLowBytes(k[0], k[1]) : InterleaveHighBytes(k[0], k[1]);
    const I32 b = half == 0 ? InterleaveLowBytes(k[2], k[3]) : InterleaveHighBytes(k[2], k[3]);
    if (2 * half >= kFirst) out[2 * half - kFirst] = InterleaveLowPairs(a, b);
    if (2 * half + 1 < kFirst + kVectors) out[2 * half + 1 - kFirst] = InterleaveHighPairs(a, b);
  }
}

// Computes elements [d, d + count) of a value: out[r] = factors[r] x their weighted sum. The weights of row r
// are at r x 512 floats.
template <int kRows, int kFirst, int kVectors, class Rows>
MNEMO_INLINE void SumVectors(const Rows& rows, KeyRange keys, int64_t d, int64_t count, const float* weights,
                             const float* factors, float* out, int64_t out_stride) {
  I32 sum[kDigits * kRows][kVectors];
  SetZero(sum);
  const int begin = keys.begin / kKeysPerPage * kKeysPerPage;
  for (int page = begin; page < keys.end; page += kKeysPerPage) {
    const auto of_page = rows.Page(page);
    const int end = keys.end - page < kKeysPerPage ? keys.end - page : kKeysPerPage;
    const auto* fixed = reinterpret_cast<const uint8_t*>(weights) + 2 * page;
    for (int64_t key = 0; key < end; key += 4) {
      const int8_t* row[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        row[i] = of_page.Row(key + i) + d;
        if (kFirst == 0) __builtin_prefetch(of_page.Ahead(key + i) + d, 0, 2);
      }
      I32 v[kVectors];
      LoadQuads<kFirst, kVectors>(row, count, v);
      const auto* x = reinterpret_cast<const int16_t*>(fixed + WeightOffset(static_cast<int>(key)));
#if defined(MNEMO_KERNELS_VNNI)
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const I32 upper = BroadcastPair(x + r * kKeysPerSplit * 2);
        const I32 lower = BroadcastPair(x + r * kKeysPerSplit * 2 + 32);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
          sum[2 * r][j] = DotQuads(sum[2 * r][j], upper, v[j]);
          sum[2 * r + 1][j] = DotQuads(sum[2 * r + 1][j], lower, v[j]);
        }
      }
#else
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        const I32 even = EvenSignedBytes(v[j]);
        const I32 odd = OddSignedBytes(v[j]);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const I32 x_even = BroadcastPair(x + r * kKeysPerSplit * 2);
          const I32 x_odd = BroadcastPair(x + r * kKeysPerSplit * 2 + 2);
          sum[r][j] = DotPairs(DotPairs(sum[r][j], x_even, even), x_odd, odd);
        }
      }
#endif
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      I32 total = sum[kDigits * r][j];
      if constexpr (kDigits == 2) total = AddInt(ShiftLeft<8>(total), sum[kDigits * r + 1][j]);
      float lanes[kLanes];
      Store(lanes, Mul(ToFloat(total), Set(factors[r])));
      for (int n = 0; 16 * n < count; ++n) {
        __builtin_memcpy(out + r * out_stride + d + 16 * n + 4 * (kFirst + j), lanes + 4 * n,
                         4 * sizeof(float));
      }
    }
  }
}

// out[r] = factors[r] x sum of weight x value, [width], with weights made by FixedSoftmax.
template <int kRows, class Rows>
MNEMO_INLINE void SumBytes(const Rows& rows, KeyRange keys, int64_t width, const float* weights,
                           const float* factors, float* out, int64_t out_stride) {
  for (int64_t d = 0; d < width; d += 64) {
    const int64_t count = width - d < 64 ? width - d : 64;
    auto sum = [&](auto first, auto vectors) {
      SumVectors<kRows, decltype(first)::kCount, decltype(vectors)::kCount>(rows, keys, d, count, weights,
                                                                            factors, out, out_stride);
    };
#if defined(MNEMO_KERNELS_AVX512)
    if constexpr (kRows <= 3) {
      sum(Count<0>{}, Count<4>{});
    } else {
      sum(Count<0>{}, Count<2>{});
      sum(Count<2>{}, Count<2>{});
    }
#else
    sum(Count<0>{}, Count<1>{});
    sum(Count<1>{}, Count<1>{});
    sum(Count<2>{}, Count<1>{});
    sum(Count<3>{}, Count<1>{});
#endif
  }
}
