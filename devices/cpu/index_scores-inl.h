// Scores of resident pages (index_kernels.h defines their layout). Included once into each kernel file.

constexpr int kMaxDim = layout::kMaxDim;
constexpr int kPage = 64;

// T8[i] = round(128 * 2^(i / 8)), as in proto/layout/numerics.h.
constexpr int32_t kMantissa[8] = {128, 140, 152, 166, 181, 197, 215, 235};

MNEMO_INLINE int32_t Limit(int32_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : value;
}
MNEMO_INLINE int32_t Saturate(int32_t value) { return Limit(value, -32768, 32767); }

// Returns, for code formats, the smallest shift that brings 127 * code_max * dim * 235 into 15 bits and a
// sign.
int32_t ShiftOfDot(int32_t code_max, uint32_t dim) {
  int64_t largest = int64_t{127} * code_max * dim * 235;
  int32_t shift = 0;
  for (; largest > 32767; largest >>= 1) {
    ++shift;
  }
  return shift;
}

// Returns a term that has its own scale.
MNEMO_INLINE int32_t OwnTerm(int32_t dot, uint32_t scale, int32_t dot_shift, const QueryParams& param) {
  const int32_t v = (dot * kMantissa[scale & 7]) >> Limit(dot_shift, 0, 31);
  const int32_t down = param.shift - 105 - dot_shift - static_cast<int32_t>(scale >> 3);
  return Saturate((v * param.multiplier) >> Limit(down, 0, 31));
}

// One query, laid out for a format.
struct Query {
  // Operands of Dot, in the order of the loops below.
  alignas(64) int8_t quads[2 * kMaxDim * 4];
  // Padded with zeros to 64.
  alignas(64) int8_t plain[kMaxDim];
  // Sum of the codes.
  int32_t sum = 0;
  QueryParams param;
};

typedef int8_t Bytes32 __attribute__((vector_size(32)));
typedef Bytes32 Bytes32Anywhere __attribute__((aligned(1), may_alias));

// Lays out the quads for planes. Bit s of the four bytes of a plane's quad stands for elements s, 8 + s, 16 +
// s, 24 + s of each 32.
void SpreadForPlanes(const int8_t* codes, uint32_t dim, int8_t* quads) {
  constexpr Bytes32 kOrder = {0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
                              4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31};
  for (uint32_t first = 0; first < dim; first += 32) {
    Bytes32 part = {};
    if (dim - first >= 32) {
      part = *reinterpret_cast<const Bytes32Anywhere*>(codes + first);
    } else {
      __builtin_memcpy(&part, codes + first, 16);
    }
    *reinterpret_cast<Bytes32Anywhere*>(quads + first) = __builtin_shuffle(part, kOrder);
  }
}

typedef int32_t FourQuads __attribute__((vector_size(16), aligned(1), may_alias));

// Repeats each quad four times, once for each part of a page.
void SpreadForParts(const int8_t* codes, uint32_t dim, int8_t* quads) {
  for (uint32_t i = 0; i < dim; i += 4) {
    const Quad quad = *reinterpret_cast<const Quad*>(codes + i);
    *reinterpret_cast<FourQuads*>(quads + i * 4) = FourQuads{quad, quad, quad, quad};
  }
}

void Spread(const int8_t* codes, uint32_t dim, uint32_t format, Query* query) {
  const int8_t* from = codes;
  if (dim < 64) {
    __builtin_memset(query->plain, 0, 64);
    __builtin_memcpy(query->plain, codes, dim);
    from = query->plain;
  }
  VI sum = {};
  for (uint32_t i = 0; i < dim; i += kBytes) {
    const VI part = Load(from + i);
    Store(query->plain + i, part);
    sum = Dot<true>(sum, Set(0x01010101), part);
  }
  query->sum = Sum(sum);
  if (format == layout::kFormatCodes2) {
    SpreadForPlanes(codes, dim, query->quads);
  } else if (format == layout::kFormatCodes4) {
    for (uint32_t q = 0; q < dim / 8; ++q) {  // low nibbles are the elements of the first half
      __builtin_memcpy(query->quads + q * 8, codes + q * 4, 4);
      __builtin_memcpy(query->quads + q * 8 + 4, codes + dim / 2 + q * 4, 4);
    }
  } else if (format == layout::kFormatCodes8) {
    __builtin_memcpy(query->quads, codes, dim);
  } else if (format == layout::kFormatBounds) {
    // max(q * low, q * high) is q * low where q < 0 and q * high elsewhere: two dot products, with the
    // query's negative and positive elements.
    int8_t negative[kMaxDim];
    int8_t positive[kMaxDim];
    for (uint32_t i = 0; i < dim; ++i) {
      negative[i] = codes[i] < 0 ? codes[i] : int8_t{0};
      positive[i] = codes[i] < 0 ? int8_t{0} : codes[i];
    }
    SpreadForParts(negative, dim, query->quads);
    SpreadForParts(positive, dim, query->quads + size_t{dim} * 4);
  } else {
    SpreadForParts(codes, dim, query->quads);
  }
}

MNEMO_INLINE VI Broadcast(const int8_t* quad) { return Set(*reinterpret_cast<const Quad*>(quad)); }

enum class Code { kSign, kTwoBits, kFourBits, kEightBits };

// Number of sums of a query. The four fields of a byte of 2-bit codes can be multiplied in place, each field
// into its own sum, which is 4^field times too large. That saves the shifts. Several queries share the cost
// of the shifts, a single query does not. Products of such large codes need VNNI.
template <Code kCode, int kQueries>
constexpr int SumsOfQuery() {
#if defined(MNEMO_KERNELS_VNNI)
  return kCode == Code::kTwoBits && kQueries == 1 ? 4 : 1;
#else
  return 1;
#endif
}

// Products of small codes are added in 16 bits over the steps of a quad row: 8 of 2 * 3 * 128, or 2 of
// 2 * 15 * 128. VNNI adds four products at once.
#if defined(MNEMO_KERNELS_VNNI)
constexpr bool kAddsPairs = false;
#else
constexpr bool kAddsPairs = true;
#endif

// acc[g * sums][c] += products of quad row `q`, for chunk vectors c.
template <Code kCode, int kQueries, int kVectors, int kSums>
MNEMO_INLINE void AddQuadRow(const uint8_t* rows, const uint8_t* second, uint32_t q,
                             const Query* const* queries, const int (&at)[kVectors],
                             VI (&acc)[kQueries * kSums][kVectors]) {
  constexpr int kSteps = kCode == Code::kSign || kCode == Code::kTwoBits ? 8
                         : kCode == Code::kFourBits                      ? 2
                                                                         : 1;
  // Two bits: fields of the odd elements.
  VI high[kVectors];
  // Two bits: fields of the even elements; otherwise the row as it is.
  VI low[kVectors];
#pragma GCC unroll 8
  for (int c = 0; c < kVectors; ++c) {
    low[c] = Load(rows + q * 256 + at[c]);
    if constexpr (kCode == Code::kTwoBits) {
      const VI sign = low[c];
      const VI other = Load(second + q * 256 + at[c]);
      const VI odd = Set(static_cast<int32_t>(0xAAAAAAAA));
      high[c] = Select(odd, sign, reinterpret_cast<VI>(reinterpret_cast<VU>(other) >> 1));
      low[c] = Select(odd, sign << 1, other);
    }
  }
  constexpr bool kPairs = kAddsPairs && kCode != Code::kEightBits;
  [[maybe_unused]] VH pairs[kQueries][kVectors] = {};
#pragma GCC unroll 8
  for (int s = 0; s < kSteps; ++s) {
    VI codes[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      if constexpr (kCode == Code::kSign) {
        codes[c] = (low[c] >> s) & 0x01010101;
      } else if constexpr (kSums == 4) {
        codes[c] = (s % 2 != 0 ? high[c] : low[c]) & static_cast<int32_t>(0x03030303U << (s / 2 * 2));
      } else if constexpr (kCode == Code::kTwoBits) {
        codes[c] = ((s % 2 != 0 ? high[c] : low[c]) >> (s / 2 * 2)) & 0x03030303;
      } else if constexpr (kCode == Code::kFourBits) {
        codes[c] = (low[c] >> (4 * s)) & 0x0F0F0F0F;
      } else {
        codes[c] = low[c];
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < kQueries; ++g) {
      const VI query = Broadcast(queries[g]->quads + (q * kSteps + static_cast<uint32_t>(s)) * 4);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        if constexpr (kPairs) {
          pairs[g][c] += PairProducts(codes[c], query);
        } else {
          VI& sum = acc[kSums == 4 ? s / 2 : g][c];
          sum = Dot < kCode != Code::kEightBits && kSums == 1 > (sum, codes[c], query);
        }
      }
    }
  }
  if constexpr (kPairs) {
#pragma GCC unroll 8
    for (int g = 0; g < kQueries; ++g) {
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        acc[g][c] = AddPairs(acc[g][c], pairs[g][c]);
      }
    }
  }
}

// Pages whose terms are computed together.
constexpr uint32_t kRun = 16;

// Terms of a page and query that are the same for all tokens.
struct PageTerms {
  // y of the page's base.
  int32_t base[kRun];
  // Final shift of the tokens' part.
  int32_t down[kRun];
};

// Computes v * multiplier >> down for 16-bit v, saturated. v * m = v * (m - 65536) + (v << 16), and a shift
// of 16 or more keeps only its upper half.
MNEMO_INLINE VH ScaleShort(VH v, int32_t multiplier, int32_t down) {
  if (down >= 16) {
    return multiplier == 0
               ? VH{}
               : (HighProduct(v, SetH(static_cast<int16_t>(multiplier - 65536))) + v) >> (down - 16);
  }
  return Pack((UnpackLow(v) << 16 >> 16) * multiplier >> down,
              (UnpackHigh(v) << 16 >> 16) * multiplier >> down);
}

// Parameters of a task's 16-bit arithmetic. For planes, dot << up fits 16 bits up to some dim (2 bits: 64,
// sign plane only: 256), and (dot << up) * (T8 << 8) >> 16 equals dot * T8 >> dot_shift.
struct ShortDot {
  bool fits = false;
  int32_t up = 0;
  int32_t dot_shift = 0;
};

template <Code kCode>
ShortDot ShortDotOf(uint32_t dim, int32_t dot_shift) {
// Other instruction sets cannot shift 16-bit lanes by different counts.
#if defined(MNEMO_KERNELS_AVX512)
  return {(kCode == Code::kTwoBits && dim <= 64) || (kCode == Code::kSign && dim <= 256), 8 - dot_shift,
          dot_shift};
#else
  (void)dim;
  return {false, 0, dot_shift};
#endif
}

// Computes y of two vectors of tokens from the sums of unsigned codes.
template <Code kCode>
MNEMO_INLINE VH TokenScores(VI dot_a, VI dot_b, VH scales, [[maybe_unused]] const ShortDot& narrow,
                            const Query& query, int32_t base, int32_t down) {
  constexpr int kTimes = kCode == Code::kTwoBits ? 3 : kCode == Code::kSign ? 1 : 0;
#if defined(MNEMO_KERNELS_AVX512)
  if constexpr (kTimes != 0) {
    if (narrow.fits) {
      const VH dot = Pack(dot_a, dot_b);
      const VH exact = (dot + dot - SetH(static_cast<int16_t>(kTimes * query.sum))) << narrow.up;
      const VH below = reinterpret_cast<VH>(_mm512_srli_epi16(Raw(scales), 8)) -
                       SetH(static_cast<int16_t>(narrow.dot_shift));
      const VH v = HighProduct(exact, scales << 8) + exact;
      const VH shifted = reinterpret_cast<VH>(_mm512_srav_epi16(Raw(v), Raw(below)));
      return AddSaturated(ScaleShort(shifted, query.param.multiplier, down),
                          SetH(static_cast<int16_t>(base)));
    }
  }
#endif
  if constexpr (kTimes != 0) {
    dot_a = dot_a + dot_a - kTimes * query.sum;
    dot_b = dot_b + dot_b - kTimes * query.sum;
  }
  const VI scales_a = UnpackLow(scales);
  const VI scales_b = UnpackHigh(scales);
  const VI v_a = (dot_a * (scales_a & 255)) >> (scales_a >> 8);
  const VI v_b = (dot_b * (scales_b & 255)) >> (scales_b >> 8);
  return AddSaturated(ScaleShort(Pack(v_a, v_b), query.param.multiplier, down),
                      SetH(static_cast<int16_t>(base)));
}

// Sums the lanes of up to four vectors.
template <int kQueries>
MNEMO_INLINE void SumEach(const VI (&dots)[kQueries], int32_t (&sums)[4]) {
#if defined(MNEMO_KERNELS_AVX512)
  const __m512i a = Raw(dots[0]);
  const __m512i b = Raw(dots[kQueries > 1 ? 1 : 0]);
  const __m512i c = Raw(dots[kQueries > 2 ? 2 : 0]);
  const __m512i d = Raw(dots[kQueries > 3 ? 3 : 0]);
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums),
                   _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
#else
  for (int g = 0; g < kQueries; ++g) {
    sums[g] = Sum(dots[g]);
  }
#endif
}

template <bool kSign, int kQueries>
void MakeTerms(const uint8_t* const* pages, uint32_t count, size_t block_offset, uint32_t dim,
               const BlockLayout& at, const Query* const* queries, int32_t code_shift, int32_t base_shift,
               PageTerms (&terms)[kQueries]) {
  alignas(64) int32_t dots[kQueries][kRun] = {};
  alignas(64) int32_t scales[kRun] = {};
  alignas(64) int32_t tops[kRun] = {};
  const uint32_t bytes = (dim + 63) / 64 * 64;
  for (uint32_t p = 0; p < count; ++p) {
    const uint8_t* block = pages[p] + block_offset;
    const auto* header = reinterpret_cast<const BlockHeader*>(block);
    scales[p] = header->base_scale;
    tops[p] = kSign ? header->sign_scale >> 3 : header->top_octave;
    VI sums[kQueries] = {};
    for (uint32_t i = 0; i < bytes; i += kBytes) {
      const VI row = Load(block + at.base + i);
#pragma GCC unroll 4
      for (int g = 0; g < kQueries; ++g) {
        sums[g] = Dot<false>(sums[g], row, Load(queries[g]->plain + i));
      }
    }
    int32_t each[4];
    SumEach(sums, each);
    for (int g = 0; g < kQueries; ++g) {
      dots[g][p] = each[g];
    }
  }
  for (int g = 0; g < kQueries; ++g) {
    const QueryParams param = queries[g]->param;
    const int32_t correction = 128 * queries[g]->sum;
    for (uint32_t p = 0; p < kRun; ++p) {
      const int32_t dot = dots[g][p] - correction;
      const int32_t v = (dot * kMantissa[scales[p] & 7]) >> base_shift;
      const int32_t down = Limit(param.shift - 105 - base_shift - (scales[p] >> 3), 0, 31);
      terms[g].base[p] = Saturate((v * param.multiplier) >> down);
      terms[g].down[p] = Limit(param.shift - 105 - code_shift - tops[p], 0, 31);
    }
  }
}

// Prefetch distance in pages. Pages are not adjacent, so the lines of a later page are prefetched while this
// one is processed. Processing one page takes less time than a memory access.
constexpr uint32_t kPagesAhead = 2;

MNEMO_INLINE void Prefetch(const uint8_t* lines, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(lines + i, 0, 2);
  }
}

// Number of chunk pairs processed together. With few queries, more tokens keep enough sums in flight.
constexpr int kMostPairs = kLanes == 16 ? 2 : 1;

// Scores page `n` of a run: its first `tokens`, rounded up to whole steps. `next` is the block to read after
// it.
template <Code kCode, int kQueries, int kPairs>
MNEMO_INLINE void ScoreTokens(const uint8_t* block, const BlockLayout& at, const Query* const* queries,
                              uint32_t dim, int32_t code_shift, const ShortDot& narrow,
                              const PageTerms (&terms)[kQueries], uint32_t n, const uint8_t* next, int tokens,
                              int16_t* scores, size_t score_stride) {
  constexpr int kVectors = 2 * kPairs;
  constexpr bool kPlanes = kCode == Code::kSign || kCode == Code::kTwoBits;
  const auto* header = reinterpret_cast<const BlockHeader*>(block);
  const uint32_t quads = kPlanes ? (dim + 31) / 32 : kCode == Code::kFourBits ? dim / 8 : dim / 4;
  const auto* token_scales = reinterpret_cast<const uint16_t*>(block + at.token_scales);
  const VH sign_scales = SetH(static_cast<int16_t>(kMantissa[header->sign_scale & 7] | code_shift << 8));
  for (int token = 0; token < tokens; token += kLanes * kVectors) {
    // Offset in bytes within a quad row.
    int offset[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const int first = token + c / 2 * 2 * kLanes;
      offset[c] = (first / 32 * 2 + c % 2) * 64 + first % 32 / 2 * 4;
    }
    constexpr int kSums = SumsOfQuery<kCode, kQueries>();
    VI acc[kQueries * kSums][kVectors] = {};
#pragma GCC unroll 8
    for (int g = 0; g < kQueries; ++g) {
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        acc[g][c] = Set(kCode == Code::kFourBits    ? -8 * queries[g]->sum
                        : kCode == Code::kEightBits ? -128 * queries[g]->sum
                                                    : 0);
      }
    }
    for (uint32_t q = 0; q < quads; ++q) {
      if (token == 0) {
        Prefetch(next + at.rows + q * 256, 256);
        if constexpr (kCode == Code::kTwoBits) {
          Prefetch(next + at.second + q * 256, 256);
        }
      }
      AddQuadRow<kCode, kQueries, kVectors, kSums>(block + at.rows, block + at.second, q, queries, offset,
                                                   acc);
    }
    if constexpr (kSums == 4) {
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        acc[0][c] += (acc[1][c] >> 2) + (acc[2][c] >> 4) + (acc[3][c] >> 6);
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; c += 2) {
      const VH scales = kCode == Code::kSign ? sign_scales : LoadH(token_scales + token + c * kLanes);
#pragma GCC unroll 8
      for (int g = 0; g < kQueries; ++g) {
        StoreH(scores + static_cast<size_t>(g) * score_stride + token + c * kLanes,
               TokenScores<kCode>(acc[g][c], acc[g][c + 1], scales, narrow, *queries[g], terms[g].base[n],
                                  terms[g].down[n]));
      }
    }
  }
}

template <Code kCode, int kQueries>
void ScorePage(const uint8_t* block, const BlockLayout& at, const Query* const* queries,
               const ScoreTask& task, int32_t code_shift, const ShortDot& narrow,
               const PageTerms (&terms)[kQueries], uint32_t n, const uint8_t* next, int16_t* scores) {
  ScoreTokens<kCode, kQueries, kMostPairs>(block, at, queries, task.dim, code_shift, narrow, terms, n, next,
                                           kPage, scores, task.score_stride);
}

// Lays out query n of a head.
void SpreadQuery(const ScoreTask& task, uint32_t head, uint32_t n, Query* query) {
  Spread(task.codes + head * task.code_stride + size_t{n} * task.dim, task.dim, task.format, query);
  query->param = task.params[head * task.group + n];
}

template <int kQueries>
void SpreadQueries(const ScoreTask& task, uint32_t head, uint32_t first_query, Query (&spread)[kQueries],
                   const Query* (&queries)[kQueries]) {
  for (int g = 0; g < kQueries; ++g) {
    SpreadQuery(task, head, first_query + static_cast<uint32_t>(g), &spread[g]);
    queries[g] = &spread[g];
  }
}

template <Code kCode, int kQueries>
void ScorePages(const ScoreTask& task, uint32_t first_query) {
  struct Head {
    Query spread[kQueries];
    const Query* queries[kQueries];
    PageTerms terms[kQueries];
  };
  Head heads[kMostScoreHeads];
  const BlockLayout at = BlockOf(task.format, task.dim);
  // Memory that no earlier step has prefetched: the first pages, and the data that MakeTerms reads of the
  // first run.
  const uint32_t first_run = task.page_count < kRun ? task.page_count : kRun;
  for (uint32_t p = 0; p < first_run; ++p) {
    for (uint32_t h = 0; h < task.heads; ++h) {
      Prefetch(task.pages[p] + task.block_offset + size_t{h} * at.bytes, p >= kPagesAhead       ? at.rows
                                                                         : kCode == Code::kSign ? at.second
                                                                                                : at.bytes);
    }
  }
  for (uint32_t h = 0; h < task.heads; ++h) {
    SpreadQueries(task, h, first_query, heads[h].spread, heads[h].queries);
  }
  constexpr int32_t kCodeMax = kCode == Code::kSign       ? 1
                               : kCode == Code::kTwoBits  ? 3
                               : kCode == Code::kFourBits ? 7
                                                          : 127;
  const int32_t code_shift = ShiftOfDot(kCodeMax, task.dim);
  const int32_t base_shift = ShiftOfDot(127, task.dim);
  const ShortDot narrow = ShortDotOf<kCode>(task.dim, code_shift);
  for (uint32_t first = 0; first < task.page_count; first += kRun) {
    const uint32_t count = task.page_count - first < kRun ? task.page_count - first : kRun;
    for (uint32_t h = 0; h < task.heads; ++h) {
      MakeTerms<kCode == Code::kSign, kQueries>(task.pages + first, count,
                                                task.block_offset + size_t{h} * at.bytes, task.dim, at,
                                                heads[h].queries, code_shift, base_shift, heads[h].terms);
    }
    for (uint32_t n = 0; n < count; ++n) {
      const uint32_t p = first + n;
      const uint32_t after = p + kPagesAhead < task.page_count ? p + kPagesAhead : task.page_count - 1;
      for (uint32_t h = 0; h < task.heads; ++h) {
        const size_t offset = task.block_offset + size_t{h} * at.bytes;
        const uint8_t* next = task.pages[after] + offset;
        Prefetch(next + at.token_scales, kCode == Code::kSign ? 0 : 128);
        if (p + kRun < task.page_count) {  // prefetch for MakeTerms
          Prefetch(task.pages[p + kRun] + offset, at.rows);
        }
        ScorePage<kCode, kQueries>(
            task.pages[p] + offset, at, heads[h].queries, task, code_shift, narrow, heads[h].terms, n, next,
            task.scores + h * task.head_stride + first_query * task.score_stride + size_t{p} * kPage);
      }
    }
  }
}

// Defined in index_listed-inl.h.
template <int kQueries>
void ScoreListed(const ScoreTask& task, uint32_t first_query);

// Scores the tokens of a page, or listed tokens.
template <Code kCode, bool kListed, int kQueries>
MNEMO_INLINE void ScoreQueries(const ScoreTask& task, uint32_t first_query) {
  if constexpr (kListed) {
    ScoreListed<kQueries>(task, first_query);
  } else {
    ScorePages<kCode, kQueries>(task, first_query);
  }
}

template <Code kCode, bool kListed = false>
void ScoreCodes(const ScoreTask& task) {
  for (uint32_t g = 0; g < task.group;) {
    const uint32_t left = task.group - g;
    if (left >= 4) {
      ScoreQueries<kCode, kListed, 4>(task, g);
      g += 4;
    } else if (left == 3) {
      ScoreQueries<kCode, kListed, 3>(task, g);
      g += 3;
    } else if (left == 2) {
      ScoreQueries<kCode, kListed, 2>(task, g);
      g += 2;
    } else {
      ScoreQueries<kCode, kListed, 1>(task, g);
      g += 1;
    }
  }
}

// Computes the dot products of a page's four parts with a query's quads.
MNEMO_INLINE void PartDots(const uint8_t* rows, uint32_t bytes, const Query& query, int32_t (&dots)[4]) {
  VI sum = {};
  for (uint32_t i = 0; i < bytes; i += kBytes) {
    sum = Dot<false>(sum, Load(rows + i), Load(query.quads + i));
  }
  for (int part = 0; part < 4; ++part) {
    dots[part] = sum[part];
    for (int i = 4; i < kLanes; i += 4) {
      dots[part] += sum[i + part];
    }
    dots[part] -= 128 * query.sum;
  }
}

int32_t PageRowDot(const uint8_t* row, const Query& query, uint32_t dim) {
  const auto* codes = reinterpret_cast<const int8_t*>(row);
  int32_t dot = 0;
  for (uint32_t i = 0; i < dim; ++i) {
    dot += query.plain[i] * codes[i];
  }
  return dot;
}

// Scores bounds and means: rows that stand for 16 tokens or, with kWhole, for 64.
template <bool kBounds, bool kWhole>
void ScoreParts(const ScoreTask& task) {
  const BlockLayout at = BlockOf(task.format, task.dim);
  const int32_t dot_shift = ShiftOfDot(127, task.dim);
  const uint32_t bytes = task.dim * 4 * (kBounds ? 2 : 1);
  Query queries[kMostScoreHeads];
  for (uint32_t g = 0; g < task.group; ++g) {
    for (uint32_t h = 0; h < task.heads; ++h) {
      SpreadQuery(task, h, g, &queries[h]);
    }
    int16_t* const scores = task.scores + g * task.score_stride;
    for (uint32_t p = 0; p < task.page_count; ++p) {
      const uint8_t* block = task.pages[p] + task.block_offset;
      if (g == 0 && p + 1 < task.page_count) {
        Prefetch(task.pages[p + 1] + task.block_offset, task.heads * at.bytes);
      }
      for (uint32_t h = 0; h < task.heads; ++h, block += at.bytes) {
        const Query& query = queries[h];
        int16_t* const of_page = scores + h * task.head_stride + size_t{p} * (kWhole ? 1 : 4);
        const auto* header = reinterpret_cast<const BlockHeader*>(block);
        if constexpr (!kBounds && kWhole) {
          const int32_t dot = PageRowDot(block + at.page_row, query, task.dim);
          *of_page = static_cast<int16_t>(OwnTerm(dot, header->row_scales[4], dot_shift, query.param));
          continue;
        }
        int32_t dots[4];
        PartDots(block + at.rows, bytes, query, dots);
        int32_t y[4];
        for (int part = 0; part < 4; ++part) {
          y[part] = OwnTerm(dots[part], header->row_scales[part], dot_shift, query.param);
        }
        if constexpr (kWhole) {
          const int32_t a = y[0] > y[1] ? y[0] : y[1];
          const int32_t b = y[2] > y[3] ? y[2] : y[3];
          *of_page = static_cast<int16_t>(a > b ? a : b);
          continue;
        }
        for (int part = 0; part < 4; ++part) {
          of_page[part] = static_cast<int16_t>(y[part]);
        }
      }
    }
  }
}

void Score(const ScoreTask& task) {
  if (task.format == layout::kFormatCodes2) {
    if (task.listed != nullptr) {
      ScoreCodes<Code::kTwoBits, true>(task);
    } else if (task.sign_stage) {
      ScoreCodes<Code::kSign>(task);
    } else {
      ScoreCodes<Code::kTwoBits>(task);
    }
  } else if (task.format == layout::kFormatCodes4) {
    ScoreCodes<Code::kFourBits>(task);
  } else if (task.format == layout::kFormatCodes8) {
    ScoreCodes<Code::kEightBits>(task);
  } else if (task.format == layout::kFormatBounds) {
    task.whole_pages ? ScoreParts<true, true>(task) : ScoreParts<true, false>(task);
  } else {
    task.whole_pages ? ScoreParts<false, true>(task) : ScoreParts<false, false>(task);
  }
}
