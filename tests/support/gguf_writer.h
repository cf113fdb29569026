// Writes GGUF v3 files for tests: metadata and tensors in the order they were added.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/tensor_type.h"

namespace mnemo::testing {

class GgufWriter {
 public:
  void AddUint32(std::string_view key, uint32_t value);
  void AddFloat32(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, const std::vector<std::string>& values);
  void AddFloats(std::string_view key, std::span<const float> values);
  void AddInts(std::string_view key, std::span<const int32_t> values);
  // dims fastest first; data: blocks as stored.
  void AddTensor(std::string_view name, devices::TensorType type, std::vector<int64_t> dims,
                 std::vector<std::byte> data);

  std::vector<std::byte> Bytes() const;
  void WriteFile(const std::string& path) const;  // throws std::runtime_error

 private:
  std::vector<std::byte> metadata_;
  uint64_t metadata_count_ = 0;
  struct Tensor {
    std::string name;
    devices::TensorType type;
    std::vector<int64_t> dims;
    std::vector<std::byte> data;
  };
  std::vector<Tensor> tensors_;
};

}  // namespace mnemo::testing
