// The weight formats that model files store, as GGUF numbers them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "devices/base/status.h"

namespace mnemo::devices {

// Values are those of the ggml_type field of a GGUF tensor.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct TensorTypeTraits {
  TensorType type;
  std::string_view name;   // "Q4_1"
  int64_t block_elements;  // elements that share scales: 1, 32 or 256
  int64_t block_bytes;     // stored bytes of one block
};

// nullptr for a type that is not supported.
const TensorTypeTraits* FindTensorType(uint32_t ggml_type);
const TensorTypeTraits& Traits(TensorType type);

// Writes out.size() elements of `type`, read from `source` (blocks as stored), as float32. out.size() is a
// multiple of block_elements and source holds that many blocks. The arithmetic is float32 with one rounding a
// multiplication or addition, in the order of the gguf Python package, so that values equal its
// dequantisation.
void Dequantize(TensorType type, std::span<const std::byte> source, std::span<float> out);

// IEEE 754 half and bfloat16 from and to float32; to: round to nearest even.
float HalfToFloat(uint16_t half);
uint16_t FloatToHalf(float value);
float Bfloat16ToFloat(uint16_t bits);
uint16_t FloatToBfloat16(float value);

}  // namespace mnemo::devices
