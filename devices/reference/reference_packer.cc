#include "devices/reference/reference_packer.h"

namespace mnemo::devices::reference {

absl::StatusOr<size_t> ReferencePacker::PackedBytes(const TensorSource& source, uint32_t* format) const {
  *format = 0;
  return static_cast<size_t>(source.rows) * static_cast<size_t>(source.cols) * sizeof(float);
}

absl::Status ReferencePacker::Pack(const TensorSource& source, std::span<std::byte> out) const {
  Dequantize(source.type, source.data, {reinterpret_cast<float*>(out.data()), out.size() / sizeof(float)});
  return absl::OkStatus();
}

const float* Floats(const PackedTensor& tensor) {
  MNEMO_CHECK(tensor.data.size() / sizeof(float) / static_cast<size_t>(tensor.cols) >=
              static_cast<size_t>(tensor.rows));
  return reinterpret_cast<const float*>(tensor.data.data());
}

}  // namespace mnemo::devices::reference
