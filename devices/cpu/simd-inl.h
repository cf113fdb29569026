// Vectors of 16 lanes over the registers of the instruction set: 1 x 512, 2 x 256 or 4 x 128 bits. Included
// once into each kernel file, inside its anonymous namespace, so that no code compiled for one instruction
// set can be linked into another.

// Four signed bytes at any address.
typedef int32_t __attribute__((may_alias, aligned(1))) Quad;

#if defined(MNEMO_KERNELS_AVX512)

using NativeF = __m512;
using NativeI = __m512i;
using NativeHalf = __m256i;
constexpr int kNativeLanes = 16;

inline NativeF NLoad(const float* p) { return _mm512_loadu_ps(p); }
inline void NStore(float* p, NativeF a) { _mm512_storeu_ps(p, a); }
inline NativeF NSet(float x) { return _mm512_set1_ps(x); }
inline NativeF NAdd(NativeF a, NativeF b) { return _mm512_add_ps(a, b); }
inline NativeF NSub(NativeF a, NativeF b) { return _mm512_sub_ps(a, b); }
inline NativeF NMul(NativeF a, NativeF b) { return _mm512_mul_ps(a, b); }
inline NativeF NDiv(NativeF a, NativeF b) { return _mm512_div_ps(a, b); }
inline NativeF NMax(NativeF a, NativeF b) { return _mm512_max_ps(a, b); }
inline NativeF NMin(NativeF a, NativeF b) { return _mm512_min_ps(a, b); }
inline NativeF NFma(NativeF a, NativeF b, NativeF c) { return _mm512_fmadd_ps(a, b, c); }
inline NativeF NAbs(NativeF a) { return _mm512_abs_ps(a); }
inline NativeF NZeroUnlessGreater(NativeF a, NativeF bound, NativeF x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, bound, _CMP_GT_OQ), x);
}
inline NativeI NRoundToInt(NativeF a) { return _mm512_cvtps_epi32(a); }
inline NativeF NToFloat(NativeI a) { return _mm512_cvtepi32_ps(a); }
inline NativeI NISet(int32_t x) { return _mm512_set1_epi32(x); }
inline NativeI NIAdd(NativeI a, NativeI b) { return _mm512_add_epi32(a, b); }
template <int kBits>
inline NativeI NIShiftLeft(NativeI a) {
  return _mm512_slli_epi32(a, kBits);
}
inline NativeF NAsFloat(NativeI a) { return _mm512_castsi512_ps(a); }
inline NativeI NLoadBytes(const void* p) { return _mm512_loadu_si512(p); }
inline NativeI NLowNibbles(NativeI a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
inline NativeI NHighNibbles(NativeI a) {
  return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
#if defined(MNEMO_KERNELS_VNNI)
// Written in assembly, since GCC 12 copies and spills the sums of the intrinsics.
inline NativeI NDotQuads(NativeI sum, NativeI w, NativeI x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
  return sum;
}
inline NativeI NDotQuad(NativeI sum, NativeI w, const int8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*reinterpret_cast<const Quad*>(x)));
  return sum;
}
#else
// Weights up to 31: sums of two products stay within 16 bits.
inline NativeI NDotNibbles(NativeI sum, NativeI w, NativeI x) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
}
// Weights up to 255 would saturate: the two nibbles of each are multiplied separately.
inline NativeI NDotBytes(NativeI sum, NativeI w, NativeI x) {
  const NativeI low = _mm512_maddubs_epi16(NLowNibbles(w), x);
  const NativeI high = _mm512_maddubs_epi16(NHighNibbles(w), x);
  return _mm512_add_epi32(sum, _mm512_add_epi32(_mm512_madd_epi16(low, _mm512_set1_epi16(1)),
                                                _mm512_madd_epi16(high, _mm512_set1_epi16(16))));
}
#endif
inline NativeF NLoadF16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void NStoreF16(uint16_t* p, NativeF a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline NativeF NLoadBf16(const uint16_t* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
inline float NReduceAdd(NativeF a) { return _mm512_reduce_add_ps(a); }
inline float NReduceMax(NativeF a) { return _mm512_reduce_max_ps(a); }
inline void NStoreInt8(int8_t* p, NativeI a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}
inline void NStoreInt16(int16_t* p, NativeI a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(a));
}
#if defined(MNEMO_KERNELS_VNNI)
inline NativeI NDotPairs(NativeI sum, NativeI a, NativeI b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
#else
inline NativeI NDotPairs(NativeI sum, NativeI a, NativeI b) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}
#endif
inline NativeF NDupEven(NativeF a) { return _mm512_moveldup_ps(a); }
inline NativeF NDupOdd(NativeF a) { return _mm512_movehdup_ps(a); }
inline NativeF NSwapPairs(NativeF a) { return _mm512_permute_ps(a, 0xB1); }
inline NativeF NSwapTwos(NativeF a) { return _mm512_permute_ps(a, 0x4E); }
inline NativeF NSwapFours(NativeF a) { return _mm512_shuffle_f32x4(a, a, 0xB1); }
inline NativeF NSwapEights(NativeF a) { return _mm512_shuffle_f32x4(a, a, 0x4E); }
// a * b - c in even lanes, a * b + c in odd ones.
inline NativeF NFmaAddSub(NativeF a, NativeF b, NativeF c) { return _mm512_fmaddsub_ps(a, b, c); }
inline void NStoreBytes(void* p, NativeI a) { _mm512_storeu_si512(p, a); }
inline NativeI NLoadQuarters(const __m128i* const* p) {
  NativeI r = _mm512_castsi128_si512(_mm_loadu_si128(p[0]));
  r = _mm512_inserti32x4(r, _mm_loadu_si128(p[1]), 1);
  r = _mm512_inserti32x4(r, _mm_loadu_si128(p[2]), 2);
  return _mm512_inserti32x4(r, _mm_loadu_si128(p[3]), 3);
}
inline NativeI NBroadcastQuarter(const __m128i* p) { return _mm512_broadcast_i32x4(_mm_loadu_si128(p)); }
inline NativeI NLoadFirstBytes(const int8_t* p, int64_t count) {
  return _mm512_maskz_loadu_epi8(count < 64 ? (uint64_t{1} << count) - 1 : ~uint64_t{0}, p);
}
inline NativeI NInterleaveLowBytes(NativeI a, NativeI b) { return _mm512_unpacklo_epi8(a, b); }
inline NativeI NInterleaveHighBytes(NativeI a, NativeI b) { return _mm512_unpackhi_epi8(a, b); }
inline NativeI NInterleaveLowPairs(NativeI a, NativeI b) { return _mm512_unpacklo_epi16(a, b); }
inline NativeI NInterleaveHighPairs(NativeI a, NativeI b) { return _mm512_unpackhi_epi16(a, b); }
inline NativeI NEvenSignedBytes(NativeI a) { return _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8); }
inline NativeI NOddSignedBytes(NativeI a) { return _mm512_srai_epi16(a, 8); }
inline NativeI NEvenBytes(NativeI a) { return _mm512_and_si512(a, _mm512_set1_epi16(255)); }
inline NativeI NOddBytes(NativeI a) { return _mm512_srli_epi16(a, 8); }
inline NativeI NUnpackLow(NativeI a, NativeI b) { return _mm512_unpacklo_epi32(a, b); }
inline NativeI NUnpackHigh(NativeI a, NativeI b) { return _mm512_unpackhi_epi32(a, b); }
inline NativeI NUnpackLowPairs(NativeI a, NativeI b) { return _mm512_unpacklo_epi64(a, b); }
inline NativeI NUnpackHighPairs(NativeI a, NativeI b) { return _mm512_unpackhi_epi64(a, b); }

#elif defined(MNEMO_KERNELS_AVX2)

using NativeF = __m256;
using NativeI = __m256i;
constexpr int kNativeLanes = 8;

inline NativeF NLoad(const float* p) { return _mm256_loadu_ps(p); }
inline void NStore(float* p, NativeF a) { _mm256_storeu_ps(p, a); }
inline NativeF NSet(float x) { return _mm256_set1_ps(x); }
inline NativeF NAdd(NativeF a, NativeF b) { return _mm256_add_ps(a, b); }
inline NativeF NSub(NativeF a, NativeF b) { return _mm256_sub_ps(a, b); }
inline NativeF NMul(NativeF a, NativeF b) { return _mm256_mul_ps(a, b); }
inline NativeF NDiv(NativeF a, NativeF b) { return _mm256_div_ps(a, b); }
inline NativeF NMax(NativeF a, NativeF b) { return _mm256_max_ps(a, b); }
inline NativeF NMin(NativeF a, NativeF b) { return _mm256_min_ps(a, b); }
inline NativeF NFma(NativeF a, NativeF b, NativeF c) { return _mm256_fmadd_ps(a, b, c); }
inline NativeF NAbs(NativeF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline NativeF NZeroUnlessGreater(NativeF a, NativeF bound, NativeF x) {
  return _mm256_and_ps(_mm256_cmp_ps(a, bound, _CMP_GT_OQ), x);
}
inline NativeI NRoundToInt(NativeF a) { return _mm256_cvtps_epi32(a); }
inline NativeF NToFloat(NativeI a) { return _mm256_cvtepi32_ps(a); }
inline NativeI NISet(int32_t x) { return _mm256_set1_epi32(x); }
inline NativeI NIAdd(NativeI a, NativeI b) { return _mm256_add_epi32(a, b); }
template <int kBits>
inline NativeI NIShiftLeft(NativeI a) {
  return _mm256_slli_epi32(a, kBits);
}
inline NativeF NAsFloat(NativeI a) { return _mm256_castsi256_ps(a); }
inline NativeI NLoadBytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline NativeI NLowNibbles(NativeI a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
inline NativeI NHighNibbles(NativeI a) {
  return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15));
}
inline NativeI NDotNibbles(NativeI sum, NativeI w, NativeI x) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
inline NativeI NDotBytes(NativeI sum, NativeI w, NativeI x) {
  const NativeI low = _mm256_maddubs_epi16(NLowNibbles(w), x);
  const NativeI high = _mm256_maddubs_epi16(NHighNibbles(w), x);
  return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(low, _mm256_set1_epi16(1)),
                                                _mm256_madd_epi16(high, _mm256_set1_epi16(16))));
}
inline NativeF NLoadF16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void NStoreF16(uint16_t* p, NativeF a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline NativeF NLoadBf16(const uint16_t* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline float NReduceAdd(NativeF a) {
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
inline float NReduceMax(NativeF a) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
inline void NStoreInt8(int8_t* p, NativeI a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
inline void NStoreInt16(int16_t* p, NativeI a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}
inline NativeI NDotPairs(NativeI sum, NativeI a, NativeI b) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
inline NativeF NDupEven(NativeF a) { return _mm256_moveldup_ps(a); }
inline NativeF NDupOdd(NativeF a) { return _mm256_movehdup_ps(a); }
inline NativeF NSwapPairs(NativeF a) { return _mm256_permute_ps(a, 0xB1); }
inline NativeF NSwapTwos(NativeF a) { return _mm256_permute_ps(a, 0x4E); }
inline NativeF NSwapFours(NativeF a) { return _mm256_permute2f128_ps(a, a, 1); }
inline NativeF NFmaAddSub(NativeF a, NativeF b, NativeF c) { return _mm256_fmaddsub_ps(a, b, c); }
inline void NStoreBytes(void* p, NativeI a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
inline NativeI NLoadQuarters(const __m128i* const* p) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(p[0])), _mm_loadu_si128(p[1]), 1);
}
inline NativeI NBroadcastQuarter(const __m128i* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(p)); }
inline NativeI NLoadFirstBytes(const int8_t* p, int64_t count) {
  if (count >= 32) return NLoadBytes(p);
  if (count <= 0) return _mm256_setzero_si256();
  return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline NativeI NInterleaveLowBytes(NativeI a, NativeI b) { return _mm256_unpacklo_epi8(a, b); }
inline NativeI NInterleaveHighBytes(NativeI a, NativeI b) { return _mm256_unpackhi_epi8(a, b); }
inline NativeI NInterleaveLowPairs(NativeI a, NativeI b) { return _mm256_unpacklo_epi16(a, b); }
inline NativeI NInterleaveHighPairs(NativeI a, NativeI b) { return _mm256_unpackhi_epi16(a, b); }
inline NativeI NEvenSignedBytes(NativeI a) { return _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8); }
inline NativeI NOddSignedBytes(NativeI a) { return _mm256_srai_epi16(a, 8); }
inline NativeI NEvenBytes(NativeI a) { return _mm256_and_si256(a, _mm256_set1_epi16(255)); }
inline NativeI NOddBytes(NativeI a) { return _mm256_srli_epi16(a, 8); }
inline NativeI NUnpackLow(NativeI a, NativeI b) { return _mm256_unpacklo_epi32(a, b); }
inline NativeI NUnpackHigh(NativeI a, NativeI b) { return _mm256_unpackhi_epi32(a, b); }
inline NativeI NUnpackLowPairs(NativeI a, NativeI b) { return _mm256_unpacklo_epi64(a, b); }
inline NativeI NUnpackHighPairs(NativeI a, NativeI b) { return _mm256_unpackhi_epi64(a, b); }

#else  // SSE2, available on every x86-64

using NativeF = __m128;
using NativeI = __m128i;
constexpr int kNativeLanes = 4;

inline NativeF NLoad(const float* p) { return _mm_loadu_ps(p); }
inline void NStore(float* p, NativeF a) { _mm_storeu_ps(p, a); }
inline NativeF NSet(float x) { return _mm_set1_ps(x); }
inline NativeF NAdd(NativeF a, NativeF b) { return _mm_add_ps(a, b); }
inline NativeF NSub(NativeF a, NativeF b) { return _mm_sub_ps(a, b); }
inline NativeF NMul(NativeF a, NativeF b) { return _mm_mul_ps(a, b); }
inline NativeF NDiv(NativeF a, NativeF b) { return _mm_div_ps(a, b); }
inline NativeF NMax(NativeF a, NativeF b) { return _mm_max_ps(a, b); }
inline NativeF NMin(NativeF a, NativeF b) { return _mm_min_ps(a, b); }
inline NativeF NFma(NativeF a, NativeF b, NativeF c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
inline NativeF NAbs(NativeF a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
inline NativeF NZeroUnlessGreater(NativeF a, NativeF bound, NativeF x) {
  return _mm_and_ps(_mm_cmpgt_ps(a, bound), x);
}
inline NativeI NRoundToInt(NativeF a) { return _mm_cvtps_epi32(a); }
inline NativeF NToFloat(NativeI a) { return _mm_cvtepi32_ps(a); }
inline NativeI NISet(int32_t x) { return _mm_set1_epi32(x); }
inline NativeI NIAdd(NativeI a, NativeI b) { return _mm_add_epi32(a, b); }
template <int kBits>
inline NativeI NIShiftLeft(NativeI a) {
  return _mm_slli_epi32(a, kBits);
}
inline NativeF NAsFloat(NativeI a) { return _mm_castsi128_ps(a); }
inline NativeI NLoadBytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline NativeI NLowNibbles(NativeI a) { return _mm_and_si128(a, _mm_set1_epi8(15)); }
inline NativeI NHighNibbles(NativeI a) { return _mm_and_si128(_mm_srli_epi16(a, 4), _mm_set1_epi8(15)); }
// Multiplies even and odd bytes as 16-bit numbers.
inline NativeI NDotBytes(NativeI sum, NativeI w, NativeI x) {
  const __m128i low = _mm_set1_epi16(255);
  const __m128i even = _mm_madd_epi16(_mm_and_si128(w, low), _mm_srai_epi16(_mm_slli_epi16(x, 8), 8));
  const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(w, 8), _mm_srai_epi16(x, 8));
  return _mm_add_epi32(sum, _mm_add_epi32(even, odd));
}
inline NativeI NDotNibbles(NativeI sum, NativeI w, NativeI x) { return NDotBytes(sum, w, x); }
// A half's exponent and fraction, moved to their float32 positions, are the number times 2^-112.
inline NativeF NLoadF16(const uint16_t* p) {
  const __m128i half =
      _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
  const __m128i magnitude = _mm_and_si128(half, _mm_set1_epi32(0x7fff));
  const __m128i sign = _mm_slli_epi32(_mm_xor_si128(half, magnitude), 16);
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)), _mm_set1_ps(0x1p112f));
  const __m128i infinite =
      _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
  return _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(_mm_castps_si128(scaled), infinite), sign));
}
inline uint16_t HalfFromFloat(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (bits >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (bits < 0x38800000) {  // below 2^-14: adding 0.5 rounds to steps of 2^-24, ties to even
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    const float shifted = magnitude + 0.5f;
    uint32_t fraction;
    __builtin_memcpy(&fraction, &shifted, 4);
    return static_cast<uint16_t>(sign | (fraction - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(sign | ((bits - 0x38000000) >> 13));
}
inline void NStoreF16(uint16_t* p, NativeF a) {
  float lanes[4];
  _mm_storeu_ps(lanes, a);
  for (int i = 0; i < 4; ++i) p[i] = HalfFromFloat(lanes[i]);
}
inline NativeF NLoadBf16(const uint16_t* p) {
  return _mm_castsi128_ps(
      _mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline float NReduceAdd(NativeF a) {
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}
inline float NReduceMax(NativeF a) {
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}
inline void NStoreInt8(int8_t* p, NativeI a) {
  const __m128i words = _mm_packs_epi32(a, a);
  const int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
  __builtin_memcpy(p, &bytes, 4);
}
inline void NStoreInt16(int16_t* p, NativeI a) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(a, a));
}
inline NativeI NDotPairs(NativeI sum, NativeI a, NativeI b) {
  return _mm_add_epi32(sum, _mm_madd_epi16(a, b));
}
inline NativeF NDupEven(NativeF a) { return _mm_shuffle_ps(a, a, 0xA0); }
inline NativeF NDupOdd(NativeF a) { return _mm_shuffle_ps(a, a, 0xF5); }
inline NativeF NSwapPairs(NativeF a) { return _mm_shuffle_ps(a, a, 0xB1); }
inline NativeF NSwapTwos(NativeF a) { return _mm_shuffle_ps(a, a, 0x4E); }
inline NativeF NFmaAddSub(NativeF a, NativeF b, NativeF c) {
  return _mm_add_ps(_mm_mul_ps(a, b), _mm_xor_ps(c, _mm_setr_ps(-0.0f, 0.0f, -0.0f, 0.0f)));
}
inline void NStoreBytes(void* p, NativeI a) { _mm_storeu_si128(static_cast<__m128i*>(p), a); }
inline NativeI NLoadQuarters(const __m128i* const* p) { return _mm_loadu_si128(p[0]); }
inline NativeI NBroadcastQuarter(const __m128i* p) { return _mm_loadu_si128(p); }
inline NativeI NLoadFirstBytes(const int8_t* p, int64_t count) {
  return count > 0 ? NLoadBytes(p) : _mm_setzero_si128();
}
inline NativeI NInterleaveLowBytes(NativeI a, NativeI b) { return _mm_unpacklo_epi8(a, b); }
inline NativeI NInterleaveHighBytes(NativeI a, NativeI b) { return _mm_unpackhi_epi8(a, b); }
inline NativeI NInterleaveLowPairs(NativeI a, NativeI b) { return _mm_unpacklo_epi16(a, b); }
inline NativeI NInterleaveHighPairs(NativeI a, NativeI b) { return _mm_unpackhi_epi16(a, b); }
inline NativeI NEvenSignedBytes(NativeI a) { return _mm_srai_epi16(_mm_slli_epi16(a, 8), 8); }
inline NativeI NOddSignedBytes(NativeI a) { return _mm_srai_epi16(a, 8); }
inline NativeI NEvenBytes(NativeI a) { return _mm_and_si128(a, _mm_set1_epi16(255)); }
inline NativeI NOddBytes(NativeI a) { return _mm_srli_epi16(a, 8); }
inline NativeI NUnpackLow(NativeI a, NativeI b) { return _mm_unpacklo_epi32(a, b); }
inline NativeI NUnpackHigh(NativeI a, NativeI b) { return _mm_unpackhi_epi32(a, b); }
inline NativeI NUnpackLowPairs(NativeI a, NativeI b) { return _mm_unpacklo_epi64(a, b); }
inline NativeI NUnpackHighPairs(NativeI a, NativeI b) { return _mm_unpackhi_epi64(a, b); }

#endif

constexpr int kLanes = 16;
constexpr int kParts = kLanes / kNativeLanes;

struct F32 {
  NativeF part[kParts];
};
struct I32 {
  NativeI part[kParts];
};

#define MNEMO_INLINE inline __attribute__((always_inline))
#define MNEMO_EACH_PART _Pragma("GCC unroll 4") for (int i = 0; i < kParts; ++i)

MNEMO_INLINE F32 Load(const float* p) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NLoad(p + i * kNativeLanes);
  return r;
}
MNEMO_INLINE void Store(float* p, F32 a) { MNEMO_EACH_PART NStore(p + i * kNativeLanes, a.part[i]); }
MNEMO_INLINE F32 Set(float x) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NSet(x);
  return r;
}

#define MNEMO_BINARY(name, native, type)                      \
  MNEMO_INLINE type name(type a, type b) {                    \
    type r;                                                   \
    MNEMO_EACH_PART r.part[i] = native(a.part[i], b.part[i]); \
    return r;                                                 \
  }
MNEMO_BINARY(Add, NAdd, F32)
MNEMO_BINARY(Sub, NSub, F32)
MNEMO_BINARY(Mul, NMul, F32)
MNEMO_BINARY(Div, NDiv, F32)
MNEMO_BINARY(Max, NMax, F32)
MNEMO_BINARY(Min, NMin, F32)
// Interleaves bytes, or pairs of them, of the low or the high half of each 16 bytes: one of a, one of b, and
// so on.
MNEMO_BINARY(InterleaveLowBytes, NInterleaveLowBytes, I32)
MNEMO_BINARY(InterleaveHighBytes, NInterleaveHighBytes, I32)
MNEMO_BINARY(InterleaveLowPairs, NInterleaveLowPairs, I32)
MNEMO_BINARY(InterleaveHighPairs, NInterleaveHighPairs, I32)
#undef MNEMO_BINARY

#define MNEMO_UNARY(name, native, from, to)        \
  MNEMO_INLINE to name(from a) {                   \
    to r;                                          \
    MNEMO_EACH_PART r.part[i] = native(a.part[i]); \
    return r;                                      \
  }
MNEMO_UNARY(Abs, NAbs, F32, F32)
MNEMO_UNARY(RoundToInt, NRoundToInt, F32, I32)
MNEMO_UNARY(ToFloat, NToFloat, I32, F32)
MNEMO_UNARY(AsFloat, NAsFloat, I32, F32)
MNEMO_UNARY(LowNibbles, NLowNibbles, I32, I32)
MNEMO_UNARY(HighNibbles, NHighNibbles, I32, I32)
// Returns the bytes 0, 2, 4 ... and 1, 3, 5 ... as 16-bit numbers.
MNEMO_UNARY(EvenBytes, NEvenBytes, I32, I32)
MNEMO_UNARY(OddBytes, NOddBytes, I32, I32)
MNEMO_UNARY(EvenSignedBytes, NEvenSignedBytes, I32, I32)
MNEMO_UNARY(OddSignedBytes, NOddSignedBytes, I32, I32)
MNEMO_UNARY(DupEven, NDupEven, F32, F32)
MNEMO_UNARY(DupOdd, NDupOdd, F32, F32)
MNEMO_UNARY(SwapPairs, NSwapPairs, F32, F32)
#undef MNEMO_UNARY

// Lane i of the result is lane i ^ kDistance of the input; kDistance is 1, 2, 4 or 8.
template <int kDistance>
MNEMO_INLINE F32 SwapLanes(F32 a) {
  F32 r;
  if constexpr (kDistance >= kNativeLanes) {
    MNEMO_EACH_PART r.part[i] = a.part[i ^ (kDistance / kNativeLanes)];
  } else if constexpr (kDistance == 1) {
    MNEMO_EACH_PART r.part[i] = NSwapPairs(a.part[i]);
  } else if constexpr (kDistance == 2) {
    MNEMO_EACH_PART r.part[i] = NSwapTwos(a.part[i]);
#if defined(MNEMO_KERNELS_AVX2) || defined(MNEMO_KERNELS_AVX512)
  } else if constexpr (kDistance == 4) {
    MNEMO_EACH_PART r.part[i] = NSwapFours(a.part[i]);
#endif
#if defined(MNEMO_KERNELS_AVX512)
  } else {
    MNEMO_EACH_PART r.part[i] = NSwapEights(a.part[i]);
#endif
  }
  return r;
}

MNEMO_INLINE F32 Fma(F32 a, F32 b, F32 c) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NFma(a.part[i], b.part[i], c.part[i]);
  return r;
}
MNEMO_INLINE F32 FmaAddSub(F32 a, F32 b, F32 c) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NFmaAddSub(a.part[i], b.part[i], c.part[i]);
  return r;
}
MNEMO_INLINE F32 ZeroUnlessGreater(F32 a, F32 bound, F32 x) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NZeroUnlessGreater(a.part[i], bound.part[i], x.part[i]);
  return r;
}
MNEMO_INLINE I32 SetInt(int32_t x) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NISet(x);
  return r;
}
MNEMO_INLINE I32 AddInt(I32 a, I32 b) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NIAdd(a.part[i], b.part[i]);
  return r;
}
template <int kBits>
MNEMO_INLINE I32 ShiftLeft(I32 a) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NIShiftLeft<kBits>(a.part[i]);
  return r;
}
MNEMO_INLINE I32 LoadBytes(const uint8_t* p) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NLoadBytes(p + i * kNativeLanes * 4);
  return r;
}
MNEMO_INLINE void StoreInt16(int16_t* p, I32 a) {
  MNEMO_EACH_PART NStoreInt16(p + i * kNativeLanes, a.part[i]);
}
MNEMO_INLINE I32 LoadPairs(const int16_t* p) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NLoadBytes(p + i * kNativeLanes * 2);
  return r;
}
MNEMO_INLINE void StorePairs(int16_t* p, I32 a) {
  MNEMO_EACH_PART NStoreBytes(p + i * kNativeLanes * 2, a.part[i]);
}
MNEMO_INLINE I32 BroadcastPair(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return SetInt(pair);
}
// Adds to sum the two products of 16-bit numbers in each lane.
MNEMO_INLINE I32 DotPairs(I32 sum, I32 a, I32 b) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NDotPairs(sum.part[i], a.part[i], b.part[i]);
  return r;
}
// Adds to sum the four products of unsigned weights in each lane and the four signed bytes at x.
template <bool kNibbles>
MNEMO_INLINE I32 DotQuad(I32 sum, I32 w, const int8_t* x) {
  I32 r;
#if defined(MNEMO_KERNELS_VNNI)
  r.part[0] = NDotQuad(sum.part[0], w.part[0], x);
#else
  int32_t quad;
  __builtin_memcpy(&quad, x, 4);
  const NativeI all = NISet(quad);
  MNEMO_EACH_PART r.part[i] =
      kNibbles ? NDotNibbles(sum.part[i], w.part[i], all) : NDotBytes(sum.part[i], w.part[i], all);
#endif
  return r;
}
// Loads eight 16-bit numbers from each of four addresses, one address per quarter of the lanes.
MNEMO_INLINE I32 LoadQuarters(const int16_t* a, const int16_t* b, const int16_t* c, const int16_t* d) {
  const __m128i* p[] = {reinterpret_cast<const __m128i*>(a), reinterpret_cast<const __m128i*>(b),
                        reinterpret_cast<const __m128i*>(c), reinterpret_cast<const __m128i*>(d)};
  I32 r;
  MNEMO_EACH_PART r.part[i] = NLoadQuarters(p + i * kNativeLanes / 4);
  return r;
}
#if defined(MNEMO_KERNELS_VNNI)
// Splits 64 numbers of 16 bits into bits 8 to 15 and bits 0 to 7. x[i] holds numbers 16 n + 4 i onwards in
// quarter n.
MNEMO_INLINE void StoreDigits(const I32 (&x)[4], uint8_t* upper, uint8_t* lower) {
  const NativeI a = _mm512_packus_epi32(x[0].part[0], x[1].part[0]);
  const NativeI b = _mm512_packus_epi32(x[2].part[0], x[3].part[0]);
  NStoreBytes(upper, _mm512_packus_epi16(NOddBytes(a), NOddBytes(b)));
  NStoreBytes(lower, _mm512_packus_epi16(NEvenBytes(a), NEvenBytes(b)));
}
// Adds to sum the four products of unsigned bytes and signed ones in each lane.
MNEMO_INLINE I32 DotQuads(I32 sum, I32 w, I32 x) {
  I32 r;
  r.part[0] = NDotQuads(sum.part[0], w.part[0], x.part[0]);
  return r;
}
#endif
MNEMO_INLINE I32 BroadcastQuarter(const int16_t* p) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NBroadcastQuarter(reinterpret_cast<const __m128i*>(p));
  return r;
}
// Lane 4 n + i of the result is the sum of quarter n of x[i].
MNEMO_INLINE I32 SumQuarters(const I32 (&x)[4]) {
  I32 r;
  MNEMO_EACH_PART {
    const NativeI a = x[0].part[i], b = x[1].part[i], c = x[2].part[i], d = x[3].part[i];
    const NativeI ab = NIAdd(NUnpackLow(a, b), NUnpackHigh(a, b));
    const NativeI cd = NIAdd(NUnpackLow(c, d), NUnpackHigh(c, d));
    r.part[i] = NIAdd(NUnpackLowPairs(ab, cd), NUnpackHighPairs(ab, cd));
  }
  return r;
}
// Loads the first `count` of 64 bytes, a multiple of 16; the others are zero.
MNEMO_INLINE I32 LoadFirstBytes(const int8_t* p, int64_t count) {
  I32 r;
  MNEMO_EACH_PART r.part[i] = NLoadFirstBytes(p + i * kNativeLanes * 4, count - i * kNativeLanes * 4);
  return r;
}
MNEMO_INLINE F32 LoadF16(const uint16_t* p) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NLoadF16(p + i * kNativeLanes);
  return r;
}
MNEMO_INLINE F32 LoadBf16(const uint16_t* p) {
  F32 r;
  MNEMO_EACH_PART r.part[i] = NLoadBf16(p + i * kNativeLanes);
  return r;
}
MNEMO_INLINE void StoreF16(uint16_t* p, F32 a) { MNEMO_EACH_PART NStoreF16(p + i * kNativeLanes, a.part[i]); }
// Rounds to nearest even; NaN stays NaN.
MNEMO_INLINE void StoreBf16(uint16_t* p, F32 a) {
  float lanes[kLanes];
  Store(lanes, a);
  for (int i = 0; i < kLanes; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, &lanes[i], 4);
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    p[i] = static_cast<uint16_t>(nan ? (bits >> 16 | 0x40) : rounded);
  }
}
MNEMO_INLINE void StoreInt8(int8_t* p, I32 a) { MNEMO_EACH_PART NStoreInt8(p + i * kNativeLanes, a.part[i]); }
MNEMO_INLINE float ReduceAdd(F32 a) {
  if constexpr (kParts == 4) {
    return NReduceAdd(NAdd(NAdd(a.part[0], a.part[2]), NAdd(a.part[1], a.part[3])));
  } else if constexpr (kParts == 2) {
    return NReduceAdd(NAdd(a.part[0], a.part[1]));
  } else {
    return NReduceAdd(a.part[0]);
  }
}
MNEMO_INLINE float ReduceMax(F32 a) {
  if constexpr (kParts == 4) {
    return NReduceMax(NMax(NMax(a.part[0], a.part[2]), NMax(a.part[1], a.part[3])));
  } else if constexpr (kParts == 2) {
    return NReduceMax(NMax(a.part[0], a.part[1]));
  } else {
    return NReduceMax(a.part[0]);
  }
}
// LoadFirst loads the first `count` of 16 lanes and sets the others to zero; StoreFirst leaves the others
// unchanged.
MNEMO_INLINE F32 LoadFirst(const float* p, int64_t count) {
  if (count >= kLanes) return Load(p);
  float lanes[kLanes] = {};
  __builtin_memcpy(lanes, p, static_cast<size_t>(count) * sizeof(float));
  return Load(lanes);
}
MNEMO_INLINE void StoreFirst(float* p, F32 a, int64_t count) {
  if (count >= kLanes) return Store(p, a);
  float lanes[kLanes];
  Store(lanes, a);
  __builtin_memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

// 2^x for x up to 127; 0 at and below -126. With n the nearest integer, 2^(x - n) is its Taylor series to the
// sixth power (error at most 1.2e-7).
MNEMO_INLINE F32 Exp2(F32 x) {
  const F32 clamped = Max(x, Set(-126.0f));
  const I32 n = RoundToInt(clamped);
  const F32 r = Sub(clamped, ToFloat(n));
  F32 p = Set(1.54035304e-4f);
  p = Fma(p, r, Set(1.33335581e-3f));
  p = Fma(p, r, Set(9.61812911e-3f));
  p = Fma(p, r, Set(5.55041087e-2f));
  p = Fma(p, r, Set(2.40226507e-1f));
  p = Fma(p, r, Set(6.93147181e-1f));
  p = Fma(p, r, Set(1.0f));
  const F32 scale = AsFloat(ShiftLeft<23>(AddInt(n, SetInt(127))));
  return ZeroUnlessGreater(x, Set(-126.0f), Mul(p, scale));
}
