#include "devices/tensor_type.h"

#include <array>
#include <bit>
#include <cstring>

namespace mnemo::devices {
namespace {

constexpr std::array<TensorTypeTraits, 11> kTraits = {{
    {TensorType::kF32, "F32", 1, 4},
    {TensorType::kF16, "F16", 1, 2},
    {TensorType::kQ4_0, "Q4_0", 32, 18},
    {TensorType::kQ4_1, "Q4_1", 32, 20},
    {TensorType::kQ5_0, "Q5_0", 32, 22},
    {TensorType::kQ5_1, "Q5_1", 32, 24},
    {TensorType::kQ8_0, "Q8_0", 32, 34},
    {TensorType::kQ4_K, "Q4_K", 256, 144},
    {TensorType::kQ5_K, "Q5_K", 256, 176},
    {TensorType::kQ6_K, "Q6_K", 256, 210},
    {TensorType::kBF16, "BF16", 1, 2},
}};

float LoadHalf(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return HalfToFloat(half);
}

// Element i of a block of 32: the low nibbles of the 16 bytes come first, then the high ones.
int Nibble(const uint8_t* bytes, int i) { return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4; }

// Returns the fifth bit of element i, from 32 bits in a little-endian word.
int FifthBit(const uint8_t* bytes, int i) { return ((bytes[i / 8] >> (i % 8)) & 1) << 4; }

// Half scale, 16 bytes of nibbles.
void BlockQ4_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(Nibble(block + 2, i) - 8);
}

// Half scale, half minimum, 16 bytes of nibbles.
void BlockQ4_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(Nibble(block + 4, i)) + m;
}

// Half scale, 4 bytes of fifth bits, 16 bytes of nibbles.
void BlockQ5_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>((Nibble(block + 6, i) | FifthBit(block + 2, i)) - 16);
  }
}

void BlockQ5_1(const uint8_t* block,
               // Half scale, half minimum, 4 bytes of fifth bits, 16 bytes of nibbles.
               float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(Nibble(block + 8, i) | FifthBit(block + 4, i)) + m;
  }
}

// Half scale, 32 signed bytes.
void BlockQ8_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

// Unpacks scale and minimum of sub-block `j` of 8, six bits each, packed in 12 bytes. Bytes 0..7 hold the
// first four of both whole. Bytes 8..11 hold the low four bits of the others; their high two bits are the top
// bits of bytes 0..7.
void SixBitScale(const uint8_t* packed, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = packed[j] & 63;
    *minimum = packed[j + 4] & 63;
  } else {
    *scale = (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4);
    *minimum = (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4);
  }
}

// Half scale, half minimum, 12 bytes of sub-block scales, [Q5_K: 32 bytes of fifth bits,] 128 bytes of
// nibbles. Sub-block j of 32 elements takes the low (j even) or high nibbles of bytes 32 * (j / 2) onwards,
// and bit j of each byte of fifth bits.
template <bool kFiveBits>
void BlockQ45K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  const uint8_t* high = block + 16;
  const uint8_t* nibbles = block + (kFiveBits ? 48 : 16);
  for (int j = 0; j < 8; ++j) {
    int scale, minimum;
    SixBitScale(block + 4, j, &scale, &minimum);
    const float ds = d * static_cast<float>(scale);
    const float dm = m * static_cast<float>(minimum);
    for (int i = 0; i < 32; ++i) {
      int q = (nibbles[32 * (j / 2) + i] >> (4 * (j % 2))) & 15;
      if constexpr (kFiveBits) q |= ((high[i] >> j) & 1) << 4;
      out[32 * j + i] = ds * static_cast<float>(q) - dm;
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales (one for 16 elements), half scale.
// Each half of the block has 64 bytes of nibbles (low ones first) and 32 bytes of pairs (lowest pair first).
void BlockQ6_K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int r = i % 128;
    const int low = (block[64 * half + r % 64] >> (4 * (r / 64))) & 15;
    const int high = (block[128 + 32 * half + r % 32] >> (2 * (r / 32))) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + i / 16]));
    out[i] = scale * static_cast<float>((low | (high << 4)) - 32);
  }
}

template <typename BlockFunction>
void EachBlock(const TensorTypeTraits& traits, const uint8_t* in, std::span<float> out,
               BlockFunction function) {
  for (size_t i = 0; i < out.size(); i += static_cast<size_t>(traits.block_elements)) {
    function(in, out.data() + i);
    in += traits.block_bytes;
  }
}

}  // namespace

const TensorTypeTraits* FindTensorType(uint32_t ggml_type) {
  for (const TensorTypeTraits& traits : kTraits) {
    if (static_cast<uint32_t>(traits.type) == ggml_type) return &traits;
  }
  return nullptr;
}

const TensorTypeTraits& Traits(TensorType type) {
  const TensorTypeTraits* traits = FindTensorType(static_cast<uint32_t>(type));
  MNEMO_CHECK(traits != nullptr);
  return *traits;
}

void Dequantize(TensorType type, std::span<const std::byte> source, std::span<float> out) {
  const TensorTypeTraits& traits = Traits(type);
  MNEMO_CHECK(out.size() % static_cast<size_t>(traits.block_elements) == 0);
  MNEMO_CHECK(source.size() / static_cast<size_t>(traits.block_bytes) >=
              out.size() / static_cast<size_t>(traits.block_elements));
  const auto* in = reinterpret_cast<const uint8_t*>(source.data());
  switch (type) {
    case TensorType::kF32:
      if (!out.empty()) std::memcpy(out.data(), in, out.size_bytes());
      return;
    case TensorType::kF16:
      return EachBlock(traits, in, out, [](const uint8_t* block, float* y) { *y = LoadHalf(block); });
    case TensorType::kBF16:
      return EachBlock(traits, in, out, [](const uint8_t* block, float* y) {
        uint16_t bits;
        std::memcpy(&bits, block, sizeof(bits));
        *y = Bfloat16ToFloat(bits);
      });
    case TensorType::kQ4_0:
      return EachBlock(traits, in, out, BlockQ4_0);
    case TensorType::kQ4_1:
      return EachBlock(traits, in, out, BlockQ4_1);
    case TensorType::kQ5_0:
      return EachBlock(traits, in, out, BlockQ5_0);
    case TensorType::kQ5_1:
      return EachBlock(traits, in, out, BlockQ5_1);
    case TensorType::kQ8_0:
      return EachBlock(traits, in, out, BlockQ8_0);
    case TensorType::kQ4_K:
      return EachBlock(traits, in, out, BlockQ45K<false>);
    case TensorType::kQ5_K:
      return EachBlock(traits, in, out, BlockQ45K<true>);
    case TensorType::kQ6_K:
      return EachBlock(traits, in, out, BlockQ6_K);
  }
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t fraction = half & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact in float32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {  // NaN: made quiet, top of the payload kept
    half = 0x7e00 | ((magnitude >> 13) & 0x3ff);
  } else if (magnitude >= 0x477ff000) {  // 65520 and more round to infinity
    half = 0x7c00;
  } else if (magnitude >= 0x38800000) {  // normal: round the 13 dropped bits to nearest even
    half = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
  } else {
    // Subnormal: adding 0.5 makes 2^-24, the unit of a half subnormal, the unit in the last place. The
    // addition rounds.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0.5f);
  }
  return static_cast<uint16_t>(sign | half);
}

float Bfloat16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);  // NaN made quiet
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace mnemo::devices
