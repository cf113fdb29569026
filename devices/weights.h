// Weights as a device wants them: packed once into an image (a sealed memfd) that any number of processes
// map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/mapping.h"
#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/tensor_type.h"

namespace mnemo::devices {

enum class TensorRole : uint32_t {
  kMatrix = 0,  // [rows, cols], multiplied: out[r] = sum over c of w[r][c] * x[c]; also read row by row as an
                // embedding
  kVector = 1,  // [cols], rows = 1: norm weights, biases, rotary factors; always packed as float32
};

// One tensor of the model file. Row-major [rows, cols], quantised along cols. The memory stays the caller's.
struct TensorSource {
  std::string name;
  TensorRole role = TensorRole::kMatrix;
  TensorType type = TensorType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const std::byte> data;
};

// One tensor of an image. `format` and the layout of `data` are the packer's own.
struct PackedTensor {
  std::string name;
  TensorRole role = TensorRole::kMatrix;
  TensorType source_type = TensorType::kF32;
  uint32_t format = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const std::byte> data;  // 64-byte aligned
};

// How one kind of device lays out weights. Stateless and thread-safe.
class WeightPacker {
 public:
  virtual ~WeightPacker() = default;
  // Names the layout and its version, e.g. "cpu-x16-v1"; an image is only mapped by a device that wants this
  // very layout.
  virtual std::string layout() const = 0;
  // Bytes that Pack writes, and the format it will have. `source` has passed CheckTensorSource.
  // INVALID_ARGUMENT names the tensor and what this layout cannot hold.
  virtual absl::StatusOr<size_t> PackedBytes(const TensorSource& source, uint32_t* format) const = 0;
  // Fills `out`, of just PackedBytes bytes.
  virtual absl::Status Pack(const TensorSource& source, std::span<std::byte> out) const = 0;
};

// INVALID_ARGUMENT, naming the tensor, when shape, type and length of the data do not go together.
absl::Status CheckTensorSource(const TensorSource& source);

// Packs all of `sources` into a new sealed memfd. `model_id` says which model file it came from and is
// stored.
absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const std::string& model_id);

// A mapped image. Every offset and size in it is checked when it is mapped; whether a matrix has as many
// bytes as its format and shape want only its device can tell, which checks it before use.
class WeightImage {
 public:
  // FAILED_PRECONDITION when the image has another layout than `layout`; DATA_LOSS when it is malformed. `fd`
  // stays the caller's and may be closed afterwards.
  static absl::StatusOr<std::unique_ptr<WeightImage>> Map(int fd, std::string_view layout);

  // nullptr when there is none of that name.
  const PackedTensor* Find(std::string_view name) const;
  const std::string& model_id() const { return model_id_; }
  size_t bytes() const { return mapping_.bytes().size(); }

 private:
  WeightImage() = default;
  Mapping mapping_;
  std::string model_id_;
  std::vector<PackedTensor> tensors_;  // sorted by name
};

}  // namespace mnemo::devices
