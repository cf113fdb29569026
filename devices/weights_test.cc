#include "devices/weights.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>

namespace mnemo::devices {
namespace {

// Stores tensors unchanged; vectors as float32.
class PlainPacker : public WeightPacker {
 public:
  std::string layout() const override { return "plain-v1"; }
  absl::StatusOr<size_t> PackedBytes(const TensorSource& source, uint32_t* format) const override {
    if (source.name == "refused") return InvalidArgument("tensor refused: not by this layout");
    *format = 7;
    return source.role == TensorRole::kVector ? static_cast<size_t>(source.cols) * sizeof(float)
                                              : source.data.size();
  }
  absl::Status Pack(const TensorSource& source, int64_t first_row, std::span<const std::byte> rows,
                    std::span<std::byte> out) const override {
    if (source.name == "breaks") return Internal("tensor breaks: cannot be packed");
    if (source.role == TensorRole::kVector) {
      Dequantize(source.type, rows, {reinterpret_cast<float*>(out.data()), static_cast<size_t>(source.cols)});
    } else {
      const auto row_bytes = static_cast<int64_t>(source.data.size()) / source.rows;
      std::memcpy(out.data() + first_row * row_bytes, rows.data(), rows.size());
    }
    return absl::OkStatus();
  }
};

std::vector<std::byte> Bytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random() & 0x3f);
  return bytes;
}

struct Model {
  std::vector<std::vector<std::byte>> data;
  std::vector<TensorSource> sources;
  void Add(const std::string& name, TensorRole role, TensorType type, int64_t rows, int64_t cols) {
    const TensorTypeTraits& traits = Traits(type);
    const auto bytes = static_cast<size_t>(rows * cols / traits.block_elements * traits.block_bytes);
    data.push_back(Bytes(bytes, static_cast<uint32_t>(data.size())));
    sources.push_back({name, role, type, rows, cols, data.back()});
  }
};

Model SmallModel() {
  Model model;
  model.Add("output", TensorRole::kMatrix, TensorType::kQ4_0, 3, 64);
  model.Add("norm", TensorRole::kVector, TensorType::kF16, 1, 33);
  model.Add("blk.0.up", TensorRole::kMatrix, TensorType::kQ6_K, 2, 256);
  return model;
}

std::vector<std::byte> ImageBytes(int fd) {
  const size_t size = FileLength(fd).value();
  std::vector<std::byte> bytes(size);
  REQUIRE(::pread(fd, bytes.data(), size, 0) == static_cast<ssize_t>(size));
  return bytes;
}

UniqueFd SealedCopy(const std::vector<std::byte>& bytes) {
  UniqueFd fd = CreateMemfd("test", bytes.size()).value();
  if (!bytes.empty())
    REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  REQUIRE(SealMemfd(fd.get()).ok());
  return fd;
}

TEST_CASE("packed tensors are found in the mapped image") {
  const Model model = SmallModel();
  const UniqueFd fd = BuildWeightImage(PlainPacker(), model.sources, "model-1").value();
  const std::unique_ptr<WeightImage> image = WeightImage::Map(fd.get(), "plain-v1").value();
  CHECK(image->model_id() == "model-1");
  for (const TensorSource& source : model.sources) {
    const PackedTensor* tensor = image->Find(source.name);
    REQUIRE(tensor != nullptr);
    CHECK(tensor->name == source.name);
    CHECK(tensor->role == source.role);
    CHECK(tensor->source_type == source.type);
    CHECK(tensor->format == 7);
    CHECK(tensor->rows == source.rows);
    CHECK(tensor->cols == source.cols);
    CHECK(reinterpret_cast<uintptr_t>(tensor->data.data()) % 64 == 0);
    if (source.role == TensorRole::kMatrix) {
      REQUIRE(tensor->data.size() == source.data.size());
      CHECK(std::memcmp(tensor->data.data(), source.data.memory().data(), source.data.size()) == 0);
    } else {
      CHECK(tensor->data.size() == static_cast<size_t>(source.cols) * sizeof(float));
    }
  }
  CHECK(image->Find("") == nullptr);
  CHECK(image->Find("norm2") == nullptr);
  CHECK(image->Find("zzz") == nullptr);
}

TEST_CASE("data from a reader gives the same image as data in memory, with its hash") {
  Model model;
  model.Add("long", TensorRole::kMatrix, TensorType::kF16, 3000, 512);  // several chunks
  model.Add("norm", TensorRole::kVector, TensorType::kF32, 1, 33);
  std::vector<TensorSource> read = model.sources;
  std::atomic<uint64_t> bytes_read{0};
  for (size_t i = 0; i < read.size(); ++i) {
    const std::vector<std::byte>& data = model.data[i];
    read[i].data = TensorData(data.size(), [&](uint64_t offset, std::span<std::byte> out) {
      // On several threads, for which the framework's assertions are not made.
      if (offset + out.size() > data.size()) return DataLoss("{} bytes at {}", out.size(), offset);
      std::memcpy(out.data(), data.data() + offset, out.size());
      bytes_read += out.size();
      return absl::OkStatus();
    });
  }
  std::map<std::string, Digest> seen;
  const auto build = [&](std::span<const TensorSource> sources) {
    const UniqueFd fd =
        BuildWeightImage(PlainPacker(), sources, [&](const auto& digests) -> absl::StatusOr<ImageIdentity> {
          seen = digests;
          return ImageIdentity{"id", "described"};
        }).value();
    const auto image = WeightImage::Map(fd.get(), "plain-v1").value();
    CHECK(image->model_id() == "id");
    CHECK(std::string(reinterpret_cast<const char*>(image->description().data()),
                      image->description().size()) == "described");
    return ImageBytes(fd.get());
  };
  const std::vector<std::byte> from_memory = build(model.sources);
  const std::map<std::string, Digest> digests = seen;
  CHECK(build(read) == from_memory);
  CHECK(seen == digests);
  CHECK(bytes_read == model.data[0].size() + model.data[1].size());  // each read once
  CHECK(HashSources(read).value() == digests);
  model.data[0].back() ^= std::byte{1};
  const auto changed = HashSources(read).value();
  CHECK(changed.at("long") != digests.at("long"));
  CHECK(changed.at("norm") == digests.at("norm"));
}

TEST_CASE("unreadable data gives its error") {
  Model model = SmallModel();
  model.sources[0].data = TensorData(model.sources[0].data.size(),
                                     [](uint64_t, std::span<std::byte>) { return DataLoss("file: cut"); });
  CHECK(BuildWeightImage(PlainPacker(), model.sources, "m").status().message() == "file: cut");
  CHECK(HashSources(model.sources).status().message() == "file: cut");
}

TEST_CASE("an image cannot be written or cut any more") {
  const Model model = SmallModel();
  const UniqueFd fd = BuildWeightImage(PlainPacker(), model.sources, "m").value();
  const char byte = 1;
  CHECK(::pwrite(fd.get(), &byte, 1, 0) < 0);
  CHECK(::ftruncate(fd.get(), 64) != 0);
  UniqueFd open = CreateMemfd("open", 4096).value();
  CHECK(WeightImage::Map(open.get(), "plain-v1").status().code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("an image of another layout is refused, naming both") {
  const Model model = SmallModel();
  const UniqueFd fd = BuildWeightImage(PlainPacker(), model.sources, "m").value();
  const absl::Status status = WeightImage::Map(fd.get(), "cpu-v2").status();
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK_THAT(std::string(status.message()), Catch::Contains("plain-v1") && Catch::Contains("cpu-v2"));
}

TEST_CASE("bad sources are refused, naming the tensor") {
  auto build = [](const Model& model) {
    return BuildWeightImage(PlainPacker(), model.sources, "m").status();
  };
  SECTION("data too short") {
    Model model = SmallModel();
    model.sources[2].data = model.sources[2].data.memory().first(200);
    const absl::Status status = build(model);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains("blk.0.up"));
  }
  SECTION("columns that are not whole blocks") {
    Model model = SmallModel();
    model.sources[0].cols = 63;
    CHECK_THAT(std::string(build(model).message()),
               Catch::Contains("output") && Catch::Contains("multiple of 32"));
  }
  SECTION("shapes out of range") {
    for (int64_t rows : {int64_t{0}, int64_t{-1}, int64_t{1} << 62}) {
      Model model = SmallModel();
      model.sources[0].rows = rows;
      CHECK(build(model).code() == absl::StatusCode::kInvalidArgument);
    }
  }
  SECTION("a vector of two rows") {
    Model model = SmallModel();
    model.sources[2].role = TensorRole::kVector;
    CHECK_THAT(std::string(build(model).message()), Catch::Contains("blk.0.up"));
  }
  SECTION("twice the same name") {
    Model model = SmallModel();
    model.sources[1].name = "output";
    CHECK_THAT(std::string(build(model).message()), Catch::Contains("output") && Catch::Contains("twice"));
  }
  SECTION("what the packer refuses or fails at") {
    Model model = SmallModel();
    model.sources[0].name = "refused";
    CHECK(build(model).code() == absl::StatusCode::kInvalidArgument);
    model.sources[0].name = "breaks";
    CHECK(build(model).code() == absl::StatusCode::kInternal);
  }
}

TEST_CASE("a truncated image is refused at every length") {
  const Model model = SmallModel();
  const std::vector<std::byte> good =
      ImageBytes(BuildWeightImage(PlainPacker(), model.sources, "m").value().get());
  for (size_t length = 0; length < good.size(); length += length < 400 ? 1 : 37) {
    const UniqueFd fd = SealedCopy({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)});
    const auto image = WeightImage::Map(fd.get(), "plain-v1");
    REQUIRE(image.status().code() == absl::StatusCode::kDataLoss);
  }
}

// Reads every range that a mapped image hands out. A bad range ends the test under the address sanitizer, or
// when it lies past the mapping.
uint64_t Touch(const WeightImage& image) {
  uint64_t sum = 0;
  for (const char* name : {"output", "norm", "blk.0.up"}) {
    const PackedTensor* tensor = image.Find(name);
    if (tensor == nullptr) continue;
    for (std::byte b : tensor->data) sum += static_cast<uint64_t>(b);
    if (tensor->role == TensorRole::kVector) {
      REQUIRE(tensor->data.size() >= static_cast<size_t>(tensor->cols) * sizeof(float));
    }
    REQUIRE((tensor->rows >= 1 && tensor->cols >= 1));
  }
  return sum;
}

TEST_CASE("a hostile image is refused or harmless, whatever is changed in its header and table") {
  const Model model = SmallModel();
  const std::vector<std::byte> good =
      ImageBytes(BuildWeightImage(PlainPacker(), model.sources, "m").value().get());
  const size_t table_end = 80 + 64 * model.sources.size() + 32;
  const uint64_t hostile[] = {0,
                              1,
                              63,
                              64,
                              0x7fffffff,
                              0x80000000,
                              0xffffffff,
                              uint64_t{1} << 32,
                              uint64_t{1} << 63,
                              ~uint64_t{0},
                              ~uint64_t{0} - 63,
                              good.size(),
                              good.size() - 1,
                              good.size() + 64};
  int refused = 0, accepted = 0;
  auto attempt = [&](const std::vector<std::byte>& bytes) {
    const UniqueFd fd = SealedCopy(bytes);
    const auto image = WeightImage::Map(fd.get(), "plain-v1");
    if (image.ok()) {
      ++accepted;
      Touch(**image);
    } else {
      ++refused;
      REQUIRE(!image.status().message().empty());
    }
  };
  for (size_t offset = 0; offset + 8 <= table_end; offset += 4) {
    for (uint64_t value : hostile) {
      std::vector<std::byte> bytes = good;
      std::memcpy(bytes.data() + offset, &value, sizeof(value));
      attempt(bytes);
    }
  }
  std::mt19937 random(11);
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::byte> bytes = good;
    for (int changes = 1 + static_cast<int>(random() % 4); changes > 0; --changes) {
      bytes[random() % table_end] = static_cast<std::byte>(random());
    }
    attempt(bytes);
  }
  CHECK(refused > 1000);
  CHECK(accepted > 0);  // changes to bytes that have no meaning to the reader
}

}  // namespace
}  // namespace mnemo::devices
