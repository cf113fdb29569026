#include "server/model/gguf.h"

#include <absl/strings/escaping.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>

#include "devices/base/mapping.h"
#include "devices/base/range.h"
#include "devices/base/unique_fd.h"
#include "server/model/gguf_split.h"

namespace mnemo::model {

// One file: a descriptor and the beginning of the file in private memory, at a fixed address, read on demand.
// Or memory of the caller.
struct GgufFile::Part {
  std::string path;
  UniqueFd fd;
  // Size of the whole file.
  uint64_t bytes = 0;
  timespec modified = {};
  timespec changed = {};
  uint64_t device = 0;
  uint64_t inode = 0;
  Mapping head;
  // `loaded` bytes of it are readable.
  std::span<const std::byte> view;
  uint64_t loaded = 0;
  // Offset of the end of the tensor entries.
  uint64_t header_bytes = 0;

  static absl::StatusOr<std::shared_ptr<Part>> Open(const std::string& path);
  // Reserves address space for the header of an opened file; later cut to the size of the header.
  absl::Status MapHead();
  // Makes the first `end` bytes readable; `end` is at most `bytes`.
  absl::Status Load(uint64_t end);
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;
};

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place as little-endian");

// Limits on the memory that a file can make this process hold. They are far above the needs of published
// models (about 1,000 tensors, 100 keys and 800,000 vocabulary entries and merges).
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 16;
// Sum over all arrays of the file.
constexpr uint64_t kMaxArrayElements = 1 << 24;
// Limit of the format itself.
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 255;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr uint64_t kMaxHeaderBytes = 1 << 30;
// Bytes of the header to read at a time.
constexpr uint64_t kLoadBytes = 1 << 20;

// Value types, numbered as in the file.
enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Makes a name from the file printable and short for messages, whatever its bytes are.
std::string Printable(std::string_view name) {
  constexpr size_t kShown = 80;
  const absl::string_view shown(name.data(), std::min(name.size(), kShown));
  return absl::CHexEscape(shown) + (name.size() > kShown ? "..." : "");
}

// Reads the header of a file sequentially; never past its end.
class Reader {
 public:
  // `load(end)` makes bytes up to `end` readable at `data`, for a file of `size` bytes.
  using Load = std::function<absl::Status(uint64_t end)>;
  Reader(const std::byte* data, uint64_t size, Load load, const std::string& path)
      : data_(data), size_(size), load_(std::move(load)), path_(path) {}

  uint64_t position() const { return position_; }
  uint64_t bytes_left() const { return size_ - position_; }
  std::span<const std::byte> Since(uint64_t begin) const { return {data_ + begin, position_ - begin}; }

  // Makes the next `bytes` bytes readable.
  absl::Status Need(std::string_view what, uint64_t bytes) {
    if (bytes > bytes_left()) return Truncated(what, bytes);
    return load_(position_ + bytes);
  }

  template <typename... Args>
  absl::Status Invalid(uint64_t at, fmt::format_string<Args...> format, Args&&... args) const {
    return InvalidArgument("{}: at byte {}: {}", path_, at, fmt::format(format, std::forward<Args>(args)...));
  }
  absl::Status Truncated(std::string_view what, uint64_t needed) const {
    return DataLoss("{}: at byte {}: the file ends within {} ({} bytes needed, {} left)", path_, position_,
                    what, needed, bytes_left());
  }

  template <typename T>
  absl::StatusOr<T> Number(std::string_view what) {
    MNEMO_RETURN_IF_ERROR(Need(what, sizeof(T)));
    T value;
    std::memcpy(&value, data_ + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string_view> String(std::string_view what, uint64_t max_bytes) {
    const uint64_t at = position_;
    MNEMO_ASSIGN_OR_RETURN(const uint64_t length, Number<uint64_t>(what));
    if (length > max_bytes) {
      return Invalid(at, "the length of {} is {} bytes; at most {} are allowed", what, length, max_bytes);
    }
    MNEMO_RETURN_IF_ERROR(Need(what, length));
    const std::string_view text(reinterpret_cast<const char*>(data_) + position_, length);
    position_ += length;
    return text;
  }

  absl::StatusOr<bool> Bool(std::string_view what) {
    const uint64_t at = position_;
    MNEMO_ASSIGN_OR_RETURN(const uint8_t value, Number<uint8_t>(what));
    if (value > 1) return Invalid(at, "{} is {}, which is no bool (0 or 1)", what, value);
    return value != 0;
  }

  // Reads the value of one key.
  absl::StatusOr<GgufValue> Value(std::string_view key) {
    const std::string what = fmt::format("the value of key '{}'", Printable(key));
    const uint64_t at = position_;
    MNEMO_ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>(what));
    if (type == kArray) return Array(what);
    return Scalar(type, at, what);
  }

 private:
  template <typename Stored, typename Held>
  absl::StatusOr<GgufValue> NumberValue(std::string_view what) {
    MNEMO_ASSIGN_OR_RETURN(const Stored value, Number<Stored>(what));
    return GgufValue(std::in_place_type<Held>, value);
  }

  absl::StatusOr<GgufValue> Scalar(uint32_t type, uint64_t at, std::string_view what) {
    switch (type) {
      case kUint8:
        return NumberValue<uint8_t, uint64_t>(what);
      case kInt8:
        return NumberValue<int8_t, int64_t>(what);
      case kUint16:
        return NumberValue<uint16_t, uint64_t>(what);
      case kInt16:
        return NumberValue<int16_t, int64_t>(what);
      case kUint32:
        return NumberValue<uint32_t, uint64_t>(what);
      case kInt32:
        return NumberValue<int32_t, int64_t>(what);
      case kFloat32:
        return NumberValue<float, double>(what);
      case kUint64:
        return NumberValue<uint64_t, uint64_t>(what);
      case kInt64:
        return NumberValue<int64_t, int64_t>(what);
      case kFloat64:
        return NumberValue<double, double>(what);
      case kBool: {
        MNEMO_ASSIGN_OR_RETURN(const bool value, Bool(what));
        return GgufValue(std::in_place_type<bool>, value);
      }
      case kString: {
        MNEMO_ASSIGN_OR_RETURN(const std::string_view value, String(what, size_));
        return GgufValue(std::in_place_type<std::string_view>, value);
      }
      default:
        return Invalid(at, "{} has type {}; the format knows 0 to 12", what, type);
    }
  }

  // Fails, before any allocation, when the file is too short for `count` elements of at least
  // `element_bytes`.
  absl::Status CheckArray(uint64_t at, uint64_t count, uint64_t element_bytes, std::string_view what) {
    if (count > bytes_left() / element_bytes) {
      return DataLoss("{}: at byte {}: {} is an array of {} elements, more than fit in the {} bytes left",
                      path_, at, what, count, bytes_left());
    }
    if (count > kMaxArrayElements - array_elements_) {
      return Invalid(at, "{} is an array of {} elements; the arrays of a file may have {} together", what,
                     count, kMaxArrayElements);
    }
    array_elements_ += count;
    return absl::OkStatus();
  }

  template <typename Stored, typename Held>
  absl::StatusOr<GgufValue> NumberArray(uint64_t at, uint64_t count, std::string_view what) {
    MNEMO_RETURN_IF_ERROR(CheckArray(at, count, sizeof(Stored), what));
    MNEMO_RETURN_IF_ERROR(Need(what, count * sizeof(Stored)));
    std::vector<Held> values(count);
    for (Held& value : values) {
      Stored stored;
      std::memcpy(&stored, data_ + position_, sizeof(Stored));
      position_ += sizeof(Stored);
      value = stored;
    }
    return GgufValue(std::move(values));
  }

  absl::StatusOr<GgufValue> Array(std::string_view what) {
    const uint64_t at = position_;
    MNEMO_ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>(what));
    MNEMO_ASSIGN_OR_RETURN(const uint64_t count, Number<uint64_t>(what));
    switch (type) {
      case kUint8:
        return NumberArray<uint8_t, uint64_t>(at, count, what);
      case kInt8:
        return NumberArray<int8_t, int64_t>(at, count, what);
      case kUint16:
        return NumberArray<uint16_t, uint64_t>(at, count, what);
      case kInt16:
        return NumberArray<int16_t, int64_t>(at, count, what);
      case kUint32:
        return NumberArray<uint32_t, uint64_t>(at, count, what);
      case kInt32:
        return NumberArray<int32_t, int64_t>(at, count, what);
      case kFloat32:
        return NumberArray<float, double>(at, count, what);
      case kUint64:
        return NumberArray<uint64_t, uint64_t>(at, count, what);
      case kInt64:
        return NumberArray<int64_t, int64_t>(at, count, what);
      case kFloat64:
        return NumberArray<double, double>(at, count, what);
      case kBool: {
        MNEMO_RETURN_IF_ERROR(CheckArray(at, count, 1, what));
        std::vector<bool> values(count);
        for (uint64_t i = 0; i < count; ++i) {
          MNEMO_ASSIGN_OR_RETURN(values[i], Bool(what));
        }
        return GgufValue(std::move(values));
      }
      case kString: {
        MNEMO_RETURN_IF_ERROR(CheckArray(at, count, sizeof(uint64_t), what));
        std::vector<std::string_view> values(count);
        for (std::string_view& value : values) {
          MNEMO_ASSIGN_OR_RETURN(value, String(what, size_));
        }
        return GgufValue(std::move(values));
      }
      case kArray:
        return Invalid(at, "{} is an array of arrays, which is not supported", what);
      default:
        return Invalid(at, "{} is an array of type {}; the format knows 0 to 12", what, type);
    }
  }

  const std::byte* const data_;
  const uint64_t size_;
  const Load load_;
  const std::string& path_;
  uint64_t position_ = 0;
  uint64_t array_elements_ = 0;
};

struct Header {
  uint64_t tensor_count = 0;
  uint64_t key_count = 0;
};

absl::StatusOr<Header> ReadHeader(Reader& reader) {
  constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
  constexpr uint32_t kVersion = 3;
  MNEMO_ASSIGN_OR_RETURN(const uint32_t magic, reader.Number<uint32_t>("the magic number"));
  if (magic != kMagic) return reader.Invalid(0, "not a GGUF file: it does not begin with 'GGUF'");
  MNEMO_ASSIGN_OR_RETURN(const uint32_t version, reader.Number<uint32_t>("the version"));
  if (version != kVersion) {
    const bool big_endian = __builtin_bswap32(version) == kVersion;
    return reader.Invalid(4, "GGUF version {}{}; only version 3, little-endian, is supported", version,
                          big_endian ? " (a big-endian file)" : "");
  }
  Header header;
  uint64_t at = reader.position();
  MNEMO_ASSIGN_OR_RETURN(header.tensor_count, reader.Number<uint64_t>("the tensor count"));
  if (header.tensor_count > kMaxTensors) {
    return reader.Invalid(at, "{} tensors; at most {} are allowed", header.tensor_count, kMaxTensors);
  }
  at = reader.position();
  MNEMO_ASSIGN_OR_RETURN(header.key_count, reader.Number<uint64_t>("the count of metadata keys"));
  if (header.key_count > kMaxKeys) {
    return reader.Invalid(at, "{} metadata keys; at most {} are allowed", header.key_count, kMaxKeys);
  }
  return header;
}

// A tensor's entry. The position of its data is checked once the start of the data is known.
struct TensorEntry {
  GgufTensor tensor;
  uint64_t entry_at = 0;
  // Offset from the start of the data.
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

absl::Status UnknownTensorType(const Reader& reader, uint64_t at, std::string_view name, uint32_t type) {
  std::vector<std::string_view> known;
  for (uint32_t candidate = 0; candidate < 64; ++candidate) {
    const devices::TensorTypeTraits* traits = devices::FindTensorType(candidate);
    if (traits != nullptr) known.push_back(traits->name);
  }
  const absl::Status status =
      reader.Invalid(at, "tensor '{}' has type {}, which is not supported; supported: {}", Printable(name),
                     type, fmt::join(known, ", "));
  return absl::UnimplementedError(status.message());
}

absl::StatusOr<TensorEntry> ReadTensorEntry(Reader& reader) {
  TensorEntry entry;
  entry.entry_at = reader.position();
  MNEMO_ASSIGN_OR_RETURN(const std::string_view name, reader.String("a tensor's name", kMaxTensorNameBytes));
  const std::string what = fmt::format("the entry of tensor '{}'", Printable(name));
  uint64_t at = reader.position();
  MNEMO_ASSIGN_OR_RETURN(const uint32_t dim_count, reader.Number<uint32_t>(what));
  if (dim_count < 1 || dim_count > kMaxDims) {
    return reader.Invalid(at, "tensor '{}' has {} dimensions; 1 to {} are allowed", Printable(name),
                          dim_count, kMaxDims);
  }
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dim_count; ++i) {
    at = reader.position();
    MNEMO_ASSIGN_OR_RETURN(const uint64_t dim, reader.Number<uint64_t>(what));
    constexpr uint64_t kMaxElements = std::numeric_limits<int64_t>::max();
    if (dim == 0 || dim > kMaxElements / elements) {
      return reader.Invalid(at, "dimension {} of tensor '{}' is {}: empty, or too many elements", i,
                            Printable(name), dim);
    }
    elements *= dim;
    entry.tensor.dims.push_back(static_cast<int64_t>(dim));
  }
  at = reader.position();
  MNEMO_ASSIGN_OR_RETURN(const uint32_t type, reader.Number<uint32_t>(what));
  const devices::TensorTypeTraits* traits = devices::FindTensorType(type);
  if (traits == nullptr) return UnknownTensorType(reader, at, name, type);
  const uint64_t block_elements = static_cast<uint64_t>(traits->block_elements);
  if (static_cast<uint64_t>(entry.tensor.dims[0]) % block_elements != 0) {
    return reader.Invalid(at,
                          "tensor '{}' has rows of {} elements, not a multiple of {}, the block of type {}",
                          Printable(name), entry.tensor.dims[0], block_elements, traits->name);
  }
  if (__builtin_mul_overflow(elements / block_elements, static_cast<uint64_t>(traits->block_bytes),
                             &entry.bytes)) {
    return reader.Invalid(at, "the size of tensor '{}' overflows 64 bits", Printable(name));
  }
  at = reader.position();
  MNEMO_ASSIGN_OR_RETURN(entry.offset, reader.Number<uint64_t>(what));
  entry.tensor.name = name;
  entry.tensor.type = traits->type;
  return entry;
}

absl::StatusOr<uint64_t> AlignmentOf(const GgufFile& file) {
  if (file.Find("general.alignment") == nullptr) return kDefaultAlignment;
  MNEMO_ASSIGN_OR_RETURN(const int64_t value, file.GetInt("general.alignment"));
  if (value < 8 || value > static_cast<int64_t>(kMaxAlignment) ||
      !std::has_single_bit(static_cast<uint64_t>(value))) {
    return InvalidArgument("{}: key 'general.alignment' is {}; a power of two from 8 to {} is allowed",
                           file.path(), value, kMaxAlignment);
  }
  return static_cast<uint64_t>(value);
}

uint64_t Align(uint64_t bytes, uint64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

// Determines the alignment of a later part that does not state it. llama.cpp reads and writes the default;
// the Python package gguf writes the alignment of the first part. The file's length decides.
absl::StatusOr<uint64_t> AlignmentByLength(const Reader& reader, std::span<const TensorEntry> entries,
                                           uint64_t of_first, uint64_t file_bytes) {
  const uint64_t header_end = reader.position();
  if (Align(header_end, kDefaultAlignment) == Align(header_end, of_first)) {
    return std::min(kDefaultAlignment, of_first);
  }
  uint64_t end = 0;
  for (const TensorEntry& entry : entries) {
    if (!IsWithin(entry.offset, entry.bytes, file_bytes)) return kDefaultAlignment;
    end = std::max(end, entry.offset + entry.bytes);
  }
  for (const uint64_t alignment : {kDefaultAlignment, of_first}) {
    const uint64_t begin = Align(header_end, alignment);
    if (file_bytes == begin + end || file_bytes == begin + Align(end, alignment)) return alignment;
  }
  const absl::Status status = reader.Invalid(header_end,
                                             "key 'general.alignment' is absent, and the file of {} bytes "
                                             "fits neither {} nor the {} of the first part: "
                                             "it is truncated, or the key is missing",
                                             file_bytes, kDefaultAlignment, of_first);
  return absl::DataLossError(status.message());
}

// Checks that every tensor lies within the file, is aligned, and overlaps no other.
absl::Status CheckPlacement(const Reader& reader, std::span<const TensorEntry> entries, uint64_t alignment,
                            uint64_t data_begin, uint64_t file_bytes) {
  const uint64_t data_bytes = file_bytes - data_begin;
  std::vector<const TensorEntry*> by_offset;
  for (const TensorEntry& entry : entries) {
    const std::string name = Printable(entry.tensor.name);
    if (entry.offset % alignment != 0) {
      return reader.Invalid(entry.entry_at,
                            "the offset {} of tensor '{}' is not a multiple of the alignment {}",
                            entry.offset, name, alignment);
    }
    if (!IsWithin(entry.offset, entry.bytes, data_bytes)) {
      const absl::Status status = reader.Invalid(
          entry.entry_at,
          "tensor '{}' takes {} bytes from {} of the data, which begins at byte {} and is {} bytes "
          "long: the file is truncated or the entry is wrong",
          name, entry.bytes, entry.offset, data_begin, data_bytes);
      return absl::DataLossError(status.message());
    }
    by_offset.push_back(&entry);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorEntry& before = *by_offset[i - 1];
    if (before.offset + before.bytes > by_offset[i]->offset) {
      return reader.Invalid(by_offset[i]->entry_at, "tensor '{}' overlaps tensor '{}'",
                            Printable(by_offset[i]->tensor.name), Printable(before.tensor.name));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<GgufFile::Part>> GgufFile::Part::Open(const std::string& path) {
  auto part = std::make_shared<Part>();
  part->path = path;
  part->fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!part->fd.valid()) {
    const int error = errno;
    const std::string message = fmt::format("{}: {}", path, std::strerror(error));
    return absl::Status(absl::ErrnoToStatusCode(error), message);
  }
  struct stat info = {};
  if (::fstat(part->fd.get(), &info) != 0) return Internal("{}: fstat: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return InvalidArgument("{}: not a regular file", path);
  if (info.st_size == 0) return InvalidArgument("{}: the file is empty", path);
  part->bytes = static_cast<uint64_t>(info.st_size);
  part->modified = info.st_mtim;
  part->changed = info.st_ctim;
  part->device = info.st_dev;
  part->inode = info.st_ino;
  return part;
}

absl::Status GgufFile::Part::MapHead() {
  absl::StatusOr<Mapping> mapping = Mapping::Anonymous(std::min(bytes, kMaxHeaderBytes));
  if (!mapping.ok()) return Annotate(mapping.status(), path);
  head = *std::move(mapping);
  view = head.bytes();
  return absl::OkStatus();
}

absl::Status GgufFile::Part::Load(uint64_t end) {
  if (end <= loaded) return absl::OkStatus();
  if (!fd.valid()) return DataLoss("{}: the header in the snapshot is cut at byte {}", path, loaded);
  if (end > view.size()) {
    return InvalidArgument("{}: the header reaches beyond byte {}; at most {} bytes are allowed", path, end,
                           view.size());
  }
  const uint64_t until = std::min<uint64_t>(std::max(end, loaded + kLoadBytes), view.size());
  MNEMO_RETURN_IF_ERROR(ReadAt(loaded, head.mutable_bytes().subspan(loaded, until - loaded)));
  loaded = until;
  return absl::OkStatus();
}

absl::Status GgufFile::Part::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = ::pread(fd.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return DataLoss("{}: reading at byte {}: {}", path, offset, std::strerror(errno));
    if (count == 0) {
      return DataLoss("{}: the file ends at byte {} now; it had {} bytes when it was opened", path, offset,
                      bytes);
    }
    out = out.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path, Options options) {
  MNEMO_ASSIGN_OR_RETURN(std::shared_ptr<Part> part, Part::Open(path));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, ReadPart(std::move(part), options));
  MNEMO_ASSIGN_OR_RETURN(const Split split, ReadSplit(*file));
  if (!split.several()) return file;
  MNEMO_ASSIGN_OR_RETURN(const std::vector<std::string> paths, PartPaths(*file, split));
  if (options.metadata_only) return file;
  std::vector<std::shared_ptr<Part>> others;
  for (size_t i = 1; i < paths.size(); ++i) {
    absl::StatusOr<std::shared_ptr<Part>> other = Part::Open(paths[i]);
    if (!other.ok()) {
      return Annotate(other.status(), fmt::format("{}: part {} of {}", path, i + 1, paths.size()));
    }
    others.push_back(*std::move(other));
  }
  MNEMO_RETURN_IF_ERROR(file->Join(others));
  return file;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> bytes,
                                                          const std::string& path, Options options) {
  auto part = std::make_shared<Part>();
  part->path = path;
  part->view = bytes;
  part->bytes = part->loaded = bytes.size();
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, ReadPart(std::move(part), options));
  if (options.metadata_only) return file;
  MNEMO_RETURN_IF_ERROR(file->Join({}));
  return file;
}

absl::Status GgufFile::Join(std::span<const std::shared_ptr<Part>> others) {
  MNEMO_ASSIGN_OR_RETURN(const Split split, ReadSplit(*this));
  if (static_cast<size_t>(split.count) != 1 + others.size()) {
    return InvalidArgument("{}: key 'split.count' is {}; {} parts are given", path_, split.count,
                           1 + others.size());
  }
  if (!split.several()) return absl::OkStatus();
  if (!split.tensor_count.has_value()) {
    return InvalidArgument("{}: key 'split.tensors.count' is absent; a model of several parts needs it",
                           path_);
  }
  MNEMO_ASSIGN_OR_RETURN(const uint64_t alignment, AlignmentOf(*this));
  uint64_t header_bytes = parts_.front()->header_bytes;
  std::vector<size_t> part_of(tensors_.size(), 0);
  for (const std::shared_ptr<Part>& other : others) {
    MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> part, ReadPart(other, Options(), alignment));
    MNEMO_RETURN_IF_ERROR(CheckPart(*this, split, *part, static_cast<int64_t>(parts_.size())));
    header_bytes += other->header_bytes;
    if (header_bytes > kMaxHeaderBytes) {
      return InvalidArgument(
          "{}: the headers of the parts up to this one have {} bytes; at most {} are allowed", other->path,
          header_bytes, kMaxHeaderBytes);
    }
    for (GgufTensor& tensor : part->tensors_) {
      const auto [found, is_new] = tensor_index_.emplace(tensor.name, tensors_.size());
      if (!is_new) {
        return InvalidArgument("{}: tensor '{}' is there twice: in {} too", other->path,
                               Printable(tensor.name), parts_[part_of[found->second]]->path);
      }
      part_of.push_back(parts_.size());
      tensors_.push_back(std::move(tensor));
    }
    parts_.push_back(other);
    if (static_cast<int64_t>(tensors_.size()) > *split.tensor_count) break;
  }
  if (static_cast<int64_t>(tensors_.size()) != *split.tensor_count) {
    return InvalidArgument("{}: key 'split.tensors.count' is {}; the parts up to {} have {} tensors", path_,
                           *split.tensor_count, parts_.back()->path, tensors_.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::ReadPart(std::shared_ptr<Part> part, Options options,
                                                             std::optional<uint64_t> alignment_of_first) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->path_ = part->path;
  file->parts_.push_back(part);
  MNEMO_RETURN_IF_ERROR(file->ReadHead(part, options, alignment_of_first));
  return file;
}

absl::Status GgufFile::ReadHead(const std::shared_ptr<Part>& part, Options options,
                                std::optional<uint64_t> alignment_of_first) {
  const std::string& path = part->path;
  if (part->fd.valid()) MNEMO_RETURN_IF_ERROR(part->MapHead());
  Reader reader(
      part->view.data(), part->bytes, [&part](uint64_t end) { return part->Load(end); }, path);
  MNEMO_ASSIGN_OR_RETURN(const Header header, ReadHeader(reader));
  std::map<std::string_view, std::span<const std::byte>> raw;
  for (uint64_t i = 0; i < header.key_count; ++i) {
    const uint64_t at = reader.position();
    MNEMO_ASSIGN_OR_RETURN(const std::string_view key, reader.String("a metadata key", kMaxKeyBytes));
    const uint64_t value_at = reader.position();
    MNEMO_ASSIGN_OR_RETURN(GgufValue value, reader.Value(key));
    raw.emplace(key, reader.Since(value_at));
    if (!metadata_.emplace(key, std::move(value)).second) {
      return reader.Invalid(at, "key '{}' is there twice", Printable(key));
    }
  }
  Hasher hasher;
  for (const auto& [key, bytes] : raw) {
    if (key.starts_with("split.")) continue;
    hasher.AddText(key);
    hasher.AddNumber(bytes.size());
    hasher.Add(bytes);
  }
  metadata_digest_ = hasher.digest();
  std::vector<TensorEntry> entries;
  for (uint64_t i = 0; !options.metadata_only && i < header.tensor_count; ++i) {
    MNEMO_ASSIGN_OR_RETURN(TensorEntry entry, ReadTensorEntry(reader));
    if (!tensor_index_.emplace(entry.tensor.name, tensors_.size() + i).second) {
      return reader.Invalid(entry.entry_at, "tensor '{}' is there twice", Printable(entry.tensor.name));
    }
    entries.push_back(std::move(entry));
  }
  part->header_bytes = reader.position();
  if (part->fd.valid()) {
    part->head.Shrink(part->header_bytes);
    part->view = part->head.bytes().first(part->header_bytes);
  }
  if (entries.empty()) return absl::OkStatus();

  MNEMO_ASSIGN_OR_RETURN(uint64_t alignment, AlignmentOf(*this));
  if (alignment_of_first.has_value() && Find("general.alignment") == nullptr) {
    MNEMO_ASSIGN_OR_RETURN(alignment, AlignmentByLength(reader, entries, *alignment_of_first, part->bytes));
  }
  const uint64_t data_begin = Align(reader.position(), alignment);
  if (data_begin > part->bytes) return reader.Truncated("the padding before the tensor data", alignment);
  MNEMO_RETURN_IF_ERROR(CheckPlacement(reader, entries, alignment, data_begin, part->bytes));
  for (TensorEntry& entry : entries) {
    const uint64_t begin = data_begin + entry.offset;
    if (part->fd.valid()) {
      entry.tensor.data = devices::TensorData(entry.bytes, [part, begin](uint64_t offset, auto out) {
        return part->ReadAt(begin + offset, out);
      });
    } else if (begin <= part->view.size() && entry.bytes <= part->view.size() - begin) {
      entry.tensor.data = part->view.subspan(begin, entry.bytes);
    } else {
      entry.tensor.data = devices::TensorData(
          entry.bytes, [name = entry.tensor.name, file = path](uint64_t, std::span<std::byte>) {
            return FailedPrecondition("{}: the data of tensor '{}' is not in the snapshot", file, name);
          });
    }
    tensors_.push_back(std::move(entry.tensor));
  }
  return absl::OkStatus();
}

absl::Status GgufFile::CheckUnchanged() const {
  for (const std::shared_ptr<Part>& part : parts_) {
    if (!part->fd.valid()) continue;
    struct stat info = {};
    if (::fstat(part->fd.get(), &info) != 0) return Internal("{}: {}", part->path, std::strerror(errno));
    if (static_cast<uint64_t>(info.st_size) != part->bytes) {
      return DataLoss("{}: the file has {} bytes now; it had {} when it was opened", part->path, info.st_size,
                      part->bytes);
    }
    if (info.st_mtim.tv_sec != part->modified.tv_sec || info.st_mtim.tv_nsec != part->modified.tv_nsec) {
      return DataLoss("{}: the file was written to while it was read", part->path);
    }
  }
  return absl::OkStatus();
}

std::optional<Digest> GgufFile::Stamp() const {
  constexpr int64_t kSettledSeconds = 2;
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  Hasher hasher;
  for (const std::shared_ptr<Part>& part : parts_) {
    if (!part->fd.valid() || now.tv_sec - part->changed.tv_sec <= kSettledSeconds) return std::nullopt;
    hasher.AddNumber(part->device);
    hasher.AddNumber(part->inode);
    hasher.AddNumber(part->bytes);
    for (const timespec& time : {part->modified, part->changed}) {
      hasher.AddNumber(static_cast<uint64_t>(time.tv_sec));
      hasher.AddNumber(static_cast<uint64_t>(time.tv_nsec));
    }
  }
  return hasher.digest();
}

absl::StatusOr<Digest> GgufFile::Identity(const std::map<std::string, Digest>& tensors) const {
  Hasher hasher;
  hasher.AddNumber(metadata_digest_.high);
  hasher.AddNumber(metadata_digest_.low);
  for (const auto& [name, index] : tensor_index_) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return Internal("{}: tensor '{}' has no hash", path_, Printable(name));
    hasher.AddText(name);
    hasher.AddNumber(static_cast<uint64_t>(tensors_[index].type));
    hasher.AddNumber(tensors_[index].dims.size());
    for (const int64_t dim : tensors_[index].dims) hasher.AddNumber(static_cast<uint64_t>(dim));
    hasher.AddNumber(found->second.high);
    hasher.AddNumber(found->second.low);
  }
  return hasher.digest();
}

// Format of a snapshot: the number of parts, then for each part its path, file length and header. Then the
// number of tensors with data, and for each its name and bytes. Numbers have 64 bits; texts are preceded by
// their length.
absl::StatusOr<std::string> GgufFile::Snapshot(std::span<const std::string> with_data) const {
  std::string out;
  const auto number = [&out](uint64_t value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto text = [&](std::string_view value) {
    number(value.size());
    out += value;
  };
  number(parts_.size());
  for (const std::shared_ptr<Part>& part : parts_) {
    text(part->path);
    number(part->bytes);
    text({reinterpret_cast<const char*>(part->view.data()), part->header_bytes});
  }
  number(with_data.size());
  for (const std::string& name : with_data) {
    const GgufTensor* tensor = FindTensor(name);
    MNEMO_CHECK(tensor != nullptr);
    MNEMO_ASSIGN_OR_RETURN(const std::vector<std::byte> data, tensor->data.ReadAll());
    text(name);
    text({reinterpret_cast<const char*>(data.data()), data.size()});
  }
  return out;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::FromSnapshot(std::span<const std::byte> snapshot) {
  const std::string path = "snapshot";
  Reader reader(
      snapshot.data(), snapshot.size(), [](uint64_t) { return absl::OkStatus(); }, path);
  const auto text = [&]() { return reader.String("a snapshot", snapshot.size()); };
  MNEMO_ASSIGN_OR_RETURN(const uint64_t part_count, reader.Number<uint64_t>("a snapshot"));
  std::vector<std::shared_ptr<Part>> parts;
  for (uint64_t i = 0; i < part_count; ++i) {
    auto part = std::make_shared<Part>();
    MNEMO_ASSIGN_OR_RETURN(part->path, text());
    MNEMO_ASSIGN_OR_RETURN(part->bytes, reader.Number<uint64_t>("a snapshot"));
    MNEMO_ASSIGN_OR_RETURN(const std::string_view header, text());
    part->view = std::as_bytes(std::span(header));
    part->loaded = header.size();
    parts.push_back(std::move(part));
  }
  if (parts.empty()) return DataLoss("snapshot: no part");
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, ReadPart(parts.front(), Options()));
  MNEMO_RETURN_IF_ERROR(file->Join(std::span(parts).subspan(1)));
  MNEMO_ASSIGN_OR_RETURN(const uint64_t tensor_count, reader.Number<uint64_t>("a snapshot"));
  for (uint64_t i = 0; i < tensor_count; ++i) {
    MNEMO_ASSIGN_OR_RETURN(const std::string_view name, text());
    MNEMO_ASSIGN_OR_RETURN(const std::string_view data, text());
    const auto found = file->tensor_index_.find(name);
    if (found == file->tensor_index_.end() || file->tensors_[found->second].data.size() != data.size()) {
      return DataLoss("snapshot: tensor '{}' of {} bytes has no place", Printable(name), data.size());
    }
    file->tensors_[found->second].data = std::as_bytes(std::span(data));
  }
  return file;
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace mnemo::model
