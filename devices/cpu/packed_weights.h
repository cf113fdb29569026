// Conversion of weights to the kernels' layout (packed_format.h).
#pragma once

#include <cstdint>

#include "devices/cpu/packed_format.h"
#include "devices/weights.h"

namespace mnemo::devices::cpu {

// Part of DeviceInfo::numerics_id and of the image's layout name. Increment it when the layout changes.
inline constexpr int kPackingVersion = 1;

class CpuWeightPacker final : public WeightPacker {
 public:
  std::string layout() const override;
  absl::StatusOr<size_t> PackedBytes(const TensorSource& source, uint32_t* format) const override;
  absl::Status Pack(const TensorSource& source, int64_t first_row, std::span<const std::byte> rows,
                    std::span<std::byte> out) const override;
};

// Writes row `row` of a packed matrix as float32, [cols]; equal to Dequantize of the source.
void UnpackRow(const PackedTensor& matrix, int64_t row, float* out);

}  // namespace mnemo::devices::cpu
