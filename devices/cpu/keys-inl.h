// Keys as stored in a page, and their products with queries. The sums of products are exact, so a score
// depends neither on the instruction set nor on the form from which a key is read.

#if defined(MNEMO_KERNELS_AVX512)
constexpr int kQueryTile = 6;
constexpr int kVectorTile = 4;
#elif defined(MNEMO_KERNELS_AVX2)
constexpr int kQueryTile = 3;
constexpr int kVectorTile = 1;
#else
constexpr int kQueryTile = 2;
constexpr int kVectorTile = 1;
#endif
static_assert(kQueryTile <= kMaxQueryTile);

template <int kN>
struct Count {
  static constexpr int kCount = kN;
};

// Queries made by quantize_query.
struct Queries {
  const int16_t* q;  // [rows, QueryStride]
  const float* scales;
  int head_dim;

  MNEMO_INLINE const int16_t* Row(int r) const { return q + int64_t{r} * QueryStride(head_dim); }
};

// Prefetch addresses for the scoring of a group: for each of 16 pointers a row at a distance, and a scale.
struct Ahead {
  const uint16_t* const* rows;
  const float* const* scales;
  int64_t offset;
};

template <int kRows, int kVectors>
MNEMO_INLINE void SetZero(I32 (&sum)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[r][j] = SetInt(0);
  }
}

// scores = sum * scales of key and query, for kVectorTile vectors of keys. The scores of row r are at scores
// + 512 r.
template <int kRows>
MNEMO_INLINE void StoreScores(const I32 (&sum)[kRows][kVectorTile], const float* key_scales,
                              const Queries& queries, float* scores) {
  F32 scale[kVectorTile];
#pragma GCC unroll 4
  for (int j = 0; j < kVectorTile; ++j) scale[j] = Load(key_scales + j * kLanes);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const F32 q_scale = Set(queries.scales[r]);
#pragma GCC unroll 4
    for (int j = 0; j < kVectorTile; ++j) {
      Store(scores + r * kKeysPerSplit + j * kLanes, Mul(ToFloat(sum[r][j]), Mul(scale[j], q_scale)));
    }
  }
}

// Keys in 16-bit fixed point.
struct Keys16 {
  using Element = int16_t;
  // Adjacent elements of a key in the first form.
  static constexpr int kColumn = 2;
  static constexpr bool kScaledValues = false;

  // Scores 64 keys; the scores of row r are at scores + 512 r. With kPrefetch, the same amount of memory is
  // prefetched at `next`: the hardware prefetcher stops at the end of each small page.
  template <bool kPrefetch, int kRows>
  MNEMO_INLINE static void ScorePage(const int16_t* keys, const float* key_scales, const Queries& queries,
                                     const int16_t* next, float* scores) {
    const int even_dim = (queries.head_dim + 1) / 2 * 2;
    for (int begin = 0; begin < kKeysPerPage; begin += kVectorTile * kLanes) {
      I32 sum[kRows][kVectorTile];
      SetZero(sum);
      for (int d = 0; d < even_dim; d += 2) {
        I32 k[kVectorTile];
#pragma GCC unroll 4
        for (int j = 0; j < kVectorTile; ++j) {
          k[j] = LoadPairs(keys + d * kKeysPerPage + (begin + j * kLanes) * 2);
          if (kPrefetch) __builtin_prefetch(next + d * kKeysPerPage + (begin + j * kLanes) * 2, 0, 2);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const I32 x = BroadcastPair(queries.Row(r) + d);
#pragma GCC unroll 4
          for (int j = 0; j < kVectorTile; ++j) sum[r][j] = DotPairs(sum[r][j], x, k[j]);
        }
      }
      StoreScores<kRows>(sum, key_scales + begin, queries, scores + begin);
    }
  }

  // Scores 16 keys, each contiguous. Four of them share a vector, a quarter each, so that one query's
  // products with all 16 are four sums that SumQuarters combines.
  template <int kRows>
  MNEMO_INLINE static void ScoreGroup(const int16_t* const* keys, const float* key_scales,
                                      const Queries& queries, const Ahead& ahead, float* scores) {
    const int even_dim = (queries.head_dim + 1) / 2 * 2;
    I32 sum[kRows][4];
    SetZero(sum);
    // A query's elements beyond its last one are multiplied by zeros.
    for (int d = 0; d < even_dim; d += 8) {
      // Without this, GCC moves the pointers to vector registers, and back for every use.
      __asm__ volatile("" : : : "memory");
      // Prefetches one line for four rows at a time; a burst would fill the miss queue and stall the work.
      const int first = d / 8 % 4 * 4;
#pragma GCC unroll 4
      for (int i = first; i < first + 4; ++i) {
        __builtin_prefetch(ahead.rows[i] + ahead.offset + d / 32 * 32, 0, 2);
        if (d < 32) __builtin_prefetch(ahead.scales[i], 0, 2);
      }
      I32 k[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        k[j] = LoadQuarters(keys[j] + d, keys[4 + j] + d, keys[8 + j] + d, keys[12 + j] + d);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const I32 x = BroadcastQuarter(queries.Row(r) + d);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sum[r][j] = DotPairs(sum[r][j], x, k[j]);
      }
    }
    const F32 scale = Load(key_scales);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Store(scores + r * kKeysPerSplit,
            Mul(ToFloat(SumQuarters(sum[r])), Mul(scale, Set(queries.scales[r]))));
    }
  }
};

// Largest magnitude of a query's fixed point for keys of 8 bits. It is two digits of 8 bits, and the dot
// product with 1024 key elements of 127 stays within 32 bits.
constexpr float kQuery8Limit = 16255.0f;

constexpr int PaddedDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// Returns minus 128 times the sum of the query's elements. It corrects the dot product with the stored bytes
// and is part of a query for Keys8.
MNEMO_INLINE int32_t OffsetOf(const int16_t* query, int head_dim) {
  int32_t offset;
  __builtin_memcpy(&offset, query + PaddedDim(head_dim), sizeof offset);
  return offset;
}

// Lays out the fixed point of a query [padded to 16] for Keys8. With VNNI: [padded] of the upper digits and
// [padded] of the lower ones, x = 128 upper + lower. Without: for each 16 elements, those of even number,
// then the others.
MNEMO_INLINE void LayOutQuery8(const int16_t* fixed, int head_dim, int16_t* out) {
  const int padded = PaddedDim(head_dim);
  int32_t sum = 0;
  for (int d = 0; d < padded; ++d) sum += fixed[d];
#if defined(MNEMO_KERNELS_VNNI)
  auto* digits = reinterpret_cast<int8_t*>(out);
  for (int d = 0; d < padded; ++d) {
    const int upper = (fixed[d] + 64) >> 7;
    digits[d] = static_cast<int8_t>(upper);
    digits[padded + d] = static_cast<int8_t>(fixed[d] - upper * 128);
  }
#else
  for (int d = 0; d < padded; ++d) out[d / 16 * 16 + d % 2 * 8 + d % 16 / 2] = fixed[d];
#endif
  const int32_t offset = -128 * sum;
  __builtin_memcpy(out + padded, &offset, sizeof offset);
}

// Keys as bytes, offset by +128 from the key's fixed point.
struct Keys8 {
  using Element = uint8_t;
  static constexpr int kColumn = 4;
  static constexpr bool kScaledValues = true;

  template <bool kPrefetch, int kRows>
  MNEMO_INLINE static void ScorePage(const uint8_t* keys, const float* key_scales, const Queries& queries,
                                     const uint8_t* next, float* scores) {
    for (int begin = 0; begin < kKeysPerPage; begin += kVectorTile * kLanes) {
      I32 sum[kRows][kVectorTile];
      SetZero(sum);
#if defined(MNEMO_KERNELS_VNNI)
      const int padded = PaddedDim(queries.head_dim);
      const int64_t stride = QueryStride(queries.head_dim);
      // The pass over the lower digits finds the keys in the L1 cache.
      for (int digit = 0; digit < 2; ++digit) {
        if (digit == 1) {
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
            for (int j = 0; j < kVectorTile; ++j) sum[r][j] = ShiftLeft<7>(sum[r][j]);
          }
        }
        const uint8_t* column = keys + begin * 4;
        const uint8_t* ahead = next + begin * 4;
        const int16_t* x = queries.q + digit * padded / 2;  // four digits per step
        for (int d = 0; d < queries.head_dim; d += 4) {
          I32 k[kVectorTile];
#pragma GCC unroll 4
          for (int j = 0; j < kVectorTile; ++j) {
            k[j] = LoadBytes(column + j * kLanes * 4);
            if (kPrefetch && digit == 0) __builtin_prefetch(ahead + j * kLanes * 4, 0, 2);
          }
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            const I32 quad = BroadcastPair(x + r * stride);
#pragma GCC unroll 4
            for (int j = 0; j < kVectorTile; ++j) sum[r][j] = DotQuads(sum[r][j], k[j], quad);
          }
          column += kKeysPerPage * 4;
          ahead += kKeysPerPage * 4;
          x += 2;
        }
      }
#else
      for (int d = 0; d < queries.head_dim; d += 4) {
        I32 even[kVectorTile];
        I32 odd[kVectorTile];
#pragma GCC unroll 4
        for (int j = 0; j < kVectorTile; ++j) {
          const int at = d * kKeysPerPage + (begin + j * kLanes) * 4;
          const I32 bytes = LoadBytes(keys + at);
          even[j] = EvenBytes(bytes);
          odd[j] = OddBytes(bytes);
          if (kPrefetch) __builtin_prefetch(next + at, 0, 2);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const int16_t* x = queries.Row(r) + d / 16 * 16 + d % 16 / 2;
          const I32 x_even = BroadcastPair(x);
          const I32 x_odd = BroadcastPair(x + 8);
#pragma GCC unroll 4
          for (int j = 0; j < kVectorTile; ++j) {
            sum[r][j] = DotPairs(DotPairs(sum[r][j], x_even, even[j]), x_odd, odd[j]);
          }
        }
      }
#endif
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const I32 offset = SetInt(OffsetOf(queries.Row(r), queries.head_dim));
#pragma GCC unroll 4
        for (int j = 0; j < kVectorTile; ++j) sum[r][j] = AddInt(sum[r][j], offset);
      }
      StoreScores<kRows>(sum, key_scales + begin, queries, scores + begin);
    }
  }

  template <int kRows>
  MNEMO_INLINE static void ScoreGroup(const uint8_t* const* keys, const float* key_scales,
                                      const Queries& queries, const Ahead& ahead, float* scores) {
    I32 sum[kRows][4];
    SetZero(sum);
    const auto* bytes = reinterpret_cast<const int16_t* const*>(keys);
    for (int d = 0; d < queries.head_dim; d += 16) {
      __asm__ volatile("" : : : "memory");
      const int first = d / 16 % 4 * 4;
#pragma GCC unroll 4
      for (int i = first; i < first + 4; ++i) {
        __builtin_prefetch(ahead.rows[i] + ahead.offset + d / 64 * 32, 0, 2);
        if (d < 64) __builtin_prefetch(ahead.scales[i], 0, 2);
      }
      I32 k[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        k[j] =
            LoadQuarters(bytes[j] + d / 2, bytes[4 + j] + d / 2, bytes[8 + j] + d / 2, bytes[12 + j] + d / 2);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#if defined(MNEMO_KERNELS_VNNI)
        // Sum of 128 times the products of the upper digits and those of the lower digits.
        const int16_t* x = queries.Row(r) + d / 2;
        const I32 upper = BroadcastQuarter(x);
        const I32 lower = BroadcastQuarter(x + PaddedDim(queries.head_dim) / 2);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const I32 product = ShiftLeft<7>(DotQuads(SetInt(0), k[j], upper));
          sum[r][j] = DotQuads(AddInt(sum[r][j], product), k[j], lower);
        }
#else
        const I32 x_even = BroadcastQuarter(queries.Row(r) + d);
        const I32 x_odd = BroadcastQuarter(queries.Row(r) + d + 8);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          sum[r][j] = DotPairs(DotPairs(sum[r][j], x_even, EvenBytes(k[j])), x_odd, OddBytes(k[j]));
        }
#endif
      }
    }
    const F32 scale = Load(key_scales);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const I32 total = AddInt(SumQuarters(sum[r]), SetInt(OffsetOf(queries.Row(r), queries.head_dim)));
      Store(scores + r * kKeysPerSplit, Mul(ToFloat(total), Mul(scale, Set(queries.scales[r]))));
    }
  }
};

// Scales of 16 values, from the words that hold their keys' scales (CacheView).
MNEMO_INLINE F32 ValueScales(const float* scales) {
  return AsFloat(ShiftLeft<16>(LoadBytes(reinterpret_cast<const uint8_t*>(scales))));
}
