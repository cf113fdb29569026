#include "devices/cpu/packed_weights.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>

namespace mnemo::devices::cpu {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ4_0,
                                 TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};

bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

TEST_CASE(
    "a packed matrix unpacks to the values of its source, bit for bit, in every type and from any bits") {
  std::mt19937 random(3);
  for (TensorType type : kTypes) {
    INFO(Traits(type).name);
    const int64_t cols = 512;
    for (int64_t rows : {1, 16, 37}) {
      const int64_t row_bytes = cols / Traits(type).block_elements * Traits(type).block_bytes;
      std::vector<std::byte> data(static_cast<size_t>(rows * row_bytes));
      for (std::byte& b : data) b = static_cast<std::byte>(random());
      const TensorSource source{"w", TensorRole::kMatrix, type, rows, cols, data};
      const CpuWeightPacker packer;
      PackedTensor packed{"w", TensorRole::kMatrix, type, 0, rows, cols, {}};
      const auto bytes = packer.PackedBytes(source, &packed.format);
      REQUIRE(bytes.ok());
      std::vector<std::byte> image(*bytes, std::byte{0xee});
      // The pieces do not align with tiles.
      for (int64_t row = 0; row < rows; row += 7) {
        const auto piece =
            std::span(data).subspan(static_cast<size_t>(row * row_bytes),
                                    static_cast<size_t>(std::min<int64_t>(7, rows - row) * row_bytes));
        REQUIRE(packer.Pack(source, row, piece, image).ok());
      }
      packed.data = image;
      std::vector<float> wanted(static_cast<size_t>(cols)), got(wanted.size());
      for (int64_t r = 0; r < rows; ++r) {
        Dequantize(
            type, std::span(data).subspan(static_cast<size_t>(r * row_bytes), static_cast<size_t>(row_bytes)),
            wanted);
        UnpackRow(packed, r, got.data());
        for (size_t c = 0; c < got.size(); ++c) {
          const bool both_nan = std::isnan(wanted[c]) && std::isnan(got[c]);
          if (!both_nan && !SameBits(wanted[c], got[c])) {
            INFO("row " << r << " column " << c << ": " << got[c] << " for " << wanted[c]);
            REQUIRE(SameBits(wanted[c], got[c]));
          }
        }
      }
    }
  }
}

TEST_CASE("a vector is packed as float32 with whole vectors behind it") {
  const std::vector<float> values = {1.5f, -2.0f, 3.25f};
  const TensorSource source{
      "v", TensorRole::kVector, TensorType::kF32, 1, 3, std::as_bytes(std::span(values))};
  const CpuWeightPacker packer;
  uint32_t format = 0;
  const auto bytes = packer.PackedBytes(source, &format);
  REQUIRE(bytes.ok());
  REQUIRE(*bytes == 64);
  std::vector<std::byte> image(*bytes, std::byte{0xee});
  REQUIRE(packer.Pack(source, 0, source.data.memory(), image).ok());
  float got[16];
  std::memcpy(got, image.data(), sizeof got);
  for (size_t i = 0; i < 16; ++i) CHECK(got[i] == (i < 3 ? values[i] : 0.0f));
}

TEST_CASE("tensors that cannot be packed are named") {
  const CpuWeightPacker packer;
  uint32_t format = 0;
  const std::vector<std::byte> data(4096);
  auto message = [&](const TensorSource& source) {
    const auto bytes = packer.PackedBytes(source, &format);
    REQUIRE(bytes.status().code() == absl::StatusCode::kInvalidArgument);
    return std::string(bytes.status().message());
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(message({"blk.0.x", TensorRole::kMatrix, TensorType::kQ4_0, 2, 40, data}),
             Contains("blk.0.x") && Contains("40 columns") && Contains("multiple of 32"));
  CHECK_THAT(message({"x", TensorRole::kMatrix, TensorType::kQ4_0, 0, 32, data}), Contains("[0, 32]"));
  CHECK_THAT(message({"x", TensorRole::kMatrix, TensorType::kQ4_0, int64_t{1} << 40, 64, data}),
             Contains("at most"));
  CHECK_THAT(message({"x", TensorRole::kMatrix, TensorType::kQ4_0, 2, 32, data}),
             Contains("4096 bytes") && Contains("needs 36"));
  CHECK_THAT(message({"x", TensorRole::kVector, TensorType::kF32, 2, 512, data}), Contains("2 rows"));
}

}  // namespace
}  // namespace mnemo::devices::cpu
