#include "devices/memory/codes.h"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "devices/cpu/index_kernels.h"
#include "proto/layout/record.h"

namespace mnemo::memory_device {
namespace {

using devices::cpu::IndexKernels;

std::vector<const IndexKernels*> AllKernels() {
  const IndexKernels* kernels[8];
  const int count = devices::cpu::AvailableIndexKernels(kernels, 8);
  return {kernels, kernels + count};
}

// Bits of a value type: ordinary numbers, all bit patterns (with NaN, infinities and subnormals), tiny ones,
// large ones, few different ones.
std::vector<uint8_t> Values(std::mt19937& random, size_t count, uint32_t value_type, int kind) {
  std::vector<uint8_t> bytes(count * layout::ValueBytes(value_type));
  std::normal_distribution<float> bell;
  const float size = std::exp2(static_cast<float>(static_cast<int>(random() % 60) - 30));
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = std::bit_cast<uint32_t>(bell(random) * size);
    if (kind == 1) bits = static_cast<uint32_t>(random());
    if (kind == 2) bits = static_cast<uint32_t>(random()) & 0x807FFFFF;
    if (kind == 3) bits = (static_cast<uint32_t>(random()) & 0x80000000) | 0x7F7FFFFF;
    if (kind == 4) bits = random() % 2 != 0 ? 0x3F800000 : 0xBF800000;
    if (kind == 5 && random() % 50 != 0) bits = 0;
    if (kind == 6) bits = std::bit_cast<uint32_t>(static_cast<float>(random() % 5) - 2.0F);
    if (value_type == layout::kFormatF32) {
      std::memcpy(bytes.data() + i * 4, &bits, 4);
    } else {
      uint16_t half = static_cast<uint16_t>(bits >> 16);
      if (value_type == layout::kFormatF16 && kind != 1) {
        const uint32_t exponent = bits >> 23 & 255;
        half = static_cast<uint16_t>((bits >> 16 & 0x8000) |
                                     (exponent < 113   ? random() & 0x3FF
                                      : exponent > 142 ? 0x7C00
                                                       : (exponent - 112) << 10 | (bits >> 13 & 0x3FF)));
      }
      std::memcpy(bytes.data() + i * 2, &half, 2);
    }
  }
  return bytes;
}

TEST_CASE("records are those of the layout's own function, on every instruction set") {
  std::mt19937 random(11);
  for (int n = 0; n < 400 / MNEMO_TEST_REDUCTION; ++n) {
    const uint32_t dim = 16U << random() % 6;
    const uint32_t value_type = layout::kFormatF16 + random() % 3;
    const int kind = n % 8;
    const auto values = Values(random, size_t{layout::kPageTokens} * dim, value_type, kind);
    const layout::PageKeys keys{values.data(), size_t{dim} * layout::ValueBytes(value_type), value_type};
    for (uint32_t format = layout::kFormatCodes2; format <= layout::kFormatMeans; ++format) {
      std::vector<uint8_t> expected(layout::RecordBytes(format, dim));
      layout::MakeRecord(keys, dim, format, expected);
      for (const IndexKernels* kernels : AllKernels()) {
        std::vector<uint8_t> record(expected.size(), 0xEE);
        kernels->make_record(keys.data, keys.row_stride_bytes, value_type, dim, format, record.data(),
                             record.size());
        INFO(kernels->isa << ", dim " << dim << ", format " << format << ", type " << value_type << ", case "
                          << n);
        REQUIRE(record == expected);
      }
    }
  }
}

TEST_CASE("query codes are those of the layout's own function, on every instruction set") {
  std::mt19937 random(12);
  for (int n = 0; n < 3000; ++n) {
    const uint32_t dim = 16U << random() % 6;
    const auto values = Values(random, dim, layout::kFormatF32, n % 8);
    std::vector<float> query(dim);
    std::memcpy(query.data(), values.data(), values.size());
    const float scale = n % 11 == 0   ? 0.0F
                        : n % 13 == 0 ? 1e-30F
                        : n % 17 == 0 ? -1.0F
                                      : 1 / std::sqrt(static_cast<float>(dim));
    for (const uint32_t format : {uint32_t{layout::kFormatCodes2}, uint32_t{layout::kFormatBounds}}) {
      std::vector<int8_t> expected(dim);
      layout::QueryParam expected_param;
      layout::MakeQuery(query, format, scale, 77, expected, expected_param);
      for (const IndexKernels* kernels : AllKernels()) {
        std::vector<int8_t> codes(dim, 99);
        layout::QueryParam param;
        kernels->make_query(query.data(), dim, layout::IsRotated(format), scale, 77, codes.data(), &param);
        INFO(kernels->isa << ", dim " << dim << ", format " << format << ", case " << n);
        REQUIRE(codes == expected);
        REQUIRE(std::memcmp(&param, &expected_param, sizeof(param)) == 0);
      }
    }
  }
}

TEST_CASE("a query block is the layout's") {
  std::mt19937 random(13);
  std::normal_distribution<float> bell;
  for (const uint32_t dim : {16U, 64U, 128U}) {
    for (uint32_t group = 1; group <= 9; ++group) {
      std::vector<float> queries(size_t{group} * dim);
      for (float& value : queries) value = bell(random);
      std::vector<int16_t> weights(group, 5);
      std::vector<uint8_t> expected(layout::QueryBlockBytes(group, dim));
      std::vector<uint8_t> block(expected.size(), 0xEE);
      layout::MakeQueryBlock(queries, group, dim, layout::kFormatCodes4, 0.125F, weights, expected);
      MakeQueryBlockFast(queries, group, dim, layout::kFormatCodes4, 0.125F, weights, block);
      REQUIRE(block == expected);
    }
  }
}

TEST_CASE("what is not a head dim makes no record") {
  const std::vector<float> keys(64 * 48);
  std::vector<uint8_t> record(4096, 1);
  MakeRecordFast({keys.data(), 48 * 4, layout::kFormatF32}, 48, layout::kFormatCodes2, record);
  CHECK(std::count(record.begin(), record.end(), 0) == 4096);
}

}  // namespace
}  // namespace mnemo::memory_device
