// Weight formats of model files, numbered as in GGUF.
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
  // For example "Q4_1".
  std::string_view name;
  // Elements that share scales: 1, 32 or 256.
  int64_t block_elements;
  // Stored bytes of one block.
  int64_t block_bytes;
};

// Returns nullptr for a type that is not supported.
const TensorTypeTraits* FindTensorType(uint32_t ggml_type);
// Returns the traits of a type; `type` must be one of the enumerators.
const TensorTypeTraits& Traits(TensorType type);

// Writes out.size() elements of `type`, read from `source` (blocks as stored), as float32. out.size() is a
// multiple of block_elements and source holds that many blocks. The arithmetic is float32 with one rounding
// per multiplication or addition. Its order is that of the gguf Python package, so values equal that
// package's dequantisation.
void Dequantize(TensorType type, std::span<const std::byte> source, std::span<float> out);

// Conversions between IEEE 754 half or bfloat16 and float32; narrowing rounds to nearest even.
float HalfToFloat(uint16_t half);
uint16_t FloatToHalf(float value);
float Bfloat16ToFloat(uint16_t bits);
uint16_t FloatToBfloat16(float value);

}  // namespace mnemo::devices
