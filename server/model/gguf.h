// GGUF v3 reader. Metadata is read once into private memory, and tensors through the descriptor opened then.
// If the file is changed, cut, replaced or deleted later, the result is an error or no effect at all. Every
// count, offset and size is checked before use. A truncated, overflowing or hostile file gives an error with
// its cause and byte position.
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

// Strings are views into memory of the GgufFile object.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string_view, std::vector<uint64_t>,
                 std::vector<int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string name;
  devices::TensorType type = devices::TensorType::kF32;
  // Fastest dimension first, as stored: a matrix [rows, cols] has dims {cols, rows}.
  std::vector<int64_t> dims;
  // Reads fail with DATA_LOSS, naming the file, when it ends before the tensor does.
  devices::TensorData data;
};

// A model's file, or all parts of a model in several files (server/model/gguf_split.h). Immutable and
// thread-safe once opened.
class GgufFile {
 public:
  struct Options {
    // A vocabulary-only file has no tensors. A reader that needs only text ignores the tensors of any file,
    // so that an unknown tensor type is no error.
    bool metadata_only = false;
  };
  // `path` names the first part where there are several. All parts are opened now, and checked to belong to
  // one model. For metadata alone, only the first is opened, since it holds all metadata. NOT_FOUND or
  // PERMISSION_DENIED come from the system. DATA_LOSS or INVALID_ARGUMENT "PATH: at byte N: ..." reports a
  // bad file. Messages name the part.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path, Options options);
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path) {
    return Open(path, Options());
  }
  // As Open, over the memory of one file, which must outlive the object (tests, fuzzing). `path` is used in
  // messages.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes,
                                                         const std::string& path, Options options);

  // Returns a snapshot for a process that builds a model of this file and has its tensors from elsewhere. It
  // contains all metadata and entries, and the data of the named tensors.
  absl::StatusOr<std::string> Snapshot(std::span<const std::string> with_data) const;
  // Restores the file from a snapshot, whose memory must outlive the object. Reading a tensor that is not in
  // it fails with FAILED_PRECONDITION.
  static absl::StatusOr<std::unique_ptr<GgufFile>> FromSnapshot(std::span<const std::byte> snapshot);

  // Returns a hash of all metadata except keys of `split.`, and of each tensor's name, type, dimensions and
  // data. `tensors` has the hashes of the data by name. The result does not depend on the order, alignment or
  // splitting of the file. INTERNAL when a hash is missing.
  absl::StatusOr<Digest> Identity(const std::map<std::string, Digest>& tensors) const;
  // DATA_LOSS, naming the part, when a part has changed since it was opened.
  absl::Status CheckUnchanged() const;

  // Returns a hash of what the system told of the parts when they were opened: device, inode, length, times
  // of the last write and change. Equal stamps of two processes mean the same, unchanged files. nullopt when
  // a part changed within the last 2 s, the coarsest clock of file systems: a later change could go unseen.
  std::optional<Digest> Stamp() const;

  // Path of the first part.
  const std::string& path() const { return path_; }
  size_t part_count() const { return parts_.size(); }

  // Metadata. The Get functions return NOT_FOUND when the key is absent, and INVALID_ARGUMENT for another
  // type or a value out of the type's range. Both name the key.
  const GgufValue* Find(std::string_view key) const;
  // By key.
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  // Accepts any integer type.
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  // Accepts any numeric type.
  absl::StatusOr<double> GetFloat(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const;
  absl::StatusOr<std::vector<double>> GetFloats(std::string_view key) const;

  std::span<const GgufTensor> tensors() const { return tensors_; }
  // Returns nullptr when absent.
  const GgufTensor* FindTensor(std::string_view name) const;

 private:
  // One file.
  struct Part;
  GgufFile() = default;
  // Reads one file by itself; `alignment_of_first` is given for a later part.
  static absl::StatusOr<std::unique_ptr<GgufFile>> ReadPart(
      std::shared_ptr<Part> part, Options options, std::optional<uint64_t> alignment_of_first = std::nullopt);
  absl::Status ReadHead(const std::shared_ptr<Part>& part, Options options,
                        std::optional<uint64_t> alignment_of_first);
  // Checks the other parts against this one, the first, and takes over their tensors.
  absl::Status Join(std::span<const std::shared_ptr<Part>> others);

  std::string path_;
  std::vector<std::shared_ptr<Part>> parts_;
  Digest metadata_digest_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

}  // namespace mnemo::model
