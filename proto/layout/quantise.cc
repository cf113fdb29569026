#include "proto/layout/quantise.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "proto/layout/numerics.h"

namespace mnemo::layout {
namespace {

// The largest element of a page lies in [2^14, 2^15).
constexpr int kGridBits = 15;
// Pages whose elements are all smaller share this grid.
constexpr int kLowestExponent = -64;
constexpr uint32_t kLargestFloat = 0x7F7FFFFF;

uint32_t FloatBitsOfHalf(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000U} << 16;
  const uint32_t exponent = half >> 10 & 31;
  const uint32_t mantissa = half & 0x3FF;
  if (exponent == 31) {
    return sign | 0x7F800000 | mantissa << 13;
  }
  if (exponent != 0) {
    return sign | (exponent + 112) << 23 | mantissa << 13;
  }
  if (mantissa == 0) {
    return sign;
  }
  // Shift to the position of the hidden bit.
  const int up = std::countl_zero(mantissa) - 21;
  return sign | static_cast<uint32_t>(113 - up) << 23 | (mantissa << up & 0x3FF) << 13;
}

// Makes the bits of a float32 finite: NaN becomes 0, infinity the largest number.
uint32_t Finite(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  return magnitude > 0x7F800000 ? 0 : magnitude == 0x7F800000 ? (bits & 0x80000000) | kLargestFloat : bits;
}

// Returns the exponent E of the grid: floor(log2(largest magnitude)), at least kLowestExponent. One step is
// 2^(E - 14).
int GridExponent(uint32_t largest_magnitude) {
  return std::max(static_cast<int>(largest_magnitude >> 23) - 127, kLowestExponent);
}

// Returns value / 2^(E - 14), to nearest, ties to even; magnitude at most 2^15.
int32_t OnGrid(uint32_t bits, int exponent) {
  const int field = static_cast<int>(bits >> 23 & 255);
  if (field == 0) {
    return 0;  // below 2^-126, far less than half a step
  }
  const uint32_t mantissa = (bits & 0x7FFFFF) | 0x800000;
  // value = mantissa * 2^(field - 150); at most 24 bits are reduced to 15.
  const int down = exponent - (kGridBits - 1) - (field - 150);
  if (down > 24) {
    return 0;
  }
  uint32_t steps = mantissa >> down;
  const uint32_t rest = mantissa & ((1U << down) - 1);
  const uint32_t half = 1U << (down - 1);
  if (rest > half || (rest == half && (steps & 1) != 0)) {
    ++steps;
  }
  return (bits >> 31) != 0 ? -static_cast<int32_t>(steps) : static_cast<int32_t>(steps);
}

// Value of scale byte e on a grid, in steps: T8[e & 7] * 2^(octave - 7).
struct Scale {
  int32_t mantissa;
  int octave;
};

Scale OnGrid(uint8_t e, int exponent) { return {ScaleMantissa(e), (e >> 3) - 2 - exponent}; }

uint8_t ScaleByte(int index, int octave, int exponent) {
  return static_cast<uint8_t>(std::clamp(index + 8 * (octave + 2 + exponent), 0, 255));
}

// Returns the smallest scale byte with which `largest` (in steps) is at most code_max.
uint8_t ScaleForLargest(int64_t largest, int32_t code_max, int exponent) {
  if (largest == 0) {
    return 0;
  }
  // Condition: T8 * 2^(octave + 16) >= need.
  const uint64_t need = ((static_cast<uint64_t>(largest) << 23) + code_max - 1) / code_max;
  int octave = std::bit_width(need) - 8;
  for (int i = 0; i < 8; ++i) {
    if (static_cast<uint64_t>(ScaleMantissa(i)) << octave >= need) {
      return ScaleByte(i, octave - 16, exponent);
    }
  }
  return ScaleByte(0, octave + 1 - 16, exponent);
}

// Returns the scale byte nearest to sum / count (in steps) by ratio.
uint8_t ScaleForRatio(uint64_t sum, uint64_t count, int exponent) {
  constexpr uint32_t kBetween[8] = {34219, 37316, 40693, 44376,
                                    48393, 52773, 57549, 62757};  // 2^(15 + (i + 0.5) / 8)
  const uint64_t ratio = (sum << 16) / count;
  if (ratio == 0) {
    return 0;
  }
  const int octave = std::bit_width(ratio) - 16;
  const uint64_t fraction = octave >= 0 ? ratio >> octave : ratio << -octave;  // [2^15, 2^16)
  const auto index =
      static_cast<int>(std::count_if(std::begin(kBetween), std::end(kBetween),
                                     [fraction](uint32_t between) { return between <= fraction; }));
  return ScaleByte(index, octave - 1, exponent);
}

enum class Rounding { kNearest, kDown, kUp };

// Returns steps / scale as a code, saturated. kNearest: halves away from zero.
int32_t Code(int64_t steps, Scale scale, int32_t code_max, Rounding rounding) {
  const bool negative = steps < 0;
  uint64_t numerator = static_cast<uint64_t>(negative ? -steps : steps) * 128;
  auto denominator = static_cast<uint64_t>(scale.mantissa);
  if (numerator == 0) {
    return 0;
  }
  const bool outward = rounding == (negative ? Rounding::kDown : Rounding::kUp);
  if (scale.octave > 30) {
    return outward ? (negative ? -1 : 1) : 0;  // |steps| <= 2^30 is at most half of the scale
  }
  if (scale.octave < -24) {
    return negative ? -code_max : code_max;
  }
  (scale.octave >= 0 ? denominator : numerator) <<= std::abs(scale.octave);
  const uint64_t code = rounding == Rounding::kNearest ? (2 * numerator + denominator) / (2 * denominator)
                        : outward                      ? (numerator + denominator - 1) / denominator
                                                       : numerator / denominator;
  const auto magnitude = static_cast<int32_t>(std::min<uint64_t>(code, static_cast<uint64_t>(code_max)));
  return negative ? -magnitude : magnitude;
}

// Returns code * scale in steps, halves rounded up.
int32_t Steps(int32_t code, Scale scale) {
  const int64_t value = int64_t{code} * scale.mantissa;
  const int down = 7 - scale.octave;
  if (code == 0 || down > 31) {
    return 0;
  }
  // A code is steps / scale, so the product is about as large as the original steps.
  return static_cast<int32_t>(down <= 0 ? value << -down : (value + (int64_t{1} << (down - 1))) >> down);
}

// One page of one head on its grid.
class Page {
 public:
  Page(const PageKeys& keys, uint32_t dim) : dim_(dim) {
    uint32_t largest = 0;
    for (uint32_t n = 0; n < kPageTokens * dim; ++n) {
      largest = std::max(largest, Element(keys, n) & 0x7FFFFFFF);
    }
    exponent_ = GridExponent(largest);
    for (uint32_t n = 0; n < kPageTokens * dim; ++n) {
      x_[n] = OnGrid(Element(keys, n), exponent_);
    }
  }

  void Rotate() {
    for (uint32_t t = 0; t < kPageTokens; ++t) {
      Hadamard(Token(t));
    }
  }

  std::span<int32_t> Token(uint32_t t) { return std::span(x_).subspan(t * dim_, dim_); }
  uint32_t dim() const { return dim_; }
  int exponent() const { return exponent_; }

 private:
  uint32_t Element(const PageKeys& keys, uint32_t n) const {
    const auto* row = static_cast<const uint8_t*>(keys.data) + n / dim_ * keys.row_stride_bytes;
    if (keys.value_type == kFormatF32) {
      uint32_t bits;
      std::memcpy(&bits, row + size_t{4} * (n % dim_), 4);
      return Finite(bits);
    }
    uint16_t bits;
    std::memcpy(&bits, row + size_t{2} * (n % dim_), 2);
    return Finite(keys.value_type == kFormatBf16 ? uint32_t{bits} << 16 : FloatBitsOfHalf(bits));
  }

  uint32_t dim_;
  int exponent_ = 0;
  std::array<int32_t, kPageTokens * kMaxDim> x_;
};

// Writes the int8 mean of tokens [first, first + count) to `row`; returns its scale byte. count is 16 or 64.
uint8_t MakeMean(Page& page, uint32_t first, uint32_t count, uint8_t* row) {
  std::array<int32_t, kMaxDim> sum{};  // at most 2^15 * 512 * 64 = 2^30
  for (uint32_t t = first; t < first + count; ++t) {
    const auto token = page.Token(t);
    for (uint32_t i = 0; i < page.dim(); ++i) {
      sum[i] += token[i];
    }
  }
  // Sums are steps of a grid that is `count` times finer.
  const int exponent = page.exponent() - (std::bit_width(count) - 1);
  int64_t largest = 0;
  for (uint32_t i = 0; i < page.dim(); ++i) {
    largest = std::max<int64_t>(largest, std::abs(sum[i]));
  }
  const uint8_t e = ScaleForLargest(largest, 127, exponent);
  for (uint32_t i = 0; i < page.dim(); ++i) {
    row[i] = static_cast<uint8_t>(Code(sum[i], OnGrid(e, exponent), 127, Rounding::kNearest));
  }
  return e;
}

// Writes planes and scale byte of one token's residual; returns the sum of magnitudes, for the sign scale.
uint64_t MakePlanes(std::span<const int32_t> x, int exponent, uint8_t* sign, uint8_t* magnitude,
                    uint8_t* scale) {
  uint64_t sum = 0;
  for (const int32_t value : x) {
    sum += static_cast<uint64_t>(std::abs(value));
  }
  // Least squares: x ~ a * code gives a = sum |x| |code| / sum code^2.
  uint64_t weighted = 0;
  uint64_t squares = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto size = static_cast<uint64_t>(std::abs(x[i]));
    const bool large = size * x.size() > sum;
    weighted += large ? 3 * size : size;
    squares += large ? 9 : 1;
    const auto bit = static_cast<uint8_t>(1U << (i % 8));
    sign[i / 8] |= x[i] >= 0 ? bit : 0;
    magnitude[i / 8] |= large ? bit : 0;
  }
  *scale = ScaleForRatio(weighted, squares, exponent);
  return sum;
}

void MakeCodes(std::span<const int32_t> x, int exponent, uint32_t format, uint8_t* codes, uint8_t* scale) {
  int64_t largest = 0;
  for (const int32_t value : x) {
    largest = std::max<int64_t>(largest, std::abs(value));
  }
  const int32_t code_max = CodeMax(format);
  *scale = ScaleForLargest(largest, code_max, exponent);
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < x.size(); ++i) {
    const int32_t code = Code(x[i], OnGrid(*scale, exponent), code_max, Rounding::kNearest);
    if (format == kFormatCodes8) {
      codes[i] = static_cast<uint8_t>(code);
    } else {
      codes[i % half] |= static_cast<uint8_t>((code & 15) << (i < half ? 0 : 4));
    }
  }
}

void MakeCodeRecord(Page& page, uint32_t format, RecordHeader& header, uint8_t* record) {
  const uint32_t dim = page.dim();
  const RecordLayout at = RecordSections(format, dim);
  page.Rotate();
  header.base_scale = MakeMean(page, 0, kPageTokens, record + at.base);
  const Scale base_scale = OnGrid(header.base_scale, page.exponent());
  uint64_t sum = 0;
  for (uint32_t t = 0; t < kPageTokens; ++t) {
    const auto token = page.Token(t);
    for (uint32_t i = 0; i < dim; ++i) {
      token[i] -= Steps(static_cast<int8_t>(record[at.base + i]), base_scale);
    }
    uint8_t* scale = record + at.scales + t;
    if (format == kFormatCodes2) {
      const uint32_t row = t * dim / 8;
      sum += MakePlanes(token, page.exponent(), record + at.sign + row, record + at.magnitude + row, scale);
    } else {
      MakeCodes(token, page.exponent(), format, record + at.codes + t * CodeBits(format) * dim / 8, scale);
    }
    header.top_octave = std::max<uint8_t>(header.top_octave, *scale >> 3);
  }
  if (format == kFormatCodes2) {
    header.sign_scale = ScaleForRatio(sum, uint64_t{kPageTokens} * dim, page.exponent());
  }
}

void MakeBoundsRecord(Page& page, RecordHeader& header, uint8_t* rows) {
  const uint32_t dim = page.dim();
  for (uint32_t part = 0; part < kPageParts; ++part) {
    std::array<int32_t, kMaxDim> low;
    std::array<int32_t, kMaxDim> high;
    low.fill(std::numeric_limits<int32_t>::max());
    high.fill(std::numeric_limits<int32_t>::min());
    int64_t largest = 0;
    for (uint32_t t = part * kPartTokens; t < (part + 1) * kPartTokens; ++t) {
      const auto token = page.Token(t);
      for (uint32_t i = 0; i < dim; ++i) {
        low[i] = std::min(low[i], token[i]);
        high[i] = std::max(high[i], token[i]);
        largest = std::max<int64_t>(largest, std::abs(token[i]));
      }
    }
    header.row_scales[part] = ScaleForLargest(largest, 127, page.exponent());
    const Scale scale = OnGrid(header.row_scales[part], page.exponent());
    uint8_t* row = rows + size_t{part} * 2 * dim;
    for (uint32_t i = 0; i < dim; ++i) {
      row[i] = static_cast<uint8_t>(Code(low[i], scale, 127, Rounding::kDown));
      row[dim + i] = static_cast<uint8_t>(Code(high[i], scale, 127, Rounding::kUp));
    }
  }
}

}  // namespace

void Hadamard(std::span<int32_t> x) {
  for (size_t n = 1; n < x.size(); n *= 2) {
    for (size_t first = 0; first < x.size(); first += 2 * n) {
      for (size_t i = first; i < first + n; ++i) {
        const int32_t a = x[i];
        const int32_t b = x[i + n];
        x[i] = a + b;
        x[i + n] = a - b;
      }
    }
  }
}

void MakeRecord(const PageKeys& keys, uint32_t dim, uint32_t record_format, std::span<uint8_t> record) {
  std::fill(record.begin(), record.end(), uint8_t{0});
  if (!IsIndexDim(dim) || !IsRecordFormat(record_format) || ValueBytes(keys.value_type) == 0 ||
      record.size() < RecordBytes(record_format, dim)) {
    return;
  }
  Page page(keys, dim);
  RecordHeader header{};
  header.format = static_cast<uint8_t>(record_format);
  header.dim_log2 = static_cast<uint8_t>(std::bit_width(dim) - 1);
  uint8_t* rows = record.data() + RecordSections(record_format, dim).rows;
  if (IsCodeFormat(record_format)) {
    MakeCodeRecord(page, record_format, header, record.data());
  } else if (record_format == kFormatBounds) {
    MakeBoundsRecord(page, header, rows);
  } else {
    page.Rotate();
    for (uint32_t part = 0; part < kPageParts; ++part) {
      header.row_scales[part] = MakeMean(page, part * kPartTokens, kPartTokens, rows + part * dim);
    }
    header.row_scales[kPageParts] = MakeMean(page, 0, kPageTokens, rows + kPageParts * dim);
  }
  std::memcpy(record.data(), &header, sizeof(header));
}

void MakeQuery(std::span<const float> query, uint32_t record_format, float softmax_scale, int16_t weight,
               std::span<int8_t> codes, QueryParam& param) {
  param = {};
  param.weight = weight;
  const auto dim = static_cast<uint32_t>(query.size());
  std::fill(codes.begin(), codes.end(), int8_t{0});
  if (!IsIndexDim(dim) || codes.size() < dim) {
    return;
  }
  std::array<int32_t, kMaxDim> buffer;
  const auto x = std::span(buffer).first(dim);
  uint32_t largest_bits = 0;
  for (const float value : query) {
    largest_bits = std::max(largest_bits, Finite(std::bit_cast<uint32_t>(value)) & 0x7FFFFFFF);
  }
  const int exponent = GridExponent(largest_bits);
  for (uint32_t i = 0; i < dim; ++i) {
    x[i] = OnGrid(Finite(std::bit_cast<uint32_t>(query[i])), exponent);
  }
  if (IsRotated(record_format)) {
    Hadamard(x);
  }
  int64_t largest = 0;
  for (const int32_t value : x) {
    largest = std::max<int64_t>(largest, std::abs(value));
  }
  if (largest == 0) {
    return;
  }
  for (uint32_t i = 0; i < dim; ++i) {
    const int64_t magnitude = (2 * int64_t{127} * std::abs(x[i]) + largest) / (2 * largest);
    codes[i] = static_cast<int8_t>(x[i] < 0 ? -magnitude : magnitude);
  }
  // y = 16 log2(e) softmax_scale q.k, where q = codes * largest / 127 * 2^(exponent - 14). A product of
  // rotated vectors is dim times too large.
  constexpr double kSixteenLog2E = 23.083120654223414;  // 16 / ln 2
  const double factor = kSixteenLog2E * static_cast<double>(softmax_scale) * static_cast<double>(largest) /
                        (127.0 * (IsRotated(record_format) ? dim : 1));
  if (!(factor > 0.0) || !std::isfinite(factor)) {
    // A softmax scale of 0 ranks all entries equally.
    return;
  }
  int octave;
  const double fraction = std::frexp(factor, &octave);  // [0.5, 1)
  auto multiplier = static_cast<uint32_t>(fraction * 65536.0 + 0.5);
  octave += exponent - (kGridBits - 1);
  if (multiplier == 65536) {
    multiplier = 32768;
    ++octave;
  }
  // factor = multiplier * 2^(octave - 16)
  param.multiplier = static_cast<uint16_t>(multiplier);
  param.shift = static_cast<uint8_t>(std::clamp(16 - octave + 128, 0, 255));
}

void MakeQueryBlock(std::span<const float> queries, uint32_t group, uint32_t dim, uint32_t record_format,
                    float softmax_scale, std::span<const int16_t> weights, std::span<uint8_t> block) {
  std::fill(block.begin(), block.end(), uint8_t{0});
  for (uint32_t g = 0; g < group; ++g) {
    std::array<int8_t, kMaxDim> codes;
    QueryParam param;
    MakeQuery(queries.subspan(size_t{g} * dim, dim), record_format, softmax_scale,
              weights.empty() ? int16_t{0} : weights[g], std::span(codes).first(dim), param);
    std::memcpy(block.data() + size_t{g} * dim, codes.data(), dim);
    std::memcpy(block.data() + QueryParamOffset(group, dim) + g * sizeof(param), &param, sizeof(param));
  }
}

int32_t CodeAt(std::span<const uint8_t> record, uint32_t format, uint32_t dim, uint32_t token, uint32_t i) {
  const RecordLayout at = RecordSections(format, dim);
  if (format == kFormatCodes8) {
    return static_cast<int8_t>(record[at.codes + token * dim + i]);
  }
  if (format == kFormatCodes4) {
    const uint32_t byte = record[at.codes + token * dim / 2 + i % (dim / 2)];
    const int32_t nibble = static_cast<int32_t>(i < dim / 2 ? byte & 15 : byte >> 4);
    return nibble < 8 ? nibble : nibble - 16;
  }
  const uint32_t byte = token * dim / 8 + i / 8;
  const bool positive = (record[at.sign + byte] >> (i % 8) & 1) != 0;
  const bool large = (record[at.magnitude + byte] >> (i % 8) & 1) != 0;
  return (positive ? 1 : -1) * (large ? 3 : 1);
}

}  // namespace mnemo::layout
