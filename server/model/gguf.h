// GGUF v3. What the file says of itself is read once into private memory, and tensors through the descriptor
// that was opened: a file that is changed, cut, replaced or deleted later is an error or nothing to us. Every
// count, offset and size is checked before it is used: a truncated, overflowing or hostile file gets an error
// that names what is wrong and at which byte.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "devices/base/hash.h"
#include "devices/base/status.h"
#include "devices/tensor_type.h"
#include "devices/weights.h"

namespace mnemo::model {

// Strings are views into what the file's object holds.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string_view, std::vector<uint64_t>,
                 std::vector<int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string name;
  devices::TensorType type = devices::TensorType::kF32;
  std::vector<int64_t> dims;  // fastest first, as stored: a matrix [rows, cols] has dims {cols, rows}
  devices::TensorData data;   // DATA_LOSS, naming the file, when it ends before the tensor does
};

// A model's file, or all parts of one in several files (server/model/gguf_split.h). Immutable and thread-safe
// once opened.
class GgufFile {
 public:
  struct Options {
    // A vocabulary-only file has no tensors; a reader that wants text alone ignores the tensors of any file,
    // so that a tensor type we do not know is no error there.
    bool metadata_only = false;
  };
  // `path` names the first part where there are several: all are opened now, and checked to be one model.
  // Only the first is opened for metadata alone, which is all in it. NOT_FOUND / PERMISSION_DENIED as the
  // system says; DATA_LOSS or INVALID_ARGUMENT "PATH: at byte N: ..." for a bad file. Messages name the part.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path, Options options);
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path) {
    return Open(path, Options());
  }
  // The same over memory that outlives the object, of one file (tests, fuzzing). `path` is used in messages.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes,
                                                         const std::string& path, Options options);

  // A process that makes a model of this file and has its tensors from elsewhere needs this: all metadata and
  // entries, and the data of the named tensors.
  absl::StatusOr<std::string> Snapshot(std::span<const std::string> with_data) const;
  // The file that the snapshot was taken of; the memory outlives the object. Reading a tensor that is not in
  // it is FAILED_PRECONDITION.
  static absl::StatusOr<std::unique_ptr<GgufFile>> FromSnapshot(std::span<const std::byte> snapshot);

  // Hash of all metadata but the keys of `split.`, and of each tensor's name, type, dimensions and data,
  // whose hashes `tensors` has by name: the same however the file is ordered, aligned or split. INTERNAL when
  // one is missing.
  absl::StatusOr<Digest> Identity(const std::map<std::string, Digest>& tensors) const;
  // DATA_LOSS, naming the part, when one was changed since it was opened.
  absl::Status CheckUnchanged() const;

  const std::string& path() const { return path_; }  // of the first part
  size_t part_count() const { return parts_.size(); }

  // Metadata. Get...: NOT_FOUND when absent, INVALID_ARGUMENT for another type or out of the type's range;
  // both name the key.
  const GgufValue* Find(std::string_view key) const;
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }  // by key
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;   // any integer type
  absl::StatusOr<double> GetFloat(std::string_view key) const;  // any numeric type
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const;
  absl::StatusOr<std::vector<double>> GetFloats(std::string_view key) const;

  std::span<const GgufTensor> tensors() const { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const;  // nullptr when absent

 private:
  struct Part;  // one file
  GgufFile() = default;
  // One file by itself; `alignment_of_first` is given for a later part.
  static absl::StatusOr<std::unique_ptr<GgufFile>> ReadPart(
      std::shared_ptr<Part> part, Options options, std::optional<uint64_t> alignment_of_first = std::nullopt);
  absl::Status ReadHead(const std::shared_ptr<Part>& part, Options options,
                        std::optional<uint64_t> alignment_of_first);
  // Checks the other parts against this one, the first, and takes their tensors.
  absl::Status Join(std::span<const std::shared_ptr<Part>> others);

  std::string path_;
  std::vector<std::shared_ptr<Part>> parts_;
  Digest metadata_digest_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

}  // namespace mnemo::model
