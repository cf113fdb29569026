#include "tests/support/gguf_writer.h"

#include <cstring>
#include <fstream>
#include <stdexcept>
#include <type_traits>

namespace mnemo::testing {
namespace {

constexpr size_t kAlignment = 32;  // a reader's default when general.alignment is absent

// Numbers of the value types in the file.
constexpr uint32_t kUint32 = 4;
constexpr uint32_t kInt32 = 5;
constexpr uint32_t kFloat32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;

void AppendBytes(std::vector<std::byte>& out, const void* data, size_t bytes) {
  if (bytes == 0) return;
  const size_t at = out.size();
  out.resize(at + bytes);
  std::memcpy(out.data() + at, data, bytes);
}

template <typename T>
void AppendNumber(std::vector<std::byte>& out, T value) {
  static_assert(std::is_arithmetic_v<T>);
  AppendBytes(out, &value, sizeof(value));
}

void AppendString(std::vector<std::byte>& out, std::string_view text) {
  AppendNumber<uint64_t>(out, text.size());
  AppendBytes(out, text.data(), text.size());
}

void AppendKey(std::vector<std::byte>& out, std::string_view key, uint32_t type) {
  AppendString(out, key);
  AppendNumber(out, type);
}

void AppendArrayKey(std::vector<std::byte>& out, std::string_view key, uint32_t element_type,
                    uint64_t count) {
  AppendKey(out, key, kArray);
  AppendNumber(out, element_type);
  AppendNumber(out, count);
}

void Pad(std::vector<std::byte>& out) { out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment); }

}  // namespace

void GgufWriter::AddUint32(std::string_view key, uint32_t value) {
  AppendKey(metadata_, key, kUint32);
  AppendNumber(metadata_, value);
  ++metadata_count_;
}

void GgufWriter::AddFloat32(std::string_view key, float value) {
  AppendKey(metadata_, key, kFloat32);
  AppendNumber(metadata_, value);
  ++metadata_count_;
}

void GgufWriter::AddBool(std::string_view key, bool value) {
  AppendKey(metadata_, key, kBool);
  AppendNumber<uint8_t>(metadata_, value ? 1 : 0);
  ++metadata_count_;
}

void GgufWriter::AddString(std::string_view key, std::string_view value) {
  AppendKey(metadata_, key, kString);
  AppendString(metadata_, value);
  ++metadata_count_;
}

void GgufWriter::AddStrings(std::string_view key, const std::vector<std::string>& values) {
  AppendArrayKey(metadata_, key, kString, values.size());
  for (const std::string& value : values) AppendString(metadata_, value);
  ++metadata_count_;
}

void GgufWriter::AddFloats(std::string_view key, std::span<const float> values) {
  AppendArrayKey(metadata_, key, kFloat32, values.size());
  AppendBytes(metadata_, values.data(), values.size_bytes());
  ++metadata_count_;
}

void GgufWriter::AddInts(std::string_view key, std::span<const int32_t> values) {
  AppendArrayKey(metadata_, key, kInt32, values.size());
  AppendBytes(metadata_, values.data(), values.size_bytes());
  ++metadata_count_;
}

void GgufWriter::AddTensor(std::string_view name, devices::TensorType type, std::vector<int64_t> dims,
                           std::vector<std::byte> data) {
  tensors_.push_back({std::string(name), type, std::move(dims), std::move(data)});
}

std::vector<std::byte> GgufWriter::Bytes() const {
  std::vector<std::byte> out;
  AppendBytes(out, "GGUF", 4);
  AppendNumber<uint32_t>(out, 3);
  AppendNumber<uint64_t>(out, tensors_.size());
  AppendNumber<uint64_t>(out, metadata_count_);
  AppendBytes(out, metadata_.data(), metadata_.size());
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    AppendString(out, tensor.name);
    AppendNumber<uint32_t>(out, static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) AppendNumber<uint64_t>(out, static_cast<uint64_t>(dim));
    AppendNumber<uint32_t>(out, static_cast<uint32_t>(tensor.type));
    AppendNumber<uint64_t>(out, offset);
    offset += (tensor.data.size() + kAlignment - 1) / kAlignment * kAlignment;
  }
  for (const Tensor& tensor : tensors_) {
    Pad(out);
    AppendBytes(out, tensor.data.data(), tensor.data.size());
  }
  Pad(out);
  return out;
}

void GgufWriter::WriteFile(const std::string& path) const {
  const std::vector<std::byte> bytes = Bytes();
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.flush();
  if (!file) throw std::runtime_error("cannot write " + path);
}

}  // namespace mnemo::testing
