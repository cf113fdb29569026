#include "devices/tensor_type.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string_view>
#include <vector>

namespace mnemo::devices {
namespace {

struct Vector {
  TensorType type;
  std::string_view stored;
  std::string_view values;
};

const Vector kVectors[] = {
#include "devices/testdata/dequantize_vectors.inc"
};

std::vector<std::byte> FromHex(std::string_view hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

TEST_CASE("Dequantize equals the gguf package bit by bit") {
  REQUIRE(std::size(kVectors) == 11);
  for (const Vector& vector : kVectors) {
    const std::vector<std::byte> stored = FromHex(vector.stored);
    const std::vector<std::byte> wanted = FromHex(vector.values);
    std::vector<float> got(wanted.size() / sizeof(float));
    const TensorTypeTraits& traits = Traits(vector.type);
    INFO(traits.name);
    REQUIRE(stored.size() == got.size() / static_cast<size_t>(traits.block_elements) *
                                 static_cast<size_t>(traits.block_bytes));
    Dequantize(vector.type, stored, got);
    size_t different = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      different += std::memcmp(&got[i], &wanted[i * sizeof(float)], sizeof(float)) != 0 ? 1 : 0;
    }
    CHECK(different == 0);
  }
}

TEST_CASE("types are found by their number in the file") {
  CHECK(FindTensorType(12)->name == "Q4_K");
  CHECK(FindTensorType(30)->type == TensorType::kBF16);
  CHECK(FindTensorType(4) == nullptr);   // Q4_2, removed from the format
  CHECK(FindTensorType(16) == nullptr);  // IQ2_XXS
  CHECK(FindTensorType(0xffffffff) == nullptr);
}

// Searches all finite values of the format for the nearest; ties go to an even fraction.
uint16_t NearestHalf(float value) {
  if (std::isnan(value)) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude >= 65520.0) return sign | 0x7c00;
  // The largest half not above the magnitude.
  uint16_t low = 0, high = 0x7bff;
  while (low < high) {
    const auto middle = static_cast<uint16_t>((low + high + 1) / 2);
    if (static_cast<double>(HalfToFloat(middle)) <= magnitude) {
      low = middle;
    } else {
      high = static_cast<uint16_t>(middle - 1);
    }
  }
  const double below = magnitude - static_cast<double>(HalfToFloat(low));
  const double next =
      low == 0x7bff ? 65536.0 : static_cast<double>(HalfToFloat(static_cast<uint16_t>(low + 1)));
  const double above = next - magnitude;
  const bool up = above < below || (above == below && (low & 1) != 0);
  return static_cast<uint16_t>(sign | (low + (up ? 1 : 0)));
}

TEST_CASE("every half survives a round trip") {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      REQUIRE((half & 0x7c00) == 0x7c00);
      REQUIRE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      REQUIRE(FloatToHalf(value) == half);
    }
  }
  CHECK(HalfToFloat(0x3c00) == 1.0f);
  CHECK(HalfToFloat(0xc000) == -2.0f);
  CHECK(HalfToFloat(0x7bff) == 65504.0f);
  CHECK(HalfToFloat(0x0001) == 0x1p-24f);
  CHECK(HalfToFloat(0x0400) == 0x1p-14f);
  CHECK(std::isinf(HalfToFloat(0xfc00)));
}

TEST_CASE("float to half rounds to nearest even") {
  std::mt19937 random(1);
  std::vector<float> values = {0.0f,
                               -0.0f,
                               65504.0f,
                               65519.99f,
                               65520.0f,
                               1e30f,
                               0x1p-24f,
                               0x1p-25f,
                               0x1.8p-25f,
                               0x1.000002p-25f,
                               0x1p-26f,
                               0x1.ffcp-15f,
                               0x1.ffep-15f,
                               1e-40f,
                               std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::max()};
  for (int i = 0; i < 20000; ++i) {
    values.push_back(
        std::ldexp(static_cast<float>(random()) * 0x1p-32f, static_cast<int>(random() % 46) - 28));
    // A value, and the midpoint between neighbouring halves, where ties occur.
    const float half = HalfToFloat(static_cast<uint16_t>(random() % 0x7bff));
    values.push_back((half + HalfToFloat(FloatToHalf(std::nextafter(half, 1e9f)) + 1)) / 2);
  }
  for (float value : values) {
    REQUIRE(FloatToHalf(value) == NearestHalf(value));
    REQUIRE(FloatToHalf(-value) == NearestHalf(-value));
  }
  CHECK(std::isnan(HalfToFloat(FloatToHalf(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("bfloat16 rounds to nearest even") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = Bfloat16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      REQUIRE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(value))));
    } else {
      REQUIRE(FloatToBfloat16(value) == bits);
    }
  }
  CHECK(FloatToBfloat16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // tie, even below
  CHECK(FloatToBfloat16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);  // tie, even above
  CHECK(FloatToBfloat16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(FloatToBfloat16(std::bit_cast<float>(0x3f807fffu)) == 0x3f80);
  CHECK(FloatToBfloat16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(FloatToBfloat16(std::bit_cast<float>(0x00018000u)) == 0x0002);  // subnormal
  CHECK(std::isnan(Bfloat16ToFloat(FloatToBfloat16(std::bit_cast<float>(0x7fffffffu)))));
}

}  // namespace
}  // namespace mnemo::devices
