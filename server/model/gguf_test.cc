#include "server/model/gguf.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <limits>

#include "tests/support/gguf_writer.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_model.h"

namespace mnemo::model {
namespace {

using Catch::Matchers::Contains;
using testing::GgufWriter;

using Bytes = std::vector<std::byte>;

template <typename T>
void Put(Bytes& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

void PutString(Bytes& bytes, std::string_view text) {
  Put<uint64_t>(bytes, text.size());
  for (const char c : text) Put(bytes, c);
}

// The fixed part of a file: magic, version, counts.
Bytes Header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  Bytes bytes;
  Put<uint32_t>(bytes, 0x46554747);
  Put(bytes, version);
  Put(bytes, tensors);
  Put(bytes, keys);
  return bytes;
}

// A file with one key; the caller writes its value.
Bytes OneKey(std::string_view key, uint32_t type) {
  Bytes bytes = Header(0, 1);
  PutString(bytes, key);
  Put(bytes, type);
  return bytes;
}

// A file with one tensor entry and `data_bytes` of data.
Bytes OneTensor(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset, size_t data_bytes) {
  Bytes bytes = Header(1, 0);
  PutString(bytes, "w");
  Put<uint32_t>(bytes, static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) Put(bytes, dim);
  Put(bytes, type);
  Put(bytes, offset);
  bytes.resize((bytes.size() + 31) / 32 * 32 + data_bytes);
  return bytes;
}

absl::StatusOr<std::unique_ptr<GgufFile>> Parse(const Bytes& bytes, bool metadata_only = false) {
  return GgufFile::Parse(bytes, "test.gguf", {.metadata_only = metadata_only});
}

void CheckRefused(const Bytes& bytes, absl::StatusCode code, const std::string& message) {
  const auto file = Parse(bytes);
  REQUIRE_FALSE(file.ok());
  CHECK(file.status().code() == code);
  CHECK_THAT(std::string(file.status().message()), Contains("test.gguf: ") && Contains(message));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

}  // namespace

TEST_CASE("A written file is read back") {
  GgufWriter writer;
  writer.AddUint32("count", 7);
  writer.AddFloat32("ratio", 0.5f);
  writer.AddBool("flag", true);
  writer.AddString("text", "caf\xc3\xa9");
  writer.AddStrings("words", {"a", "", "ccc"});
  writer.AddFloats("floats", std::vector<float>{1.5f, -2.0f});
  writer.AddInts("ints", std::vector<int32_t>{-1, 2});
  const Bytes first(12, std::byte{1});
  const Bytes second(18 * 2, std::byte{2});
  writer.AddTensor("first", devices::TensorType::kF32, {3}, first);
  writer.AddTensor("second", devices::TensorType::kQ4_0, {32, 2}, second);
  const Bytes bytes = writer.Bytes();
  const auto parsed = Parse(bytes);
  REQUIRE(parsed.ok());
  const GgufFile& file = **parsed;

  CHECK(*file.GetInt("count") == 7);
  CHECK(*file.GetFloat("count") == 7.0);
  CHECK(*file.GetFloat("ratio") == 0.5);
  CHECK(*file.GetBool("flag"));
  CHECK(*file.GetString("text") == "caf\xc3\xa9");
  CHECK(*file.GetStrings("words") == std::vector<std::string_view>{"a", "", "ccc"});
  CHECK(*file.GetFloats("floats") == std::vector<double>{1.5, -2.0});
  CHECK(*file.GetInts("ints") == std::vector<int64_t>{-1, 2});
  CHECK(*file.GetFloats("ints") == std::vector<double>{-1, 2});

  REQUIRE(file.tensors().size() == 2);
  CHECK(file.tensors()[0].name == "first");
  const GgufTensor* tensor = file.FindTensor("second");
  REQUIRE(tensor != nullptr);
  CHECK(tensor->type == devices::TensorType::kQ4_0);
  CHECK(tensor->dims == std::vector<int64_t>{32, 2});
  CHECK(std::ranges::equal(tensor->data.memory(), second));
  CHECK(file.FindTensor("third") == nullptr);
}

TEST_CASE("Getters name the key and the error") {
  GgufWriter writer;
  writer.AddString("text", "x");
  writer.AddFloat32("ratio", 0.5f);
  const Bytes bytes = writer.Bytes();
  const auto file = Parse(bytes);
  REQUIRE(file.ok());
  CHECK((*file)->GetInt("none").status().code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string((*file)->GetInt("none").status().message()), Contains("'none' is missing"));
  CHECK((*file)->GetInt("text").status().code() == kInvalid);
  CHECK_THAT(std::string((*file)->GetInt("text").status().message()),
             Contains("'text' is a string; an integer is wanted"));
  CHECK((*file)->GetInt("ratio").status().code() == kInvalid);
  CHECK((*file)->GetFloat("text").status().code() == kInvalid);
  CHECK((*file)->GetBool("text").status().code() == kInvalid);
  CHECK((*file)->GetString("ratio").status().code() == kInvalid);
  CHECK((*file)->GetStrings("text").status().code() == kInvalid);
  CHECK((*file)->GetInts("text").status().code() == kInvalid);
  CHECK((*file)->GetFloats("text").status().code() == kInvalid);
}

TEST_CASE("An unsigned number beyond int64 is refused by GetInt") {
  Bytes bytes = OneKey("big", 10);
  Put<uint64_t>(bytes, std::numeric_limits<uint64_t>::max());
  const auto file = Parse(bytes);
  REQUIRE(file.ok());
  CHECK((*file)->GetInt("big").status().code() == kInvalid);
}

TEST_CASE("A file cut anywhere is refused, and never read past its end") {
  testing::TinyModelOptions options;
  options.layers = 1;
  const Bytes whole = testing::TinyModel(options);
  REQUIRE(Parse(whole).ok());
  for (size_t length = 0; length < whole.size(); length += length < 200 ? 1 : 97) {
    // A buffer of exactly that length: the address sanitizer detects a read past it.
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const auto file = Parse(cut);
    // The padding after the last tensor's data may be missing.
    if (whole.size() - length < 32) continue;
    REQUIRE_FALSE(file.ok());
    CHECK(file.status().code() == kDataLoss);
    CHECK_THAT(std::string(file.status().message()), Contains("test.gguf: at byte "));
  }
}

TEST_CASE("Headers of other formats") {
  CheckRefused({}, kDataLoss, "at byte 0: the file ends within the magic number");
  Bytes bytes = Header(0, 0);
  bytes[0] = std::byte{'g'};
  CheckRefused(bytes, kInvalid, "at byte 0: not a GGUF file");
  CheckRefused(Header(0, 0, 2), kInvalid, "at byte 4: GGUF version 2");
  CheckRefused(Header(0, 0, 0x03000000), kInvalid, "a big-endian file");
  CheckRefused(Header(uint64_t{1} << 60, 0), kInvalid,
               "at byte 8: 1152921504606846976 tensors; at most 65536");
  CheckRefused(Header(0, uint64_t{1} << 60), kInvalid, "at byte 16: 1152921504606846976 metadata keys");
}

TEST_CASE("Hostile counts and types in metadata") {
  Bytes bytes = Header(0, 1);
  Put<uint64_t>(bytes, uint64_t{1} << 63);
  CheckRefused(bytes, kInvalid, "the length of a metadata key is 9223372036854775808 bytes");

  bytes = OneKey("k", 8);
  Put<uint64_t>(bytes, std::numeric_limits<uint64_t>::max());
  CheckRefused(bytes, kInvalid, "the length of the value of key 'k'");

  for (const uint32_t element : {0u, 4u, 7u, 8u, 12u}) {
    bytes = OneKey("k", 9);
    Put(bytes, element);
    Put<uint64_t>(bytes, std::numeric_limits<uint64_t>::max() / 2);
    CheckRefused(bytes, kDataLoss,
                 "at byte 37: the value of key 'k' is an array of 9223372036854775807 elements");
  }
  bytes = OneKey("k", 9);
  Put<uint32_t>(bytes, 9);
  Put<uint64_t>(bytes, 1);
  CheckRefused(bytes, kInvalid, "an array of arrays");

  bytes = OneKey("k", 13);
  CheckRefused(bytes, kInvalid, "at byte 33: the value of key 'k' has type 13");
  bytes = OneKey("k", 7);
  Put<uint8_t>(bytes, 2);
  CheckRefused(bytes, kInvalid, "which is no bool");

  bytes = OneKey(std::string_view("\xff\n", 2), 13);
  CheckRefused(bytes, kInvalid, "key '\\xff\\n' has type 13");

  GgufWriter writer;
  writer.AddUint32("same", 1);
  writer.AddString("same", "x");
  CheckRefused(writer.Bytes(), kInvalid, "key 'same' is there twice");
}

TEST_CASE("The arrays of a file are bounded together") {
  Bytes bytes = OneKey("k", 9);
  Put<uint32_t>(bytes, 0);
  const uint64_t count = (uint64_t{1} << 24) + 1;
  Put(bytes, count);
  bytes.resize(bytes.size() + count);
  CheckRefused(bytes, kInvalid, "may have 16777216 together");
}

TEST_CASE("Hostile tensor entries") {
  CHECK(Parse(OneTensor({4, 2}, 0, 0, 32)).ok());
  CheckRefused(OneTensor({}, 0, 0, 32), kInvalid, "tensor 'w' has 0 dimensions");
  CheckRefused(OneTensor({1, 1, 1, 1, 1}, 0, 0, 32), kInvalid, "tensor 'w' has 5 dimensions");
  CheckRefused(OneTensor({0}, 0, 0, 32), kInvalid, "dimension 0 of tensor 'w' is 0");
  CheckRefused(OneTensor({uint64_t{1} << 32, uint64_t{1} << 31}, 0, 0, 32), kInvalid,
               "dimension 1 of tensor 'w'");
  CheckRefused(OneTensor({uint64_t{1} << 62}, 0, 0, 32), kInvalid, "the size of tensor 'w' overflows");
  CheckRefused(OneTensor({33}, 2, 0, 64), kInvalid, "not a multiple of 32, the block of type Q4_0");
  CheckRefused(OneTensor({4}, 0, 8, 64), kInvalid, "not a multiple of the alignment 32");
  CheckRefused(OneTensor({4}, 0, uint64_t{1} << 63, 64), kDataLoss, "tensor 'w' takes 16 bytes from");
  CheckRefused(OneTensor({16}, 0, 32, 64), kDataLoss, "the file is truncated or the entry is wrong");
  CheckRefused(OneTensor({4}, 4, 0, 64), absl::StatusCode::kUnimplemented,
               "has type 4, which is not supported");

  GgufWriter twice;
  twice.AddTensor("w", devices::TensorType::kF32, {1}, Bytes(4));
  twice.AddTensor("w", devices::TensorType::kF32, {1}, Bytes(4));
  CheckRefused(twice.Bytes(), kInvalid, "tensor 'w' is there twice");

  GgufWriter overlapping;
  overlapping.AddTensor("a", devices::TensorType::kF32, {1}, Bytes(4));
  overlapping.AddTensor("b", devices::TensorType::kF32, {9}, Bytes(4));
  overlapping.AddTensor("c", devices::TensorType::kF32, {1}, Bytes(4));
  CheckRefused(overlapping.Bytes(), kInvalid, "tensor 'c' overlaps tensor 'b'");

  for (const uint32_t alignment : {0u, 4u, 24u, 1u << 21}) {
    GgufWriter writer;
    writer.AddUint32("general.alignment", alignment);
    writer.AddTensor("w", devices::TensorType::kF32, {1}, Bytes(4));
    CheckRefused(writer.Bytes(), kInvalid, "'general.alignment'");
  }
}

TEST_CASE("A reader of text ignores tensors, including missing ones") {
  const Bytes no_data = OneTensor({uint64_t{1} << 40}, 99, 7, 0);
  CHECK_FALSE(Parse(no_data).ok());
  const auto file = Parse(no_data, true);
  REQUIRE(file.ok());
  CHECK((*file)->tensors().empty());

  const Bytes announced = Header(5, 0);  // a vocabulary-only file whose header still counts tensors
  CHECK(Parse(announced, true).ok());
}

TEST_CASE("Opening files") {
  CHECK(GgufFile::Open("/nonexistent/x.gguf").status().code() == absl::StatusCode::kNotFound);
  const testing::TempFolder folder;
  const std::string path = testing::WriteTinyModel({}, folder.path());
  const auto file = GgufFile::Open(path);
  REQUIRE(file.ok());
  CHECK((*file)->path() == path);
  CHECK(*(*file)->GetString("general.architecture") == "llama");
  CHECK((*file)->GetStrings("tokenizer.ggml.tokens")->size() == testing::kTinyVocabulary);
  CHECK((*file)->FindTensor("blk.1.ffn_down.weight")->dims == std::vector<int64_t>{128, 64});
}

}  // namespace mnemo::model
