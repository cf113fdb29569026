// Weights as a device wants them: packed once into an image (a sealed memfd) that any number of processes
// map.
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
  kMatrix = 0,  // [rows, cols], multiplied: out[r] = sum over c of w[r][c] * x[c]; also read row by row as an
                // embedding
  kVector = 1,  // [cols], rows = 1: norm weights, biases, rotary factors; always packed as float32
};

// The bytes of a tensor, in memory that stays the caller's or read from where they lie.
class TensorData {
 public:
  // Fills `out` with the bytes from `offset` on, which are there. Any thread.
  using Reader = std::function<absl::Status(uint64_t offset, std::span<std::byte> out)>;

  TensorData() = default;
  // From any contiguous range of bytes.
  template <typename Range>
  requires(std::ranges::contiguous_range<Range> && !std::is_same_v<std::remove_cvref_t<Range>, TensorData>)
      TensorData(const Range& memory)  // NOLINT: a span is as good as data
      : memory_(memory), size_(memory_.size()) {}
  TensorData(uint64_t size, Reader reader) : size_(size), reader_(std::move(reader)) {}

  uint64_t size() const { return size_; }
  // The bytes themselves when they are in memory, else empty.
  std::span<const std::byte> memory() const { return memory_; }
  // Copies `out.size()` bytes from `offset` on; the range lies within size(). Errors are the reader's.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;
  absl::StatusOr<std::vector<std::byte>> ReadAll() const;

 private:
  std::span<const std::byte> memory_;
  uint64_t size_ = 0;
  Reader reader_;  // empty: in memory
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
  // Packs the whole rows whose bytes are `rows`, the first of them row `first_row`, into `out`, the place of
  // the whole tensor with just PackedBytes bytes. The rows of a tensor come in order, row 0 first.
  virtual absl::Status Pack(const TensorSource& source, int64_t first_row, std::span<const std::byte> rows,
                            std::span<std::byte> out) const = 0;
};

// INVALID_ARGUMENT, naming the tensor, when shape, type and length of the data do not go together.
absl::Status CheckTensorSource(const TensorSource& source);

// Stored in an image beside the tensors.
struct ImageIdentity {
  std::string model_id;     // at most 4096 bytes
  std::string description;  // what else a process needs that has the image and no model file
};
// Called once all is packed, with the hash of the bytes of each source.
using Identify = std::function<absl::StatusOr<ImageIdentity>(const std::map<std::string, Digest>& digests)>;

// Reads each source once, hashes it and packs it into a new sealed memfd. Holds a few MiB a thread besides.
absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const Identify& identify);
// The same with an identity that is known before.
absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const std::string& model_id);

// Reads and hashes sources, on as many threads as packing takes.
absl::StatusOr<std::map<std::string, Digest>> HashSources(std::span<const TensorSource> sources);

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
  std::span<const std::byte> description() const { return description_; }
  size_t bytes() const { return mapping_.bytes().size(); }

 private:
  WeightImage() = default;
  Mapping mapping_;
  std::string model_id_;
  std::span<const std::byte> description_;
  std::vector<PackedTensor> tensors_;  // sorted by name
};

}  // namespace mnemo::devices
