#pragma once

#include <span>
#include <string>

#include "devices/weights.h"

namespace mnemo::devices::reference {

// Packs every tensor as float32, row-major.
class ReferencePacker : public WeightPacker {
 public:
  std::string layout() const override { return "reference-f32-v1"; }
  absl::StatusOr<size_t> PackedBytes(const TensorSource& source, uint32_t* format) const override;
  absl::Status Pack(const TensorSource& source, int64_t first_row, std::span<const std::byte> rows,
                    std::span<std::byte> out) const override;
};

// Returns the [rows, cols] floats of a tensor that ReferencePacker packed; aborts when it has fewer bytes
// than that.
const float* Floats(const PackedTensor& tensor);

}  // namespace mnemo::devices::reference
