// Memory layout of a matrix for the kernels. Rows are grouped in tiles of 16 (lane = row), columns in blocks
// of 32. Includes no standard library class, because kernel files are compiled for other instruction sets.
#pragma once

#include <cstdint>

namespace mnemo::devices::cpu {

inline constexpr int kTileRows = 16;
inline constexpr int kBlockCols = 32;

// Packed as [tile][block]. A quantised block holds
//   weights: nibbles: 4 x 64 bytes, byte 4 * lane + j of word i = column 4i + j (low) and 16 + 4i + j (high);
//            bytes:   8 x 64 bytes, byte 4 * lane + j of word i = column 4i + j;
//   scales [16] (two of them with sub-blocks of 16 columns), then minima [16] where the format has them.
// weight = scale * (stored - offset) or scale * stored + minimum. Float formats are [tile][column][16].
enum class PackedFormat : uint32_t {
  kVector = 1,       // float32, unchanged
  kNibbleMin = 2,    // Q4_1: f16 scale and minimum
  kNibble = 3,       // Q4_0: f16 scale, offset 8
  kNibbleMinF = 4,   // Q4_K: f32 scale and minimum
  kByte128 = 5,      // Q8_0: f16 scale, offset 128
  kByte16 = 6,       // Q5_0: f16 scale, offset 16
  kByteMin = 7,      // Q5_1: f16 scale and minimum
  kByteMinF = 8,     // Q5_K: f32 scale and minimum
  kByteHalvesF = 9,  // Q6_K: two f32 scales, offset 32
  kF32 = 10,
  kF16 = 11,
  kBF16 = 12,
};

struct FormatTraits {
  bool nibbles = false;
  bool wide_scales = false;  // f32 instead of f16
  bool minimum = false;
  bool halves = false;   // a scale per 16 columns instead of 32
  int offset_shift = 0;  // offset = 2^offset_shift; 0 = none

  constexpr int weight_bytes() const { return kTileRows * kBlockCols / (nibbles ? 2 : 1); }
  constexpr int scale_bytes() const { return kTileRows * (wide_scales ? 4 : 2); }
  constexpr int block_bytes() const {
    return weight_bytes() + scale_bytes() * (1 + (minimum ? 1 : 0) + (halves ? 1 : 0));
  }
};

// Returns the traits of a quantised format.
constexpr FormatTraits TraitsOf(PackedFormat format) {
  switch (format) {
    case PackedFormat::kNibbleMin:
      return {.nibbles = true, .minimum = true};
    case PackedFormat::kNibble:
      return {.nibbles = true, .offset_shift = 3};
    case PackedFormat::kNibbleMinF:
      return {.nibbles = true, .wide_scales = true, .minimum = true};
    case PackedFormat::kByte128:
      return {.offset_shift = 7};
    case PackedFormat::kByte16:
      return {.offset_shift = 4};
    case PackedFormat::kByteMin:
      return {.minimum = true};
    case PackedFormat::kByteMinF:
      return {.wide_scales = true, .minimum = true};
    case PackedFormat::kByteHalvesF:
      return {.wide_scales = true, .halves = true, .offset_shift = 5};
    default:
      return {};
  }
}

constexpr bool IsFloatFormat(PackedFormat format) { return format >= PackedFormat::kF32; }

constexpr int64_t TileBytes(PackedFormat format, int64_t cols) {
  if (format == PackedFormat::kF32) return cols * kTileRows * 4;
  if (IsFloatFormat(format)) return cols * kTileRows * 2;
  return cols / kBlockCols * TraitsOf(format).block_bytes();
}

// Quantised activations: groups of 8 rows, interleaved so that a kernel advances one pointer. ActivationBlock
// is a block of 32 columns of a group.
inline constexpr int kGroupRows = 8;
struct ActivationBlock {
  int8_t values[8][kGroupRows][4];      // [columns 4g..4g+3][row]
  float scale[kGroupRows];              // value = scale * stored
  float scaled_sum[kGroupRows];         // scale * sum of the stored values
  int32_t minus_sum[kGroupRows];        // -(sum of the stored values)
  int32_t minus_first_sum[kGroupRows];  // the same over the first 16 columns
};
static_assert(sizeof(ActivationBlock) == 384);

// An activation is the sum of one or two digits, each of 8 bits with its own scale. The second digit holds
// the rounding error of the first. The blocks of a group are [cols / 32][digits].
inline constexpr int kMaxDigits = 2;

// Rounding of the output matrix's input affects the logits directly, and causes a third of the total error
// when every matrix has one digit. The output matrix is recognised by its shape: many more outputs than
// inputs.
constexpr int DigitsOf(int64_t rows, int64_t cols) { return rows >= 8 * cols ? 2 : 1; }

}  // namespace mnemo::devices::cpu
