#include "devices/weights.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "devices/base/range.h"
#include "devices/base/resources.h"

namespace mnemo::devices {
namespace {

// Layout of an image: Header, then `tensor_count` entries sorted by name, then the bytes of the strings. The
// tensors' data follow, each at a multiple of kAlignment, then the model's id and the description. Offsets
// are from the start of the image. Integers have the host's byte order (little-endian), because the machine
// that maps an image is the one that wrote it.
constexpr uint64_t kMagic = 0x3149574F4D454E4Dull;  // "MNEMOWI1"
constexpr uint32_t kVersion = 2;
constexpr uint64_t kAlignment = 64;
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint32_t kMaxStringBytes = 4096;
constexpr int64_t kMaxDimension = int64_t{1} << 40;
constexpr unsigned kMaxPackThreads = 16;
// Bytes read at a time; more when a row is longer.
constexpr uint64_t kChunkBytes = 1 << 20;
constexpr uint64_t kMaxDescriptionBytes = uint64_t{1} << 30;

struct StringRef {
  uint64_t offset = 0;
  uint32_t bytes = 0;
  uint32_t reserved = 0;
};

struct Header {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  uint32_t reserved = 0;
  uint64_t total_bytes = 0;
  uint64_t tensor_count = 0;
  StringRef layout;
  StringRef model_id;
  StringRef description;
};
static_assert(sizeof(Header) == 80);

struct Entry {
  StringRef name;
  uint32_t role = 0;
  uint32_t source_type = 0;
  uint32_t format = 0;
  uint32_t reserved = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  uint64_t data_offset = 0;
  uint64_t data_bytes = 0;
};
static_assert(sizeof(Entry) == 64);

uint64_t AlignUp(uint64_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

// Calls work(i) for each of `count` independent tensors, distributed over threads; stops at the first error.
absl::Status ForEachTensor(size_t count, const std::function<absl::Status(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  absl::Status first_error;
  auto run = [&] {
    for (size_t i = next++; i < count; i = next++) {
      const absl::Status status = work(i);
      if (status.ok()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      first_error.Update(status);
      next = count;
    }
  };
  const unsigned thread_count = std::min({static_cast<unsigned>(AvailableResources().cores), kMaxPackThreads,
                                          static_cast<unsigned>(std::max<size_t>(count, 1))});
  std::vector<std::jthread> threads;
  for (unsigned i = 1; i < thread_count; ++i) threads.emplace_back(run);
  run();
  threads.clear();
  return first_error;
}

uint64_t RowBytes(const TensorSource& source) {
  const TensorTypeTraits& traits = Traits(source.type);
  return static_cast<uint64_t>(source.cols / traits.block_elements * traits.block_bytes);
}

// Reads `source` once from end to end in chunks of whole rows. `source` has passed CheckTensorSource.
absl::StatusOr<Digest> ReadInChunks(
    const TensorSource& source,
    const std::function<absl::Status(int64_t first_row, std::span<const std::byte> rows)>& take) {
  const uint64_t row_bytes = RowBytes(source);
  const auto rows_at_once = static_cast<int64_t>(std::max<uint64_t>(kChunkBytes / row_bytes, 1));
  std::vector<std::byte> buffer;
  Hasher hasher;
  for (int64_t row = 0; row < source.rows; row += rows_at_once) {
    const auto rows = static_cast<uint64_t>(std::min(rows_at_once, source.rows - row));
    const uint64_t offset = static_cast<uint64_t>(row) * row_bytes;
    std::span<const std::byte> chunk;
    if (source.data.memory().empty()) {
      buffer.resize(rows * row_bytes);
      MNEMO_RETURN_IF_ERROR(source.data.Read(offset, buffer));
      chunk = buffer;
    } else {
      chunk = source.data.memory().subspan(offset, rows * row_bytes);
    }
    hasher.Add(chunk);
    MNEMO_RETURN_IF_ERROR(take(row, chunk));
  }
  return hasher.digest();
}

absl::StatusOr<std::map<std::string, Digest>> PackAll(const WeightPacker& packer,
                                                      const std::vector<const TensorSource*>& sources,
                                                      std::span<const Entry> entries,
                                                      std::span<std::byte> image) {
  std::vector<Digest> digests(sources.size());
  const absl::Status packed = ForEachTensor(sources.size(), [&](size_t i) -> absl::Status {
    const std::span<std::byte> out = image.subspan(entries[i].data_offset, entries[i].data_bytes);
    MNEMO_ASSIGN_OR_RETURN(digests[i],
                           ReadInChunks(*sources[i], [&](int64_t row, std::span<const std::byte> rows) {
                             return packer.Pack(*sources[i], row, rows, out);
                           }));
    return absl::OkStatus();
  });
  MNEMO_RETURN_IF_ERROR(packed);
  std::map<std::string, Digest> by_name;
  for (size_t i = 0; i < sources.size(); ++i) by_name.emplace(sources[i]->name, digests[i]);
  return by_name;
}

// The whole image in order of offsets, and the place of every part. Strings follow the table.
struct Plan {
  // Sorted by name.
  std::vector<const TensorSource*> sources;
  std::vector<Entry> entries;
  Header header;
  std::string strings;
  uint64_t strings_offset = 0;
};

absl::StatusOr<Plan> MakePlan(const WeightPacker& packer, std::span<const TensorSource> sources) {
  Plan plan;
  if (sources.size() > kMaxTensors) {
    return InvalidArgument("a model of {} tensors; at most {} are allowed", sources.size(), kMaxTensors);
  }
  for (const TensorSource& source : sources) plan.sources.push_back(&source);
  std::sort(plan.sources.begin(), plan.sources.end(),
            [](const TensorSource* a, const TensorSource* b) { return a->name < b->name; });
  plan.strings_offset = sizeof(Header) + sizeof(Entry) * plan.sources.size();
  auto add_string = [&plan](const std::string& text) {
    StringRef ref{plan.strings_offset + plan.strings.size(), static_cast<uint32_t>(text.size())};
    plan.strings += text;
    return ref;
  };
  if (packer.layout().size() > kMaxStringBytes) {
    return InvalidArgument("a layout name of {} bytes; at most {} are allowed", packer.layout().size(),
                           kMaxStringBytes);
  }
  plan.header.tensor_count = plan.sources.size();
  plan.header.layout = add_string(packer.layout());
  for (size_t i = 0; i < plan.sources.size(); ++i) {
    const TensorSource& source = *plan.sources[i];
    MNEMO_RETURN_IF_ERROR(CheckTensorSource(source));
    if (i > 0 && plan.sources[i - 1]->name == source.name) {
      return InvalidArgument("tensor {} is there twice", source.name);
    }
    Entry entry;
    entry.name = add_string(source.name);
    entry.role = static_cast<uint32_t>(source.role);
    entry.source_type = static_cast<uint32_t>(source.type);
    entry.rows = source.rows;
    entry.cols = source.cols;
    MNEMO_ASSIGN_OR_RETURN(entry.data_bytes, packer.PackedBytes(source, &entry.format));
    plan.entries.push_back(entry);
  }
  uint64_t offset = plan.strings_offset + plan.strings.size();
  for (Entry& entry : plan.entries) {
    entry.data_offset = AlignUp(offset);
    offset = entry.data_offset + entry.data_bytes;
  }
  plan.header.total_bytes = AlignUp(offset);
  return plan;
}

// Extends the file and allocates its memory: a write to memory that is not there would end the process with
// SIGBUS.
absl::Status Reserve(int fd, uint64_t total_bytes) {
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(total_bytes));
  if (error == 0) return absl::OkStatus();
  return ResourceExhausted("weight image of {} bytes: {}", total_bytes, std::strerror(error));
}

absl::Status WriteAt(int fd, uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Internal("writing a weight image: {}", std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

// Appends the identity behind the tensors and completes the header.
absl::Status WriteIdentity(int fd, const ImageIdentity& identity, Header* header) {
  if (identity.model_id.size() > kMaxStringBytes || identity.description.size() > kMaxDescriptionBytes) {
    return InvalidArgument("a model id of {} bytes and a description of {}; at most {} and {} are allowed",
                           identity.model_id.size(), identity.description.size(), kMaxStringBytes,
                           kMaxDescriptionBytes);
  }
  header->model_id = {header->total_bytes, static_cast<uint32_t>(identity.model_id.size())};
  header->description = {header->model_id.offset + header->model_id.bytes,
                         static_cast<uint32_t>(identity.description.size())};
  header->total_bytes = AlignUp(header->description.offset + header->description.bytes);
  MNEMO_RETURN_IF_ERROR(Reserve(fd, header->total_bytes));
  MNEMO_RETURN_IF_ERROR(WriteAt(fd, header->model_id.offset, identity.model_id));
  MNEMO_RETURN_IF_ERROR(WriteAt(fd, header->description.offset, identity.description));
  return WriteAt(fd, 0, {reinterpret_cast<const char*>(header), sizeof(Header)});
}

// Reader of an untrusted image: checks that a range lies within the image before it uses the range.
class ImageReader {
 public:
  explicit ImageReader(std::span<const std::byte> image) : image_(image) {}

  bool Contains(uint64_t offset, uint64_t bytes) const { return IsWithin(offset, bytes, image_.size()); }

  absl::StatusOr<Header> ReadHeader() const {
    Header header;
    if (!Contains(0, sizeof(header))) {
      return DataLoss("weight image: {} bytes, less than its header of {}", image_.size(), sizeof(header));
    }
    std::memcpy(&header, image_.data(), sizeof(header));
    if (header.magic != kMagic) return DataLoss("weight image: no magic number at byte 0");
    if (header.version != kVersion) {
      return FailedPrecondition("weight image: version {}, this build reads {}", header.version, kVersion);
    }
    if (header.total_bytes != image_.size()) {
      return DataLoss("weight image: the header says {} bytes, there are {}", header.total_bytes,
                      image_.size());
    }
    if (header.tensor_count > kMaxTensors || !Contains(sizeof(Header), header.tensor_count * sizeof(Entry))) {
      return DataLoss("weight image: a table of {} tensors does not fit", header.tensor_count);
    }
    return header;
  }

  absl::StatusOr<std::string> ReadString(const StringRef& ref, const char* what) const {
    if (ref.bytes > kMaxStringBytes || !Contains(ref.offset, ref.bytes)) {
      return DataLoss("weight image: {} of {} bytes at byte {} does not fit", what, ref.bytes, ref.offset);
    }
    return std::string(reinterpret_cast<const char*>(image_.data()) + ref.offset, ref.bytes);
  }

  absl::StatusOr<PackedTensor> ReadTensor(uint64_t index) const {
    Entry entry;
    std::memcpy(&entry, image_.data() + sizeof(Header) + index * sizeof(Entry), sizeof(entry));
    PackedTensor tensor;
    MNEMO_ASSIGN_OR_RETURN(tensor.name, ReadString(entry.name, "a tensor name"));
    if (entry.role > static_cast<uint32_t>(TensorRole::kVector)) {
      return DataLoss("weight image: tensor {} has role {}", tensor.name, entry.role);
    }
    if (FindTensorType(entry.source_type) == nullptr) {
      return DataLoss("weight image: tensor {} has type {}", tensor.name, entry.source_type);
    }
    if (entry.rows < 1 || entry.rows > kMaxDimension || entry.cols < 1 || entry.cols > kMaxDimension) {
      return DataLoss("weight image: tensor {} has shape [{}, {}]", tensor.name, entry.rows, entry.cols);
    }
    if (!Contains(entry.data_offset, entry.data_bytes) || entry.data_offset % kAlignment != 0) {
      return DataLoss("weight image: tensor {} has {} bytes at byte {} of {}", tensor.name, entry.data_bytes,
                      entry.data_offset, image_.size());
    }
    tensor.role = static_cast<TensorRole>(entry.role);
    const bool vector = tensor.role == TensorRole::kVector;
    if (vector && (entry.rows != 1 || entry.data_bytes / sizeof(float) < static_cast<uint64_t>(entry.cols))) {
      return DataLoss("weight image: vector {} of shape [{}, {}] has {} bytes", tensor.name, entry.rows,
                      entry.cols, entry.data_bytes);
    }
    tensor.source_type = static_cast<TensorType>(entry.source_type);
    tensor.format = entry.format;
    tensor.rows = entry.rows;
    tensor.cols = entry.cols;
    tensor.data = image_.subspan(entry.data_offset, entry.data_bytes);
    return tensor;
  }

 private:
  std::span<const std::byte> image_;
};

}  // namespace

absl::Status CheckTensorSource(const TensorSource& source) {
  if (source.name.empty() || source.name.size() > kMaxStringBytes) {
    return InvalidArgument("a tensor name of {} bytes; 1 to {} are allowed", source.name.size(),
                           kMaxStringBytes);
  }
  const TensorTypeTraits* traits = FindTensorType(static_cast<uint32_t>(source.type));
  if (traits == nullptr) {
    return InvalidArgument("tensor {}: type {} is not supported", source.name,
                           static_cast<uint32_t>(source.type));
  }
  if (source.rows < 1 || source.rows > kMaxDimension || source.cols < 1 || source.cols > kMaxDimension) {
    return InvalidArgument("tensor {}: shape [{}, {}]; each must be 1 to {}", source.name, source.rows,
                           source.cols, kMaxDimension);
  }
  if (source.role == TensorRole::kVector && source.rows != 1) {
    return InvalidArgument("tensor {}: a vector of {} rows; 1 is allowed", source.name, source.rows);
  }
  if (source.cols % traits->block_elements != 0) {
    return InvalidArgument("tensor {}: {} columns of {}; a multiple of {} is allowed", source.name,
                           source.cols, traits->name, traits->block_elements);
  }
  const uint64_t row_bytes = RowBytes(source);
  if (source.data.size() % row_bytes != 0 ||
      source.data.size() / row_bytes != static_cast<uint64_t>(source.rows)) {
    return InvalidArgument("tensor {}: {} bytes of data for {} rows of {} bytes", source.name,
                           source.data.size(), source.rows, row_bytes);
  }
  return absl::OkStatus();
}

absl::Status TensorData::Read(uint64_t offset, std::span<std::byte> out) const {
  MNEMO_CHECK(IsWithin(offset, out.size(), size_));
  if (out.empty()) return absl::OkStatus();
  if (reader_) return reader_(offset, out);
  std::memcpy(out.data(), memory_.data() + offset, out.size());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::byte>> TensorData::ReadAll() const {
  std::vector<std::byte> bytes(size_);
  MNEMO_RETURN_IF_ERROR(Read(0, bytes));
  return bytes;
}

absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const Identify& identify) {
  MNEMO_ASSIGN_OR_RETURN(Plan plan, MakePlan(packer, sources));
  MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, CreateMemfd("mnemo-weights", plan.header.total_bytes));
  MNEMO_RETURN_IF_ERROR(Reserve(fd.get(), plan.header.total_bytes));
  std::map<std::string, Digest> digests;
  {
    MNEMO_ASSIGN_OR_RETURN(Mapping mapping, Mapping::FromFd(fd.get(), plan.header.total_bytes, true));
    const std::span<std::byte> image = mapping.mutable_bytes();
    if (!plan.entries.empty()) {
      std::memcpy(image.data() + sizeof(Header), plan.entries.data(), plan.entries.size() * sizeof(Entry));
    }
    std::memcpy(image.data() + plan.strings_offset, plan.strings.data(), plan.strings.size());
    MNEMO_ASSIGN_OR_RETURN(digests, PackAll(packer, plan.sources, plan.entries, image));
  }
  MNEMO_ASSIGN_OR_RETURN(const ImageIdentity identity, identify(digests));
  MNEMO_RETURN_IF_ERROR(WriteIdentity(fd.get(), identity, &plan.header));
  MNEMO_RETURN_IF_ERROR(SealMemfd(fd.get()));
  return fd;
}

absl::StatusOr<UniqueFd> BuildWeightImage(const WeightPacker& packer, std::span<const TensorSource> sources,
                                          const std::string& model_id) {
  return BuildWeightImage(packer, sources, [&](const auto&) -> absl::StatusOr<ImageIdentity> {
    return ImageIdentity{model_id, {}};
  });
}

absl::StatusOr<std::map<std::string, Digest>> HashSources(std::span<const TensorSource> sources) {
  std::vector<Digest> digests(sources.size());
  const absl::Status hashed = ForEachTensor(sources.size(), [&](size_t i) -> absl::Status {
    MNEMO_RETURN_IF_ERROR(CheckTensorSource(sources[i]));
    MNEMO_ASSIGN_OR_RETURN(digests[i], ReadInChunks(sources[i], [](auto, auto) { return absl::OkStatus(); }));
    return absl::OkStatus();
  });
  MNEMO_RETURN_IF_ERROR(hashed);
  std::map<std::string, Digest> by_name;
  for (size_t i = 0; i < sources.size(); ++i) by_name.emplace(sources[i].name, digests[i]);
  return by_name;
}

absl::StatusOr<std::unique_ptr<WeightImage>> WeightImage::Map(int fd, std::string_view layout) {
  // The contents are checked once and trusted afterwards, so the seals must exclude later changes and
  // truncation.
  constexpr int kWantedSeals = F_SEAL_SHRINK | F_SEAL_WRITE;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kWantedSeals) != kWantedSeals) {
    return DataLoss("weight image: not a memfd sealed against writing and shrinking");
  }
  MNEMO_ASSIGN_OR_RETURN(const size_t bytes, FileLength(fd));
  if (bytes < sizeof(Header)) {
    return DataLoss("weight image: {} bytes, less than its header of {}", bytes, sizeof(Header));
  }
  std::unique_ptr<WeightImage> image(new WeightImage());
  MNEMO_ASSIGN_OR_RETURN(image->mapping_, Mapping::FromFdInLargePages(fd, bytes));
  const ImageReader reader(image->mapping_.bytes());
  MNEMO_ASSIGN_OR_RETURN(const Header header, reader.ReadHeader());
  MNEMO_ASSIGN_OR_RETURN(const std::string found_layout, reader.ReadString(header.layout, "the layout name"));
  if (found_layout != layout) {
    return FailedPrecondition("weight image: layout \"{}\", the device wants \"{}\"", found_layout, layout);
  }
  MNEMO_ASSIGN_OR_RETURN(image->model_id_, reader.ReadString(header.model_id, "the model id"));
  if (header.description.bytes > kMaxDescriptionBytes ||
      !reader.Contains(header.description.offset, header.description.bytes)) {
    return DataLoss("weight image: a description of {} bytes at byte {} does not fit",
                    header.description.bytes, header.description.offset);
  }
  image->description_ = image->mapping_.bytes().subspan(header.description.offset, header.description.bytes);
  for (uint64_t i = 0; i < header.tensor_count; ++i) {
    MNEMO_ASSIGN_OR_RETURN(PackedTensor tensor, reader.ReadTensor(i));
    if (i > 0 && !(image->tensors_.back().name < tensor.name)) {
      return DataLoss("weight image: tensor {} is out of order", tensor.name);
    }
    image->tensors_.push_back(std::move(tensor));
  }
  return image;
}

const PackedTensor* WeightImage::Find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const PackedTensor& tensor, std::string_view n) { return tensor.name < n; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace mnemo::devices
