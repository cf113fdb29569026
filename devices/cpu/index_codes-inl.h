// Records from keys and codes from queries: the steps of proto/layout/quantise.cc on vectors, with the same
// bits. Included once into each kernel file.
//
// Where that file divides integers, this one multiplies doubles. A quotient before rounding is a fraction
// whose denominator is below 2^33. A quotient that is not whole therefore differs from a whole number by at
// least 2^-33. The product has an error of less than 2^-44 at 7 bits of result. With kNudge between the two,
// truncation gives the same result.

constexpr double kNudge = 0x1p-40;
constexpr int kLowestExponent = -64;

MNEMO_INLINE float PowerOfTwo(int exponent) {  // -126..127
  const int32_t bits = (exponent + 127) << 23;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
MNEMO_INLINE double PowerOfTwo64(int exponent) {
  const int64_t bits = int64_t{exponent + 1023} << 52;
  double value;
  __builtin_memcpy(&value, &bits, 8);
  return value;
}

// Maps NaN to 0 and infinity to the largest float32.
MNEMO_INLINE VI Finite(VI bits) {
  const VI magnitude = bits & 0x7FFFFFFF;
  const VI capped = Min(magnitude, Set(0x7F7FFFFF)) | (bits & static_cast<int32_t>(0x80000000));
  return capped & (magnitude <= Set(0x7F800000));
}

MNEMO_INLINE VI LoadElements(const uint8_t* row, uint32_t value_type, uint32_t i) {
  if (value_type == layout::kFormatF32) {
    return Load(row + size_t{4} * i);
  }
  const auto* words = reinterpret_cast<const uint16_t*>(row) + i;
  return value_type == layout::kFormatBf16 ? LoadWords(words) << 16 : reinterpret_cast<VI>(LoadHalves(words));
}

MNEMO_INLINE int ExponentOfGrid(int32_t largest_magnitude) {
  const int exponent = (largest_magnitude >> 23) - 127;
  return exponent < kLowestExponent ? kLowestExponent : exponent;
}

// Stages n = 1, 2, ... kLanes / 2 of the butterfly within a vector.
template <int kStage>
MNEMO_INLINE VI ButterflyWithin(VI x) {
  if constexpr (kStage < kLanes) {
    VI swap;
    VI minus;
    for (int i = 0; i < kLanes; ++i) {
      swap[i] = i ^ kStage;
      minus[i] = (i & kStage) != 0 ? -1 : 0;
    }
    const VI other = __builtin_shuffle(x, swap);
    return ButterflyWithin<kStage * 2>(other + ((x ^ minus) - minus));
  } else {
    return x;
  }
}

template <int kVectors>
MNEMO_INLINE void Rotate(int32_t* x) {
  VI v[kVectors];
#pragma GCC unroll 32
  for (int i = 0; i < kVectors; ++i) {
    v[i] = ButterflyWithin<1>(Load(x + i * kLanes));
  }
#pragma GCC unroll 8
  for (int n = 1; n < kVectors; n *= 2) {
#pragma GCC unroll 32
    for (int i = 0; i < kVectors; ++i) {
      if ((i & n) == 0) {
        const VI a = v[i];
        const VI b = v[i + n];
        v[i] = a + b;
        v[i + n] = a - b;
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kVectors; ++i) {
    Store(x + i * kLanes, v[i]);
  }
}

// Applies the butterfly of `dim` elements in place.
void RotateRow(int32_t* x, uint32_t dim) {
  const uint32_t vectors = dim / kLanes;
  if (vectors == 1) {
    Rotate<1>(x);
  } else if (vectors == 2) {
    Rotate<2>(x);
  } else if (vectors == 4) {
    Rotate<4>(x);
  } else if (vectors == 8) {
    Rotate<8>(x);
  } else {
    for (uint32_t first = 0; first < dim; first += 16 * kLanes) {
      Rotate<16>(x + first);
    }
    for (uint32_t n = 16 * kLanes; n < dim; n *= 2) {
      for (uint32_t first = 0; first < dim; first += 2 * n) {
        for (uint32_t i = first; i < first + n; i += kLanes) {
          const VI a = Load(x + i);
          const VI b = Load(x + i + n);
          Store(x + i, a + b);
          Store(x + i + n, a - b);
        }
      }
    }
  }
}

struct GridPage {
  uint32_t dim;
  int exponent;
  alignas(64) int32_t x[kPage * kMaxDim];
};

template <uint32_t kValueType>
void LoadPage(const uint8_t* rows, size_t stride, uint32_t dim, GridPage* page) {
  VI largest = {};
  for (int t = 0; t < kPage; ++t) {
    const uint8_t* row = rows + static_cast<size_t>(t) * stride;
    for (uint32_t i = 0; i < dim; i += kLanes) {
      const VI bits = Finite(LoadElements(row, kValueType, i));
      Store(page->x + static_cast<uint32_t>(t) * dim + i, bits);
      largest = Max(largest, bits & 0x7FFFFFFF);
    }
  }
  page->dim = dim;
  page->exponent = ExponentOfGrid(Largest(largest));
}

// Converts float bits to steps of the grid, to nearest and ties to even as the processor rounds. The factor
// is a power of two: a product is exact, or so small that it rounds to 0 in any case.
MNEMO_INLINE void ToGrid(int32_t* x, uint32_t count, int exponent) {
  const float factor = PowerOfTwo(14 - exponent);
  for (uint32_t i = 0; i < count; i += kLanes) {
    Store(x + i, RoundToInt(reinterpret_cast<VF>(Load(x + i)) * factor));
  }
}

// A scale byte's value on a grid: T8 * 2^(octave - 7) steps.
struct GridScale {
  int32_t mantissa;
  int octave;
};
MNEMO_INLINE GridScale OnGrid(uint8_t e, int exponent) { return {kMantissa[e & 7], (e >> 3) - 2 - exponent}; }

MNEMO_INLINE uint8_t ScaleByte(int index, int octave, int exponent) {
  return static_cast<uint8_t>(Limit(index + 8 * (octave + 2 + exponent), 0, 255));
}

MNEMO_INLINE int BitWidth(uint64_t value) { return value == 0 ? 0 : 64 - __builtin_clzll(value); }

// Returns the smallest scale byte with which `largest` is at most code_max.
uint8_t ScaleForLargest(int64_t largest, int32_t code_max, int exponent) {
  if (largest == 0) {
    return 0;
  }
  // Condition: T8 * 2^(octave + 16) >= need.
  const uint64_t divisor = static_cast<uint64_t>(code_max);
  const uint64_t need = ((static_cast<uint64_t>(largest) << 23) + divisor - 1) / divisor;
  const int octave = BitWidth(need) - 8;
  for (int i = 0; i < 8; ++i) {
    if (static_cast<uint64_t>(kMantissa[i]) << octave >= need) {
      return ScaleByte(i, octave - 16, exponent);
    }
  }
  return ScaleByte(0, octave + 1 - 16, exponent);
}

// Returns the scale byte nearest to sum / count by ratio.
uint8_t ScaleForRatio(uint64_t sum, uint64_t count, int exponent) {
  static constexpr uint32_t kBetween[8] = {34219, 37316, 40693, 44376,
                                           48393, 52773, 57549, 62757};  // 2^(15 + (i + 0.5) / 8)
  const uint64_t ratio = (sum << 16) / count;
  if (ratio == 0) {
    return 0;
  }
  const int octave = BitWidth(ratio) - 16;
  const uint64_t fraction = octave >= 0 ? ratio >> octave : ratio << -octave;
  int index = 0;
  for (int i = 0; i < 8; ++i) {
    index += kBetween[i] <= fraction ? 1 : 0;
  }
  return ScaleByte(index, octave - 1, exponent);
}

typedef double VD __attribute__((vector_size(kBytes)));
typedef int32_t VHalf __attribute__((vector_size(kBytes / 2)));
typedef VHalf VHalfAnywhere __attribute__((aligned(1), may_alias));

// Computes |x| * factor + add (add_negative where x is negative), truncated, at most code_max, with the sign
// of x.
void TruncatedProducts(const int32_t* x, uint32_t count, double factor, double add, double add_negative,
                       int32_t code_max, int8_t* codes) {
  alignas(64) int32_t wide[kMaxDim];
  const VD most = VD{} + code_max;
  for (uint32_t i = 0; i < count; i += kLanes / 2) {
    const VHalf value = *reinterpret_cast<const VHalfAnywhere*>(x + i);
    const VHalf sign = value >> 31;
    const VD negative = __builtin_convertvector(sign, VD);  // -1 or 0
    VD size = __builtin_convertvector((value ^ sign) - sign, VD) * factor;
    size += add + negative * (add - add_negative);
    const VHalf code = __builtin_convertvector(size < most ? size : most, VHalf);
    *reinterpret_cast<VHalfAnywhere*>(wide + i) = (code ^ sign) - sign;
  }
  for (uint32_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int8_t>(wide[i]);
  }
}

// Computes the codes of `count` values: x / scale to nearest, halves away from zero, at most code_max.
void MakeCodesOf(const int32_t* x, uint32_t count, GridScale scale, int32_t code_max, int8_t* codes) {
  // Every value is at most half of the scale.
  if (scale.octave > 30) {
    __builtin_memset(codes, 0, count);
    return;
  }
  if (scale.octave < -24) {
    for (uint32_t i = 0; i < count; ++i) {
      codes[i] = static_cast<int8_t>(x[i] == 0 ? 0 : x[i] < 0 ? -code_max : code_max);
    }
    return;
  }
  const double factor = 128.0 / scale.mantissa * PowerOfTwo64(-scale.octave);
  TruncatedProducts(x, count, factor, 0.5 + kNudge, 0.5 + kNudge, code_max, codes);
}

// Computes x / scale, rounded up or down.
void MakeBoundCodes(const int32_t* x, uint32_t count, GridScale scale, bool up, int8_t* codes) {
  if (scale.octave > 30 || scale.octave < -24) {
    for (uint32_t i = 0; i < count; ++i) {
      const int32_t sign = x[i] == 0 ? 0 : x[i] < 0 ? -1 : 1;
      const bool outward = (x[i] < 0) != up;
      codes[i] = static_cast<int8_t>(scale.octave > 30 ? (outward ? sign : 0) : sign * 127);
    }
    return;
  }
  const double factor = 128.0 / scale.mantissa * PowerOfTwo64(-scale.octave);
  const double away = 1.0 - kNudge;
  TruncatedProducts(x, count, factor, up ? away : kNudge, up ? kNudge : away, 127, codes);
}

// Returns code * scale in steps, halves rounded up.
MNEMO_INLINE int32_t StepsOf(int32_t code, GridScale scale) {
  const int64_t value = int64_t{code} * scale.mantissa;
  const int down = 7 - scale.octave;
  if (code == 0 || down > 31) {
    return 0;
  }
  return static_cast<int32_t>(down <= 0 ? value << -down : (value + (int64_t{1} << (down - 1))) >> down);
}

MNEMO_INLINE int32_t LargestMagnitude(const int32_t* x, uint32_t count) {
  VI largest = {};
  for (uint32_t i = 0; i < count; i += kLanes) {
    largest = Max(largest, Abs(Load(x + i)));
  }
  return Largest(largest);
}

// Writes the int8 mean of tokens [first, first + count); returns its scale byte.
uint8_t MakeMean(const GridPage& page, uint32_t first, uint32_t count, int8_t* row) {
  alignas(64) int32_t sums[kMaxDim];
  for (uint32_t i = 0; i < page.dim; i += kLanes) {
    VI sum = {};
    for (uint32_t t = first; t < first + count; ++t) {
      sum += Load(page.x + t * page.dim + i);
    }
    Store(sums + i, sum);
  }
  // Sums are steps of a grid that is `count` times finer.
  const int exponent = page.exponent - (BitWidth(count) - 1);
  const uint8_t e = ScaleForLargest(LargestMagnitude(sums, page.dim), 127, exponent);
  MakeCodesOf(sums, page.dim, OnGrid(e, exponent), 127, row);
  return e;
}

// Writes planes and scale byte of a token's residual; returns the sum of magnitudes.
uint32_t MakePlanes(const int32_t* x, uint32_t dim, int exponent, uint8_t* sign, uint8_t* magnitude,
                    uint8_t* scale) {
  // Rotation preserves the sum of squares up to the factor dim, so the sum of magnitudes stays below 2^30.
  VI sums = {};
  for (uint32_t i = 0; i < dim; i += kLanes) {
    sums += Abs(Load(x + i));
  }
  const auto sum = static_cast<uint32_t>(Sum(sums));
  // |x| * dim > sum for integers: |x| > floor(sum / dim).
  const VI bound = Set(static_cast<int32_t>(sum >> (BitWidth(dim) - 1)));
  VI large_sums = {};
  uint32_t large_count = 0;
  constexpr int kBits = kLanes;
  for (uint32_t i = 0; i < dim; i += kLanes) {
    const VI value = Load(x + i);
    const VI size = Abs(value);
    const VI large = size > bound;
    large_sums += size & large;
    const uint32_t large_bits = Signs(large);
    const uint32_t sign_bits = ~Signs(value);
    large_count += static_cast<uint32_t>(__builtin_popcount(large_bits));
    if constexpr (kBits == 16) {
      __builtin_memcpy(sign + i / 8, &sign_bits, 2);
      __builtin_memcpy(magnitude + i / 8, &large_bits, 2);
    } else if constexpr (kBits == 8) {
      sign[i / 8] = static_cast<uint8_t>(sign_bits);
      magnitude[i / 8] = static_cast<uint8_t>(large_bits);
    } else {
      sign[i / 8] |= static_cast<uint8_t>((sign_bits & 15) << (i % 8));
      magnitude[i / 8] |= static_cast<uint8_t>(large_bits << (i % 8));
    }
  }
  const uint64_t weighted = uint64_t{sum} + 2 * uint64_t{static_cast<uint32_t>(Sum(large_sums))};
  *scale = ScaleForRatio(weighted, dim + 8 * large_count, exponent);
  return sum;
}

void MakeCodes(const int32_t* x, uint32_t dim, int exponent, uint32_t format, uint8_t* to, uint8_t* scale) {
  const int32_t code_max = format == layout::kFormatCodes4 ? 7 : 127;
  *scale = ScaleForLargest(LargestMagnitude(x, dim), code_max, exponent);
  alignas(64) int8_t codes[kMaxDim];
  MakeCodesOf(x, dim, OnGrid(*scale, exponent), code_max, codes);
  if (format == layout::kFormatCodes8) {
    __builtin_memcpy(to, codes, dim);
    return;
  }
  for (uint32_t i = 0; i < dim / 2; ++i) {
    to[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + dim / 2] & 15) << 4);
  }
}

// Byte offsets are those of layout::RecordSections.
void MakeCodeRecord(GridPage* page, uint32_t format, uint8_t* record) {
  const uint32_t dim = page->dim;
  const uint32_t base_at = sizeof(layout::RecordHeader);
  const uint32_t codes_at = base_at + dim;
  const uint32_t plane = kPage * dim / 8;
  const uint32_t row = format == layout::kFormatCodes2   ? dim / 8
                       : format == layout::kFormatCodes4 ? dim / 2
                                                         : dim;
  const uint32_t scales_at = codes_at + (format == layout::kFormatCodes2 ? 2 * plane : kPage * row);
  for (uint32_t t = 0; t < kPage; ++t) {
    RotateRow(page->x + t * dim, dim);
  }
  auto* base = reinterpret_cast<int8_t*>(record + base_at);
  record[0] = MakeMean(*page, 0, kPage, base);
  const GridScale base_scale = OnGrid(record[0], page->exponent);
  alignas(64) int32_t steps[kMaxDim];
  for (uint32_t i = 0; i < dim; ++i) {
    steps[i] = StepsOf(base[i], base_scale);
  }
  uint64_t sum = 0;
  uint8_t top = 0;
  for (uint32_t t = 0; t < kPage; ++t) {
    int32_t* x = page->x + t * dim;
    for (uint32_t i = 0; i < dim; i += kLanes) {
      Store(x + i, Load(x + i) - Load(steps + i));
    }
    uint8_t* scale = record + scales_at + t;
    uint8_t* codes = record + codes_at + t * row;
    if (format == layout::kFormatCodes2) {
      sum += MakePlanes(x, dim, page->exponent, codes, codes + plane, scale);
    } else {
      MakeCodes(x, dim, page->exponent, format, codes, scale);
    }
    top = *scale >> 3 > top ? static_cast<uint8_t>(*scale >> 3) : top;
  }
  record[1] = top;
  if (format == layout::kFormatCodes2) {
    record[2] = ScaleForRatio(sum, uint64_t{kPage} * dim, page->exponent);
  }
}

void MakeBoundsRecord(const GridPage& page, uint8_t* scales, int8_t* rows) {
  const uint32_t dim = page.dim;
  for (uint32_t part = 0; part < 4; ++part) {
    alignas(64) int32_t low[kMaxDim];
    alignas(64) int32_t high[kMaxDim];
    for (uint32_t i = 0; i < dim; i += kLanes) {
      const int32_t* x = page.x + part * 16 * dim + i;
      VI least = Load(x);
      VI most = least;
      for (uint32_t t = 1; t < 16; ++t) {
        least = Min(least, Load(x + t * dim));
        most = Max(most, Load(x + t * dim));
      }
      Store(low + i, least);
      Store(high + i, most);
    }
    const int32_t of_low = LargestMagnitude(low, dim);
    const int32_t of_high = LargestMagnitude(high, dim);
    scales[part] = ScaleForLargest(of_low > of_high ? of_low : of_high, 127, page.exponent);
    const GridScale scale = OnGrid(scales[part], page.exponent);
    MakeBoundCodes(low, dim, scale, false, rows + size_t{part} * 2 * dim);
    MakeBoundCodes(high, dim, scale, true, rows + (size_t{part} * 2 + 1) * dim);
  }
}

void MakeRecord(const void* keys, size_t row_stride_bytes, uint32_t value_type, uint32_t dim, uint32_t format,
                uint8_t* record, size_t record_bytes) {
  const auto* rows = static_cast<const uint8_t*>(keys);
  GridPage page;
  if (value_type == layout::kFormatF32) {
    LoadPage<layout::kFormatF32>(rows, row_stride_bytes, dim, &page);
  } else if (value_type == layout::kFormatBf16) {
    LoadPage<layout::kFormatBf16>(rows, row_stride_bytes, dim, &page);
  } else {
    LoadPage<layout::kFormatF16>(rows, row_stride_bytes, dim, &page);
  }
  ToGrid(page.x, kPage * dim, page.exponent);
  __builtin_memset(record, 0, record_bytes);
  record[3] = static_cast<uint8_t>(format);
  record[4] = static_cast<uint8_t>(BitWidth(dim) - 1);
  uint8_t* row_scales = record + offsetof(layout::RecordHeader, row_scales);
  auto* parts = reinterpret_cast<int8_t*>(record + sizeof(layout::RecordHeader));
  if (format == layout::kFormatBounds) {
    MakeBoundsRecord(page, row_scales, parts);
  } else if (format == layout::kFormatMeans) {
    for (uint32_t t = 0; t < kPage; ++t) {
      RotateRow(page.x + t * dim, dim);
    }
    for (uint32_t part = 0; part < 4; ++part) {
      row_scales[part] = MakeMean(page, part * 16, 16, parts + part * dim);
    }
    row_scales[4] = MakeMean(page, 0, kPage, parts + size_t{4} * dim);
  } else {
    MakeCodeRecord(&page, format, record);
  }
}

void MakeQuery(const float* query, uint32_t dim, bool rotated, float softmax_scale, int16_t weight,
               int8_t* codes, void* param) {
  layout::QueryParam made = {};
  made.weight = weight;
  __builtin_memcpy(param, &made, sizeof(made));
  alignas(64) int32_t x[kMaxDim];
  VI largest_bits = {};
  for (uint32_t i = 0; i < dim; i += kLanes) {
    const VI bits = Finite(Load(query + i));
    Store(x + i, bits);
    largest_bits = Max(largest_bits, bits & 0x7FFFFFFF);
  }
  const int exponent = ExponentOfGrid(Largest(largest_bits));
  ToGrid(x, dim, exponent);
  if (rotated) {
    RotateRow(x, dim);
  }
  const int32_t largest = LargestMagnitude(x, dim);
  if (largest == 0) {
    __builtin_memset(codes, 0, dim);
    return;
  }
  TruncatedProducts(x, dim, 127.0 / largest, 0.5 + kNudge, 0.5 + kNudge, 127, codes);
  // As layout::MakeQuery, with the same roundings.
  constexpr double kSixteenLog2E = 23.083120654223414;  // 16 / ln 2
  const double factor = kSixteenLog2E * static_cast<double>(softmax_scale) * static_cast<double>(largest) /
                        (127.0 * (rotated ? dim : 1));
  uint64_t bits;
  __builtin_memcpy(&bits, &factor, 8);
  if (!(factor > 0.0) || bits >> 52 == 0x7FF) {
    return;
  }
  // A float32 scale times an integer is never subnormal.
  int octave = static_cast<int>(bits >> 52) - 1022;
  bits = (bits & 0xFFFFFFFFFFFFF) | uint64_t{1022} << 52;
  double fraction;  // [0.5, 1)
  __builtin_memcpy(&fraction, &bits, 8);
  auto multiplier = static_cast<uint32_t>(fraction * 65536.0 + 0.5);
  octave += exponent - 14;
  if (multiplier == 65536) {
    multiplier = 32768;
    ++octave;
  }
  made.multiplier = static_cast<uint16_t>(multiplier);
  made.shift = static_cast<uint8_t>(Limit(16 - octave + 128, 0, 255));
  __builtin_memcpy(param, &made, sizeof(made));
}
