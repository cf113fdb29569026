// Vectors of the instruction set's own width for the index kernels: the compiler's generic vectors, plus
// named functions for operations that these lack. Included once into each kernel file, inside its anonymous
// namespace.

#if defined(MNEMO_KERNELS_AVX512)
constexpr int kBytes = 64;
#elif defined(MNEMO_KERNELS_AVX2)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / 4;

typedef int32_t VI __attribute__((vector_size(kBytes)));
typedef uint32_t VU __attribute__((vector_size(kBytes)));
typedef int16_t VH __attribute__((vector_size(kBytes)));
typedef float VF __attribute__((vector_size(kBytes)));
typedef VI VIAnywhere __attribute__((aligned(1), may_alias));
typedef VH VHAnywhere __attribute__((aligned(1), may_alias));
typedef int32_t Quad __attribute__((may_alias, aligned(1)));
typedef uint16_t Words __attribute__((vector_size(kBytes / 2)));
typedef Words WordsAnywhere __attribute__((aligned(1), may_alias));

#define MNEMO_INLINE inline __attribute__((always_inline))

MNEMO_INLINE VI Load(const void* p) { return *static_cast<const VIAnywhere*>(p); }
MNEMO_INLINE void Store(void* p, VI a) { *static_cast<VIAnywhere*>(p) = a; }
MNEMO_INLINE VH LoadH(const void* p) { return *static_cast<const VHAnywhere*>(p); }
MNEMO_INLINE void StoreH(void* p, VH a) { *static_cast<VHAnywhere*>(p) = a; }
MNEMO_INLINE VI Set(int32_t x) { return VI{} + x; }
MNEMO_INLINE VH SetH(int16_t x) { return VH{} + x; }
MNEMO_INLINE VI LoadWords(const uint16_t* p) {
  return __builtin_convertvector(*reinterpret_cast<const WordsAnywhere*>(p), VI);
}

#if defined(MNEMO_KERNELS_AVX512)

MNEMO_INLINE VI Wide(__m512i a) { return reinterpret_cast<VI>(a); }
MNEMO_INLINE __m512i Raw(VI a) { return reinterpret_cast<__m512i>(a); }
MNEMO_INLINE __m512i Raw(VH a) { return reinterpret_cast<__m512i>(a); }
// Widens unsigned 16-bit numbers to 32 bits, in the order that packing reverses.
MNEMO_INLINE VI UnpackLow(VH a) { return Wide(_mm512_unpacklo_epi16(Raw(a), _mm512_setzero_si512())); }
MNEMO_INLINE VI UnpackHigh(VH a) { return Wide(_mm512_unpackhi_epi16(Raw(a), _mm512_setzero_si512())); }
MNEMO_INLINE VH Pack(VI a, VI b) { return reinterpret_cast<VH>(_mm512_packs_epi32(Raw(a), Raw(b))); }
MNEMO_INLINE VH AddSaturated(VH a, VH b) { return reinterpret_cast<VH>(_mm512_adds_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH SubSaturated(VH a, VH b) { return reinterpret_cast<VH>(_mm512_subs_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH HighProduct(VH a, VH b) { return reinterpret_cast<VH>(_mm512_mulhi_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH Max(VH a, VH b) { return reinterpret_cast<VH>(_mm512_max_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VI RoundToInt(VF a) { return Wide(_mm512_cvtps_epi32(reinterpret_cast<__m512>(a))); }
// Returns the bit of a where the bit of `mask` is 1, else that of b.
MNEMO_INLINE VI Select(VI mask, VI a, VI b) {
  return Wide(_mm512_ternarylogic_epi32(Raw(mask), Raw(a), Raw(b), 0xCA));
}
// Returns one bit per lane: its sign.
MNEMO_INLINE uint32_t Signs(VI a) { return _mm512_movepi32_mask(Raw(a)); }
MNEMO_INLINE int32_t Sum(VI a) { return _mm512_reduce_add_epi32(Raw(a)); }
MNEMO_INLINE VF LoadHalves(const uint16_t* p) {
  return reinterpret_cast<VF>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
// Returns in each 16-bit lane the sum of the products of two unsigned bytes, of at most 15, with two signed
// ones; and adds neighbours of such sums, or of a few added up, to each lane of `sum`.
MNEMO_INLINE VH PairProducts(VI codes, VI query) {
  return reinterpret_cast<VH>(_mm512_maddubs_epi16(Raw(codes), Raw(query)));
}
MNEMO_INLINE VI AddPairs(VI sum, VH pairs) {
  return sum + Wide(_mm512_madd_epi16(Raw(pairs), _mm512_set1_epi16(1)));
}
// Adds to each lane of sum the products of four unsigned bytes with four signed ones. kSmall: no unsigned
// byte exceeds 15.
template <bool kSmall>
MNEMO_INLINE VI Dot(VI sum, VI codes, VI query) {
#if defined(MNEMO_KERNELS_VNNI)
  return Wide(_mm512_dpbusd_epi32(Raw(sum), Raw(codes), Raw(query)));
#else
  if constexpr (kSmall) {
    return AddPairs(sum, PairProducts(codes, query));
  } else {
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(Raw(codes), _mm512_set1_epi16(255)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(Raw(query), 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(Raw(codes), 8), _mm512_srai_epi16(Raw(query), 8));
    return sum + Wide(_mm512_add_epi32(even, odd));
  }
#endif
}

#elif defined(MNEMO_KERNELS_AVX2)

MNEMO_INLINE VI Wide(__m256i a) { return reinterpret_cast<VI>(a); }
MNEMO_INLINE __m256i Raw(VI a) { return reinterpret_cast<__m256i>(a); }
MNEMO_INLINE __m256i Raw(VH a) { return reinterpret_cast<__m256i>(a); }
// Widens unsigned 16-bit numbers to 32 bits, in the order that packing reverses.
MNEMO_INLINE VI UnpackLow(VH a) { return Wide(_mm256_unpacklo_epi16(Raw(a), _mm256_setzero_si256())); }
MNEMO_INLINE VI UnpackHigh(VH a) { return Wide(_mm256_unpackhi_epi16(Raw(a), _mm256_setzero_si256())); }
MNEMO_INLINE VH Pack(VI a, VI b) { return reinterpret_cast<VH>(_mm256_packs_epi32(Raw(a), Raw(b))); }
MNEMO_INLINE VH AddSaturated(VH a, VH b) { return reinterpret_cast<VH>(_mm256_adds_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH SubSaturated(VH a, VH b) { return reinterpret_cast<VH>(_mm256_subs_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH HighProduct(VH a, VH b) { return reinterpret_cast<VH>(_mm256_mulhi_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH Max(VH a, VH b) { return reinterpret_cast<VH>(_mm256_max_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VI RoundToInt(VF a) { return Wide(_mm256_cvtps_epi32(reinterpret_cast<__m256>(a))); }
MNEMO_INLINE VI Select(VI mask, VI a, VI b) { return (mask & a) | (~mask & b); }
MNEMO_INLINE uint32_t Signs(VI a) {
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(a)));
}
MNEMO_INLINE int32_t Sum(VI a) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) {
    sum += a[i];
  }
  return sum;
}
MNEMO_INLINE VF LoadHalves(const uint16_t* p) {
  return reinterpret_cast<VF>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
MNEMO_INLINE VH PairProducts(VI codes, VI query) {
  return reinterpret_cast<VH>(_mm256_maddubs_epi16(Raw(codes), Raw(query)));
}
MNEMO_INLINE VI AddPairs(VI sum, VH pairs) {
  return sum + Wide(_mm256_madd_epi16(Raw(pairs), _mm256_set1_epi16(1)));
}
template <bool kSmall>
MNEMO_INLINE VI Dot(VI sum, VI codes, VI query) {
  if constexpr (kSmall) {
    return AddPairs(sum, PairProducts(codes, query));
  } else {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(Raw(codes), _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(Raw(query), 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(Raw(codes), 8), _mm256_srai_epi16(Raw(query), 8));
    return sum + Wide(_mm256_add_epi32(even, odd));
  }
}

#else  // SSE2, available on every x86-64

MNEMO_INLINE VI Wide(__m128i a) { return reinterpret_cast<VI>(a); }
MNEMO_INLINE __m128i Raw(VI a) { return reinterpret_cast<__m128i>(a); }
MNEMO_INLINE __m128i Raw(VH a) { return reinterpret_cast<__m128i>(a); }
// Widens unsigned 16-bit numbers to 32 bits, in the order that packing reverses.
MNEMO_INLINE VI UnpackLow(VH a) { return Wide(_mm_unpacklo_epi16(Raw(a), _mm_setzero_si128())); }
MNEMO_INLINE VI UnpackHigh(VH a) { return Wide(_mm_unpackhi_epi16(Raw(a), _mm_setzero_si128())); }
MNEMO_INLINE VH Pack(VI a, VI b) { return reinterpret_cast<VH>(_mm_packs_epi32(Raw(a), Raw(b))); }
MNEMO_INLINE VH AddSaturated(VH a, VH b) { return reinterpret_cast<VH>(_mm_adds_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH SubSaturated(VH a, VH b) { return reinterpret_cast<VH>(_mm_subs_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH HighProduct(VH a, VH b) { return reinterpret_cast<VH>(_mm_mulhi_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VH Max(VH a, VH b) { return reinterpret_cast<VH>(_mm_max_epi16(Raw(a), Raw(b))); }
MNEMO_INLINE VI RoundToInt(VF a) { return Wide(_mm_cvtps_epi32(reinterpret_cast<__m128>(a))); }
MNEMO_INLINE VI Select(VI mask, VI a, VI b) { return (mask & a) | (~mask & b); }
MNEMO_INLINE uint32_t Signs(VI a) {
  return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(a)));
}
MNEMO_INLINE int32_t Sum(VI a) { return a[0] + a[1] + a[2] + a[3]; }
// A half's exponent and fraction, moved to their float32 positions, are the number times 2^-112.
MNEMO_INLINE VF LoadHalves(const uint16_t* p) {
  const VI half = LoadWords(p);
  const VI magnitude = half & 0x7fff;
  const VI sign = (half ^ magnitude) << 16;
  const VF scaled = reinterpret_cast<VF>(magnitude << 13) * 0x1p112f;
  // Infinities and NaN keep their fraction, so a NaN stays NaN.
  const VI special = (magnitude > 0x7bff) & (0x7f800000 | (magnitude & 0x3ff) << 13);
  const VI finite = reinterpret_cast<VI>(scaled) & (magnitude <= 0x7bff);
  return reinterpret_cast<VF>(finite | special | sign);
}
MNEMO_INLINE VH PairProducts(VI codes, VI query) {
  const __m128i even = _mm_mullo_epi16(_mm_and_si128(Raw(codes), _mm_set1_epi16(255)),
                                       _mm_srai_epi16(_mm_slli_epi16(Raw(query), 8), 8));
  const __m128i odd = _mm_mullo_epi16(_mm_srli_epi16(Raw(codes), 8), _mm_srai_epi16(Raw(query), 8));
  return reinterpret_cast<VH>(_mm_add_epi16(even, odd));
}
MNEMO_INLINE VI AddPairs(VI sum, VH pairs) {
  return sum + Wide(_mm_madd_epi16(Raw(pairs), _mm_set1_epi16(1)));
}
template <bool kSmall>
MNEMO_INLINE VI Dot(VI sum, VI codes, VI query) {
  const __m128i even = _mm_madd_epi16(_mm_and_si128(Raw(codes), _mm_set1_epi16(255)),
                                      _mm_srai_epi16(_mm_slli_epi16(Raw(query), 8), 8));
  const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(Raw(codes), 8), _mm_srai_epi16(Raw(query), 8));
  return sum + Wide(_mm_add_epi32(even, odd));
}

#endif

MNEMO_INLINE VI Max(VI a, VI b) { return a > b ? a : b; }
MNEMO_INLINE VI Min(VI a, VI b) { return a < b ? a : b; }
MNEMO_INLINE VI Abs(VI a) { return Max(a, -a); }
MNEMO_INLINE int32_t Largest(VI a) {
  int32_t largest = a[0];
  for (int i = 1; i < kLanes; ++i) {
    largest = a[i] > largest ? a[i] : largest;
  }
  return largest;
}
