// Scores of listed tokens, 2-bit codes. The listed tokens of a page are packed to the front of a temporary
// page, so that the code that scores whole pages scores only these. Included once into each kernel file.

// Header and base, which are not read from it, then two planes and the scales.
constexpr uint32_t kPackedBytes = 64 + kMaxDim + 2 * kPage * kMaxDim / 8 + 2 * kPage;

// Returns how many of the listed tokens from `i` on are in the page of token `i`, which exists.
uint32_t TokensOfPage(const uint32_t* listed, uint32_t i, uint32_t end) {
  const uint32_t page = listed[i] / kPage;
#if defined(MNEMO_KERNELS_AVX512)
  uint64_t equal = 0;
  for (int part = 0; part < 64; part += 16) {
    const __m512i pages = _mm512_srli_epi32(_mm512_loadu_si512(listed + i + part), 6);
    equal |= uint64_t{_mm512_cmpeq_epi32_mask(pages, _mm512_set1_epi32(static_cast<int32_t>(page)))} << part;
  }
  const auto count = static_cast<uint32_t>(~equal == 0 ? 64 : __builtin_ctzll(~equal));
  return count < end - i ? count : end - i;
#else
  uint32_t next = i + 1;
  while (next < end && listed[next] / kPage == page) {
    ++next;
  }
  return next - i;
#endif
}

// PackTokens: copies quad rows and scales of `count` listed tokens of `block` to the first tokens of
// `packed`.
#if defined(MNEMO_KERNELS_AVX512)
void PackTokens(const uint8_t* block, const BlockLayout& at, uint32_t quads, const uint32_t* listed,
                uint32_t count, uint8_t* packed) {
  // Token numbers of the lanes of two chunks.
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  const __m512i in_page = _mm512_set1_epi32(63);
  for (uint32_t first = 0; first < count; first += 32) {
    const __m512i a = _mm512_and_si512(_mm512_loadu_si512(listed + first), in_page);
    const __m512i b = _mm512_and_si512(_mm512_loadu_si512(listed + first + 16), in_page);
    const __m512i words =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
    const uint8_t* scales = block + at.token_scales;
    _mm512_storeu_si512(
        packed + at.token_scales + 2 * first,
        _mm512_permutex2var_epi16(_mm512_loadu_si512(scales), words, _mm512_loadu_si512(scales + 64)));
    for (uint32_t half = 0; half < 2; ++half) {
      const __m512i from = _mm512_add_epi32(order, _mm512_set1_epi32(static_cast<int32_t>(4 * half)));
      const __m512i t = _mm512_permutex2var_epi32(a, from, b);
      // The lane number consists of bits 5 2 4 3 1 0 of the token number.
      const __m512i lane =
          _mm512_or_si512(_mm512_and_si512(t, _mm512_set1_epi32(32 + 3)),
                          _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(t, 1), _mm512_set1_epi32(12)),
                                          _mm512_and_si512(_mm512_slli_epi32(t, 2), _mm512_set1_epi32(16))));
      const __mmask16 upper = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(32));
      for (uint32_t q = 0; q < 2 * quads; ++q) {
        const uint32_t row = (q < quads ? at.rows + q * 256 : at.second + (q - quads) * 256);
        const uint8_t* codes = block + row;
        const __m512i low =
            _mm512_permutex2var_epi32(_mm512_loadu_si512(codes), lane, _mm512_loadu_si512(codes + 64));
        const __m512i high =
            _mm512_permutex2var_epi32(_mm512_loadu_si512(codes + 128), lane, _mm512_loadu_si512(codes + 192));
        _mm512_storeu_si512(packed + row + (first / 16 + half) * 64, _mm512_mask_mov_epi32(low, upper, high));
      }
    }
  }
}
#else
// Returns the lane of a token's quad in a quad row.
constexpr uint8_t LaneOf(uint32_t t) {
  return static_cast<uint8_t>((t / 32 * 2 + t % 32 / 4 % 2) * 16 + t % 32 / 8 * 4 + t % 4);
}
struct LaneTable {
  uint8_t lane[kPage];
};
constexpr LaneTable MakeLanes() {
  LaneTable table{};
  for (uint32_t t = 0; t < kPage; ++t) {
    table.lane[t] = LaneOf(t);
  }
  return table;
}
constexpr LaneTable kLanesOf = MakeLanes();

void PackTokens(const uint8_t* block, const BlockLayout& at, uint32_t quads, const uint32_t* listed,
                uint32_t count, uint8_t* packed) {
  const uint32_t planes[2] = {at.rows, at.second};
  uint8_t from[kPage];
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t t = listed[i] % kPage;
    from[i] = kLanesOf.lane[t];
    __builtin_memcpy(packed + at.token_scales + 2 * i, block + at.token_scales + 2 * t, 2);
  }
  for (uint32_t q = 0; q < quads; ++q) {
    for (const uint32_t plane : planes) {
      const uint8_t* row = block + plane + q * 256;
      uint8_t* to = packed + plane + q * 256;
      for (uint32_t i = 0; i < count; ++i) {
        __builtin_memcpy(to + size_t{4} * kLanesOf.lane[i], row + size_t{4} * from[i], 4);
      }
    }
  }
}
#endif

template <int kQueries>
void ScoreListed(const ScoreTask& task, uint32_t first_query) {
  Query spread[kQueries];
  const Query* queries[kQueries];
  SpreadQueries(task, 0, first_query, spread, queries);
  const BlockLayout at = BlockOf(task.format, task.dim);
  const uint32_t quads = (task.dim + 31) / 32;
  const int32_t code_shift = ShiftOfDot(3, task.dim);
  const int32_t base_shift = ShiftOfDot(127, task.dim);
  const ShortDot narrow = ShortDotOf<Code::kTwoBits>(task.dim, code_shift);
  alignas(64) uint8_t packed[kPackedBytes];
  __builtin_memset(packed, 0, at.bytes);
  alignas(64) int16_t scores[kQueries * kPage];
  int16_t* const rows = task.scores + first_query * task.score_stride;
  for (uint32_t i = 0; i < task.listed_count;) {
    const uint8_t* pages[kRun];
    uint32_t begin[kRun + 1];
    uint32_t count = 0;
    while (count < kRun && i < task.listed_count) {
      pages[count] = task.pages[task.listed[i] / kPage];
      Prefetch(pages[count] + task.block_offset, at.rows);
      begin[count++] = i;
      i += TokensOfPage(task.listed, i, task.listed_count);
    }
    begin[count] = i;
    PageTerms terms[kQueries];
    MakeTerms<false, kQueries>(pages, count, task.block_offset, task.dim, at, queries, code_shift, base_shift,
                               terms);
    for (uint32_t n = 0; n < count; ++n) {
      const uint32_t tokens = begin[n + 1] - begin[n];
      const uint8_t* block = pages[n] + task.block_offset;
      const uint8_t* next = pages[n + 1 < count ? n + 1 : n] + task.block_offset;
      if (tokens < kPage) {
        PackTokens(block, at, quads, task.listed + begin[n], tokens, packed);
        block = packed;
      }
      ScoreTokens<Code::kTwoBits, kQueries, 1>(block, at, queries, task.dim, code_shift, narrow, terms, n,
                                               next, static_cast<int>(tokens), scores, kPage);
      for (int g = 0; g < kQueries; ++g) {
        __builtin_memcpy(rows + static_cast<size_t>(g) * task.score_stride + begin[n], scores + g * kPage,
                         tokens * sizeof(int16_t));
      }
    }
  }
}
