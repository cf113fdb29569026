#include "devices/reference/reference_packer.h"

namespace mnemo::devices::reference {

absl::StatusOr<size_t> ReferencePacker::PackedBytes(const TensorSource& source, uint32_t* format) const {
  *format = 0;
  return static_cast<size_t>(source.rows) * static_cast<size_t>(source.cols) * sizeof(float);
}

absl::Status ReferencePacker::Pack(const TensorSource& source, int64_t first_row,
                                   std::span<const std::byte> rows, std::span<std::byte> out) const {
  const TensorTypeTraits& traits = Traits(source.type);
  const auto elements = static_cast<int64_t>(rows.size()) / traits.block_bytes * traits.block_elements;
  Dequantize(source.type, rows,
             {reinterpret_cast<float*>(out.data()) + first_row * source.cols, static_cast<size_t>(elements)});
  return absl::OkStatus();
}

const float* Floats(const PackedTensor& tensor) {
  MNEMO_CHECK(tensor.data.size() / sizeof(float) / static_cast<size_t>(tensor.cols) >=
              static_cast<size_t>(tensor.rows));
  return reinterpret_cast<const float*>(tensor.data.data());
}

}  // namespace mnemo::devices::reference
