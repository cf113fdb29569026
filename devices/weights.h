// Weights in a device's layout, packed once into an image (a sealed memfd) that any number of processes map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/base/hash.h"
#include "devices/base/mapping.h"
#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/tensor_type.h"

namespace mnemo::devices {

enum class TensorRole : uint32_t {
  // [rows, cols], multiplied: out[r] = sum over c of w[r][c] * x[c]. Also read row by row as an embedding.
  kMatrix = 0,
  // [cols], rows = 1: norm weights, biases, rotary factors; always packed as float32.
  kVector = 1,
};

// The bytes of a tensor: either memory that the caller owns, or a reader that fetches them on demand.
class TensorData {
 public:
  // Fills `out` with the bytes from `offset` on; the range lies within the tensor. Called on any thread.
  using Reader = std::function<absl::Status(uint64_t offset, std::span<std::byte> out)>;

  TensorData() = default;
  // Refers to any contiguous range of bytes.
  template <typename Range>
  requires(std::ranges::contiguous_range<Range> && !std::is_same_v<std::remove_cvref_t<Range>, TensorData>)
      TensorData(const Range& memory)  // NOLINT: implicit on purpose
      : memory_(memory), size_(memory_.size()) {}
  TensorData(uint64_t size, Reader reader) : size_(size), reader_(std::move(reader)) {}

  uint64_t size() const { return size_; }
  // Returns the bytes when they are in memory, else an empty span.
  std::span<const std::byte> memory() const { return memory_; }
  // Copies `out.size()` bytes from `offset` on; the range lies within size(). Errors are those of the reader.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;
  // Copies all bytes.
  absl::StatusOr<std::vector<std::byte>> ReadAll() const;

 private:
  std::span<const std::byte> memory_;
  uint64_t size_ = 0;
  // Empty when the bytes are in memory.
  Reader reader_;
};

// One tensor of the model file. Row-major [rows, cols], quantised along cols.
struct TensorSource {
  std::string name;
  TensorRole role = TensorRole::kMatrix;
  TensorType type = TensorType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  TensorData data;
};

// One tensor of an image. The packer defines `format` and the layout of `data`.
struct PackedTensor {
  std::string name;
  TensorRole role = TensorRole::kMatrix;
  TensorType source_type = TensorType::kF32;
  uint32_t format = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  // 64-byte aligned.
  std::span<const std::byte> data;
};

// Layout of weights for one kind of device. Stateless and thread-safe.
class WeightPacker {
 public:
  virtual ~WeightPacker() = default;
  // Name of the layout and its version, e.g. "cpu-x16-v1". A device maps only an image of exactly its own
  // layout.
  virtual std::string layout() const = 0;
  // Returns the bytes that Pack writes, and sets their format. `source` has passed CheckTensorSource.
  // INVALID_ARGUMENT names the tensor and the property that this layout cannot hold.
  virtual absl::StatusOr<size_t> PackedBytes(const TensorSource& source, uint32_t* format) const = 0;
  // Packs whole rows, starting at row `first_row`, whose bytes are `rows`. `out` is the space of the whole
  // tensor, exactly PackedBytes bytes. The rows of a tensor arrive in order, row 0 first.
  virtual absl::Status Pack(const TensorSource& source, int64_t first_row, std::span<const std::byte> rows,
                            std::span<std::byte> out) const = 0;
};

// INVALID_ARGUMENT, naming the tensor, when shape, type and length of the data are inconsistent.
absl::Status CheckTensorSource(const TensorSource& source);

// Identity data stored in an image beside the tensors.
struct ImageIdentity {
  // At most 4096 bytes.
  std::string model_id;
  // Everything else that a process needs when it has the image but no model file.
  std::string description;
};
// Called once after packing, with the hash of the bytes of each source.
using Identify = std::function<absl::StatusOr<ImageIdentity>(const std::map<std::string, Digest>& digests)>;

// Reads each source once, hashes it and packs it into a new sealed memfd. Needs a few MiB of extra memory per
// thread.
absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const Identify& identify);
// As above, with an identity that is known beforehand.
absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const std::string& model_id);

// Reads and hashes the sources on as many threads as packing uses.
absl::StatusOr<std::map<std::string, Digest>> HashSources(std::span<const TensorSource> sources);

// A mapped image. Mapping checks every offset and size in it. Only the device knows how many bytes a matrix
// needs for its format and shape; it checks that before use.
class WeightImage {
 public:
  // FAILED_PRECONDITION when the image's layout is not `layout`; DATA_LOSS when it is malformed. The caller
  // keeps `fd` and may close it afterwards.
  static absl::StatusOr<std::unique_ptr<WeightImage>> Map(int fd, std::string_view layout);

  // Returns nullptr when there is no tensor of that name.
  const PackedTensor* Find(std::string_view name) const;
  const std::string& model_id() const { return model_id_; }
  std::span<const std::byte> description() const { return description_; }
  size_t bytes() const { return mapping_.bytes().size(); }

 private:
  WeightImage() = default;
  Mapping mapping_;
  std::string model_id_;
  std::span<const std::byte> description_;
  // Sorted by name.
  std::vector<PackedTensor> tensors_;
};

}  // namespace mnemo::devices
