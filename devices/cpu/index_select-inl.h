// Ranks from scores, and selection by counting. Included once into each kernel file.

MNEMO_INLINE int32_t LargestLane(VH a) {
#if defined(MNEMO_KERNELS_AVX512)
  const __m256i half = _mm256_max_epi16(_mm512_castsi512_si256(Raw(a)), _mm512_extracti64x4_epi64(Raw(a), 1));
  const __m128i quarter = _mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  // One instruction finds the minimum of unsigned numbers. Flipping the bits maps the signed order, reversed,
  // to it.
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(0x7FFF)));
  return static_cast<int16_t>(_mm_cvtsi128_si32(least) ^ 0x7FFF);
#else
  int32_t largest = -32768;
  for (int i = 0; i < kBytes / 2; ++i) {
    largest = a[i] > largest ? a[i] : largest;
  }
  return largest;
#endif
}

void LargestOfEach(const int16_t* scores, size_t count, int16_t* largest) {
  for (size_t i = 0; i < count; i += 64) {
    VH best = LoadH(scores + i);
    for (size_t j = kBytes / 2; j < 64; j += kBytes / 2) {
      best = Max(best, LoadH(scores + i + j));
    }
    largest[i / 64] = static_cast<int16_t>(LargestLane(best));
  }
}

int32_t LargestScore(const int16_t* scores, size_t count) {
  VH best = SetH(-32768);
  for (size_t i = 0; i < count; i += kBytes / 2) {
    best = Max(best, LoadH(scores + i));
  }
  return LargestLane(best);
}

void RanksMax(const RankTask& task, int16_t* ranks) {
  constexpr size_t kStep = kBytes / 2;
  for (size_t i = 0; i < task.count; i += kStep) {
    VH rank = SetH(-4095);
    for (uint32_t g = 0; g < task.group; ++g) {
      const VH y = LoadH(task.scores + g * task.score_stride + i);
      rank = Max(rank, SubSaturated(y, SetH(static_cast<int16_t>(task.best[g]))));
    }
    StoreH(ranks + i, rank);
  }
}

void RanksPlainMax(const RankTask& task, int16_t* ranks) {
  constexpr size_t kStep = kBytes / 2;
  for (size_t i = 0; i < task.count; i += kStep) {
    VH rank = SetH(-32767);
    for (uint32_t g = 0; g < task.group; ++g) {
      rank = Max(rank, LoadH(task.scores + g * task.score_stride + i));
    }
    StoreH(ranks + i, rank);
  }
}

void RanksExp2(const RankTask& task, int32_t* ranks) {
  // round(2^24 * 2^(-x / 16)).
  static constexpr uint32_t kTable[16] = {16777216, 16065917, 15384775, 14732511, 14107901, 13509772,
                                          12937002, 12388516, 11863283, 11360319, 10878679, 10417458,
                                          9975792,  9552851,  9147842,  8760003};
  for (size_t i = 0; i < task.count; ++i) {
    ranks[i] = 0;
  }
  for (uint32_t g = 0; g < task.group; ++g) {
    const int16_t* scores = task.scores + g * task.score_stride;
    const int32_t best = task.best[g];
    for (size_t i = 0; i < task.count; ++i) {
      const auto below = static_cast<uint32_t>(best - scores[i]);
      ranks[i] += below >= 512 ? 0 : static_cast<int32_t>(kTable[below & 15] >> (below >> 4));
    }
  }
}

// counts + 1 in the lanes where rank is at least bound.
MNEMO_INLINE VH CountOne(VH counts, VH rank, VH bound) {
#if defined(MNEMO_KERNELS_AVX512)
  const __mmask32 reached = _mm512_cmpge_epi16_mask(Raw(rank), Raw(bound));
  return reinterpret_cast<VH>(
      _mm512_mask_sub_epi16(Raw(counts), reached, Raw(counts), _mm512_set1_epi16(-1)));
#else
  return counts - reinterpret_cast<VH>(rank >= bound);
#endif
}

// Counts the ranks that are at least each of three ascending bounds.
void CountThree(const int16_t* ranks, size_t count, const int32_t (&bounds)[3], uint32_t (&counts)[3]) {
  constexpr size_t kStep = kBytes / 2;
  const VH low = SetH(static_cast<int16_t>(bounds[0]));
  const VH middle = SetH(static_cast<int16_t>(bounds[1]));
  const VH high = SetH(static_cast<int16_t>(bounds[2]));
  counts[0] = counts[1] = counts[2] = 0;
  for (size_t from = 0; from < count;) {
    // A lane counts to at most 32,767.
    const size_t end = count - from > kStep * 32000 ? from + kStep * 32000 : count;
    VH a = {};
    VH b = {};
    VH c = {};
    for (; from < end; from += kStep) {
      const VH rank = LoadH(ranks + from);
      a = CountOne(a, rank, low);
      b = CountOne(b, rank, middle);
      c = CountOne(c, rank, high);
    }
    for (int i = 0; i < kBytes / 2; ++i) {
      counts[0] += static_cast<uint16_t>(a[i]);
      counts[1] += static_cast<uint16_t>(b[i]);
      counts[2] += static_cast<uint16_t>(c[i]);
    }
  }
}

uint32_t CountAtLeast(const int16_t* ranks, size_t count, int32_t bound) {
  const int32_t bounds[3] = {bound, bound, bound};
  uint32_t counts[3];
  CountThree(ranks, count, bounds, counts);
  return counts[0];
}

// The k-th rank is the largest bound that k ranks reach. There are 4,096 candidates, or all of 16 bits; each
// pass leaves a quarter.
int32_t KthRank(const int16_t* ranks, size_t count, uint32_t k, bool plain, uint32_t* above) {
  int32_t low = plain ? -32768 : -4095;
  // Number of ranks of at least low + width.
  uint32_t over = 0;
  for (int32_t width = plain ? 65536 : 4096; width > 1;) {
    width /= 4;
    const int32_t bounds[3] = {low + width, low + 2 * width, low + 3 * width};
    uint32_t counts[3];
    CountThree(ranks, count, bounds, counts);
    if (counts[2] >= k) {
      low = bounds[2];
    } else if (counts[1] >= k) {
      low = bounds[1];
      over = counts[2];
    } else if (counts[0] >= k) {
      low = bounds[0];
      over = counts[1];
    } else {
      over = counts[0];
    }
  }
  *above = over;
  return low;
}

// Returns 64 comparisons as bits.
MNEMO_INLINE void Compare64(const int16_t* ranks, int32_t last, uint64_t* over, uint64_t* equal) {
  const VH bound = SetH(static_cast<int16_t>(last));
  *over = *equal = 0;
#pragma GCC unroll 8
  for (int i = 0; i < 64; i += kBytes / 2) {
    const VH rank = LoadH(ranks + i);
#if defined(MNEMO_KERNELS_AVX512)
    *over |= uint64_t{_mm512_cmpgt_epi16_mask(Raw(rank), Raw(bound))} << i;
    *equal |= uint64_t{_mm512_cmpeq_epi16_mask(Raw(rank), Raw(bound))} << i;
#elif defined(MNEMO_KERNELS_AVX2)
    const __m256i more = _mm256_cmpgt_epi16(Raw(rank), Raw(bound));
    const __m256i same = _mm256_cmpeq_epi16(Raw(rank), Raw(bound));
    // Packing alternates between 128-bit halves; the permutation restores the order.
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(more, same), 0xD8);
    const auto bits = static_cast<uint32_t>(_mm256_movemask_epi8(packed));
    *over |= uint64_t{bits & 0xFFFF} << i;
    *equal |= uint64_t{bits >> 16} << i;
#else
    const __m128i packed =
        _mm_packs_epi16(_mm_cmpgt_epi16(Raw(rank), Raw(bound)), _mm_cmpeq_epi16(Raw(rank), Raw(bound)));
    const auto bits = static_cast<uint32_t>(_mm_movemask_epi8(packed));
    *over |= uint64_t{bits & 0xFF} << i;
    *equal |= uint64_t{bits >> 8} << i;
#endif
  }
}

uint32_t Collect(const int16_t* ranks, size_t count, int32_t last, uint32_t need, uint32_t first_id,
                 uint32_t* ids) {
  uint32_t written = 0;
  for (size_t i = 0; i < count; i += 64) {
    uint64_t over;
    uint64_t equal;
    Compare64(ranks + i, last, &over, &equal);
    if (need > 0 && equal != 0) {
      const auto equals = static_cast<uint32_t>(__builtin_popcountll(equal));
      uint64_t taken = equal;
      if (equals > need) {
        for (uint32_t n = 0; n < need; ++n) {
          equal &= equal - 1;
        }
        taken ^= equal;
        need = 0;
      } else {
        need -= equals;
      }
      over |= taken;
    }
    const auto first = first_id + static_cast<uint32_t>(i);
#if defined(MNEMO_KERNELS_AVX512)
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (uint32_t part = 0; over != 0; part += 16, over >>= 16) {
      const auto mask = static_cast<__mmask16>(over & 0xFFFF);
      const __m512i all = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(first + part)));
      _mm512_storeu_si512(ids + written, _mm512_maskz_compress_epi32(mask, all));
      written += static_cast<uint32_t>(__builtin_popcount(mask));
    }
#else
    for (; over != 0; over &= over - 1) {
      ids[written++] = first + static_cast<uint32_t>(__builtin_ctzll(over));
    }
#endif
  }
  return written;
}
