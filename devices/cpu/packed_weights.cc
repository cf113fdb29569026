#include "devices/cpu/packed_weights.h"

#include <algorithm>
#include <cstring>

namespace mnemo::devices::cpu {
namespace {

PackedFormat FormatOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return PackedFormat::kF32;
    case TensorType::kF16:
      return PackedFormat::kF16;
    case TensorType::kBF16:
      return PackedFormat::kBF16;
    case TensorType::kQ4_0:
      return PackedFormat::kNibble;
    case TensorType::kQ4_1:
      return PackedFormat::kNibbleMin;
    case TensorType::kQ5_0:
      return PackedFormat::kByte16;
    case TensorType::kQ5_1:
      return PackedFormat::kByteMin;
    case TensorType::kQ8_0:
      return PackedFormat::kByte128;
    case TensorType::kQ4_K:
      return PackedFormat::kNibbleMinF;
    case TensorType::kQ5_K:
      return PackedFormat::kByteMinF;
    case TensorType::kQ6_K:
      return PackedFormat::kByteHalvesF;
  }
  MNEMO_CHECK(false);
}

// 32 weights of one row: as stored (offset added), with their scales.
struct Block {
  uint8_t stored[kBlockCols];
  uint16_t scale16 = 0;
  uint16_t minimum16 = 0;
  // The second is for the last 16 columns.
  float scale[2] = {};
  float minimum = 0;
};

uint16_t Read16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void ReadQ4(const uint8_t* p, bool minimum, Block* block) {
  block->scale16 = Read16(p);
  if (minimum) block->minimum16 = Read16(p + 2);
  const uint8_t* weights = p + (minimum ? 4 : 2);
  for (int i = 0; i < 16; ++i) {
    block->stored[i] = weights[i] & 15;
    block->stored[16 + i] = static_cast<uint8_t>(weights[i] >> 4);
  }
}

void ReadQ5(const uint8_t* p, bool minimum, Block* block) {
  block->scale16 = Read16(p);
  if (minimum) block->minimum16 = Read16(p + 2);
  const uint8_t* high_bits = p + (minimum ? 4 : 2);
  const uint8_t* weights = high_bits + 4;
  uint32_t high;
  std::memcpy(&high, high_bits, sizeof high);
  for (int i = 0; i < 16; ++i) {
    block->stored[i] = static_cast<uint8_t>((weights[i] & 15) | (high >> i & 1) << 4);
    block->stored[16 + i] = static_cast<uint8_t>(weights[i] >> 4 | (high >> (16 + i) & 1) << 4);
  }
}

void ReadQ8(const uint8_t* p, Block* block) {
  block->scale16 = Read16(p);
  for (int i = 0; i < kBlockCols; ++i) block->stored[i] = static_cast<uint8_t>(p[2 + i] ^ 0x80);
}

// Reads the six-bit scale and minimum of sub-block i of a Q4_K or Q5_K block. The first four are the low bits
// of 8 bytes. The others combine 4 more bytes with the high bits of those 8.
void ReadScaleMinimum(const uint8_t* scales, int i, uint8_t* scale, uint8_t* minimum) {
  if (i < 4) {
    *scale = scales[i] & 63;
    *minimum = scales[i + 4] & 63;
  } else {
    *scale = static_cast<uint8_t>((scales[i + 4] & 15) | (scales[i - 4] >> 6) << 4);
    *minimum = static_cast<uint8_t>((scales[i + 4] >> 4) | (scales[i] >> 6) << 4);
  }
}

// Reads sub-block i (0..7) of 32 weights of a Q4_K or Q5_K block of 256.
void ReadQ45K(const uint8_t* p, bool five, int i, Block* block) {
  const uint8_t* scales = p + 4;
  const uint8_t* high = p + 16;
  const uint8_t* low = p + (five ? 48 : 16) + i / 2 * 32;
  uint8_t scale = 0;
  uint8_t minimum = 0;
  ReadScaleMinimum(scales, i, &scale, &minimum);
  block->scale[0] = HalfToFloat(Read16(p)) * static_cast<float>(scale);
  block->minimum = -(HalfToFloat(Read16(p + 2)) * static_cast<float>(minimum));
  for (int j = 0; j < kBlockCols; ++j) {
    const int nibble = i % 2 == 0 ? low[j] & 15 : low[j] >> 4;
    block->stored[j] = static_cast<uint8_t>(nibble | (five ? (high[j] >> i & 1) << 4 : 0));
  }
}

// Reads sub-block i (0..7) of 32 weights of a Q6_K block of 256: 128 bytes of low nibbles, 64 of high bit
// pairs, 16 signed scales, one half.
void ReadQ6K(const uint8_t* p, int i, Block* block) {
  const int half = i / 4;
  const int quarter = i % 4;
  const uint8_t* low = p + half * 64 + quarter % 2 * 32;
  const uint8_t* high = p + 128 + half * 32;
  const uint8_t* scales = p + 192 + i * 2;
  const float scale = HalfToFloat(Read16(p + 208));
  for (int j = 0; j < 2; ++j) block->scale[j] = scale * static_cast<float>(static_cast<int8_t>(scales[j]));
  for (int j = 0; j < kBlockCols; ++j) {
    const int nibble = quarter < 2 ? low[j] & 15 : low[j] >> 4;
    block->stored[j] = static_cast<uint8_t>(nibble | (high[j] >> (2 * quarter) & 3) << 4);
  }
}

// `row` points to the row's first stored block; `index` counts blocks of 32 columns.
void ReadBlock(TensorType type, const uint8_t* row, int64_t index, Block* block) {
  const TensorTypeTraits& traits = Traits(type);
  const int64_t per_stored = traits.block_elements / kBlockCols;
  const uint8_t* p = row + index / per_stored * traits.block_bytes;
  const int sub = static_cast<int>(index % per_stored);
  switch (type) {
    case TensorType::kQ4_0:
    case TensorType::kQ4_1:
      return ReadQ4(p, type == TensorType::kQ4_1, block);
    case TensorType::kQ5_0:
    case TensorType::kQ5_1:
      return ReadQ5(p, type == TensorType::kQ5_1, block);
    case TensorType::kQ8_0:
      return ReadQ8(p, block);
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return ReadQ45K(p, type == TensorType::kQ5_K, sub, block);
    case TensorType::kQ6_K:
      return ReadQ6K(p, sub, block);
    default:
      MNEMO_CHECK(false);
  }
}

void WriteLane(const FormatTraits& traits, const Block& block, int lane, uint8_t* out) {
  for (int c = 0; c < kBlockCols; ++c) {
    if (!traits.nibbles) {
      out[c / 4 * 64 + lane * 4 + c % 4] = block.stored[c];
    } else if (c < 16) {
      out[c / 4 * 64 + lane * 4 + c % 4] = static_cast<uint8_t>(block.stored[c] | block.stored[c + 16] << 4);
    }
  }
  uint8_t* scales = out + traits.weight_bytes();
  if (!traits.wide_scales) {
    std::memcpy(scales + lane * 2, &block.scale16, 2);
    if (traits.minimum) std::memcpy(scales + kTileRows * 2 + lane * 2, &block.minimum16, 2);
    return;
  }
  std::memcpy(scales + lane * 4, &block.scale[0], 4);
  const float second = traits.minimum ? block.minimum : block.scale[1];
  std::memcpy(scales + kTileRows * 4 + lane * 4, &second, 4);
}

// Packs rows [first_row, first_row + count) whose stored bytes begin at `data`.
void PackQuantized(const TensorSource& source, PackedFormat format, int64_t first_row, int64_t count,
                   const uint8_t* data, uint8_t* out) {
  const FormatTraits traits = TraitsOf(format);
  const TensorTypeTraits& type = Traits(source.type);
  const int64_t row_bytes = source.cols / type.block_elements * type.block_bytes;
  const int64_t blocks = source.cols / kBlockCols;
  for (int64_t row = first_row; row < first_row + count; ++row, data += row_bytes) {
    uint8_t* tile = out + row / kTileRows * TileBytes(format, source.cols);
    for (int64_t b = 0; b < blocks; ++b) {
      Block block;
      ReadBlock(source.type, data, b, &block);
      WriteLane(traits, block, static_cast<int>(row % kTileRows), tile + b * traits.block_bytes());
    }
  }
}

void PackFloat(const TensorSource& source, PackedFormat format, int64_t first_row, int64_t count,
               const uint8_t* data, uint8_t* out) {
  const int64_t element = source.type == TensorType::kF32 ? 4 : 2;
  for (int64_t row = first_row; row < first_row + count; ++row) {
    uint8_t* lane = out + row / kTileRows * TileBytes(format, source.cols) + row % kTileRows * element;
    for (int64_t c = 0; c < source.cols; ++c, data += element) {
      std::memcpy(lane + c * kTileRows * element, data, static_cast<size_t>(element));
    }
  }
}

}  // namespace

std::string CpuWeightPacker::layout() const { return fmt::format("cpu-x16-v{}", kPackingVersion); }

absl::StatusOr<size_t> CpuWeightPacker::PackedBytes(const TensorSource& source, uint32_t* format) const {
  const TensorTypeTraits& type = Traits(source.type);
  constexpr int64_t kLargest = int64_t{1} << 40;
  if (source.rows < 1 || source.cols < 1 || source.rows > kLargest / source.cols) {
    return InvalidArgument("tensor {}: shape [{}, {}]; each must be at least 1 and the product at most {}",
                           source.name, source.rows, source.cols, kLargest);
  }
  if (source.cols % type.block_elements != 0) {
    return InvalidArgument("tensor {}: {} columns; type {} needs a multiple of {}", source.name, source.cols,
                           type.name, type.block_elements);
  }
  const size_t wanted =
      static_cast<size_t>(source.rows * (source.cols / type.block_elements) * type.block_bytes);
  if (source.data.size() != wanted) {
    return InvalidArgument("tensor {}: {} bytes of data; {} needs {}", source.name, source.data.size(),
                           type.name, wanted);
  }
  if (source.role == TensorRole::kVector) {
    if (source.rows != 1) {
      return InvalidArgument("tensor {}: a vector of {} rows; 1 is allowed", source.name, source.rows);
    }
    *format = static_cast<uint32_t>(PackedFormat::kVector);
    // Kernels may read whole vectors of 16.
    return static_cast<size_t>((source.cols + kTileRows - 1) / kTileRows * kTileRows) * sizeof(float);
  }
  const PackedFormat packed = FormatOf(source.type);
  *format = static_cast<uint32_t>(packed);
  return static_cast<size_t>((source.rows + kTileRows - 1) / kTileRows * TileBytes(packed, source.cols));
}

absl::Status CpuWeightPacker::Pack(const TensorSource& source, int64_t first_row,
                                   std::span<const std::byte> rows, std::span<std::byte> out) const {
  uint32_t format = 0;
  MNEMO_ASSIGN_OR_RETURN(const size_t bytes, PackedBytes(source, &format));
  MNEMO_CHECK(out.size() == bytes);
  if (first_row == 0) std::fill(out.begin(), out.end(), std::byte{0});
  const PackedFormat packed = static_cast<PackedFormat>(format);
  const auto* data = reinterpret_cast<const uint8_t*>(rows.data());
  auto* destination = reinterpret_cast<uint8_t*>(out.data());
  if (packed == PackedFormat::kVector) {
    Dequantize(source.type, rows,
               std::span(reinterpret_cast<float*>(out.data()), static_cast<size_t>(source.cols)));
    return absl::OkStatus();
  }
  const TensorTypeTraits& type = Traits(source.type);
  const int64_t row_bytes = source.cols / type.block_elements * type.block_bytes;
  const int64_t count = static_cast<int64_t>(rows.size()) / row_bytes;
  MNEMO_CHECK(first_row >= 0 && count <= source.rows - first_row);
  if (IsFloatFormat(packed)) {
    PackFloat(source, packed, first_row, count, data, destination);
  } else {
    PackQuantized(source, packed, first_row, count, data, destination);
  }
  return absl::OkStatus();
}

namespace {

void UnpackFloatRow(const PackedTensor& matrix, PackedFormat format, const uint8_t* tile, int64_t lane,
                    float* out) {
  for (int64_t c = 0; c < matrix.cols; ++c) {
    const int64_t i = c * kTileRows + lane;
    if (format == PackedFormat::kF32) {
      std::memcpy(&out[c], tile + i * 4, 4);
    } else {
      const uint16_t bits = Read16(tile + i * 2);
      out[c] = format == PackedFormat::kF16 ? HalfToFloat(bits) : Bfloat16ToFloat(bits);
    }
  }
}

float ReadScale(const FormatTraits& traits, const uint8_t* scales, int64_t lane) {
  if (!traits.wide_scales) return HalfToFloat(Read16(scales + lane * 2));
  float value;
  std::memcpy(&value, scales + lane * 4, 4);
  return value;
}

}  // namespace

void UnpackRow(const PackedTensor& matrix, int64_t row, float* out) {
  const PackedFormat format = static_cast<PackedFormat>(matrix.format);
  const uint8_t* tile =
      reinterpret_cast<const uint8_t*>(matrix.data.data()) + row / kTileRows * TileBytes(format, matrix.cols);
  const int64_t lane = row % kTileRows;
  if (IsFloatFormat(format)) return UnpackFloatRow(matrix, format, tile, lane, out);
  const FormatTraits traits = TraitsOf(format);
  const int offset = traits.offset_shift == 0 ? 0 : 1 << traits.offset_shift;
  for (int64_t b = 0; b < matrix.cols / kBlockCols; ++b, tile += traits.block_bytes()) {
    const uint8_t* scales = tile + traits.weight_bytes();
    const float scale = ReadScale(traits, scales, lane);
    const float second =
        traits.minimum || traits.halves ? ReadScale(traits, scales + traits.scale_bytes(), lane) : 0.0f;
    for (int c = 0; c < kBlockCols; ++c) {
      int stored = 0;
      if (traits.nibbles) {
        const uint8_t byte = tile[c % 16 / 4 * 64 + lane * 4 + c % 4];
        stored = c < 16 ? byte & 15 : byte >> 4;
      } else {
        stored = tile[c / 4 * 64 + lane * 4 + c % 4];
      }
      const float column_scale = traits.halves && c >= 16 ? second : scale;
      const float product = column_scale * static_cast<float>(stored - offset);
      out[b * kBlockCols + c] = traits.minimum ? product + second : product;
    }
  }
}

}  // namespace mnemo::devices::cpu
