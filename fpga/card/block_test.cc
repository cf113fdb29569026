#include "fpga/card/block.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "proto/layout/quantise.h"
#include "proto/layout/record.h"

namespace mnemo::card {
namespace {

using layout::CardBlock;
using layout::CardBlockOf;
using layout::kCardBeatBytes;
using layout::kPageParts;
using layout::kPageTokens;

// A record whose codes and rows take every value; StoreCardBlock does not look at their meaning.
std::vector<uint8_t> RandomRecord(uint32_t format, uint32_t dim, std::mt19937& random) {
  std::vector<uint8_t> record(layout::RecordBytes(format, dim));
  for (uint8_t& byte : record) {
    byte = static_cast<uint8_t>(random());
  }
  return record;
}

// Stores into a block of other bytes, with guards behind it.
std::vector<uint8_t> Stored(std::span<const uint8_t> record, uint32_t format, uint32_t dim) {
  const size_t bytes = size_t{CardBlockOf(format, dim).beats} * kCardBeatBytes;
  std::vector<uint8_t> block(bytes + 8, uint8_t{0xA5});
  StoreCardBlock(record, format, dim, block);
  for (size_t n = bytes; n < block.size(); ++n) {
    CHECK(block[n] == 0xA5);
  }
  block.resize(bytes);
  return block;
}

// Counts the set bits outside of vectors' elements and sections; all of them must be zero.
uint32_t BitsBeside(std::span<const uint8_t> block, uint32_t format, uint32_t dim) {
  const CardBlock at = CardBlockOf(format, dim);
  std::vector<uint8_t> rest(block.begin(), block.end());
  const auto clear = [&](uint32_t bit) { rest[bit / 8] &= static_cast<uint8_t>(~(1U << (bit % 8))); };
  std::memset(rest.data(), 0, sizeof(layout::RecordHeader));
  if (layout::IsCodeFormat(format)) {
    std::memset(rest.data() + at.base * kCardBeatBytes, 0, dim);
    std::memset(rest.data() + at.scales * kCardBeatBytes, 0, kPageTokens);
  }
  const uint32_t halves = format == layout::kFormatBounds ? 2 : 1;
  for (uint32_t plane = 0; plane < at.planes; ++plane) {
    const uint32_t beat = plane == 0 ? at.first : at.further + (plane - 1) * at.plane_beats;
    const bool fifth = format == layout::kFormatMeans && at.page_row == at.beats;
    for (uint32_t vector = 0; vector < at.vectors + (fifth ? 1 : 0); ++vector) {
      for (uint32_t i = 0; i < halves * dim; ++i) {
        clear(beat * 512 + vector * at.vector_elements + i / dim * at.dim + i % dim);
      }
    }
    if (at.page_row != at.beats) {
      for (uint32_t i = 0; i < dim; ++i) {
        clear((at.page_row + plane) * 512 + i);
      }
    }
  }
  uint32_t count = 0;
  for (const uint8_t byte : rest) {
    count += static_cast<uint32_t>(__builtin_popcount(byte));
  }
  return count;
}

TEST_CASE("a block holds the record's codes, base and scales") {
  std::mt19937 random(1);
  for (const uint32_t format : {layout::kFormatCodes2, layout::kFormatCodes4, layout::kFormatCodes8}) {
    for (uint32_t dim = layout::kMinDim; dim <= layout::kCardMaxDim; dim *= 2) {
      INFO("format " << format << ", dim " << dim);
      const std::vector<uint8_t> record = RandomRecord(format, dim, random);
      const std::vector<uint8_t> block = Stored(record, format, dim);
      const CardBlock at = CardBlockOf(format, dim);
      const layout::RecordLayout from = layout::RecordSections(format, dim);
      CHECK(std::memcmp(block.data(), record.data(), sizeof(layout::RecordHeader)) == 0);
      CHECK(std::memcmp(block.data() + at.base * kCardBeatBytes, record.data() + from.base, dim) == 0);
      CHECK(std::memcmp(block.data() + at.scales * kCardBeatBytes, record.data() + from.scales, 64) == 0);
      uint32_t wrong = 0;
      for (uint32_t token = 0; token < kPageTokens; ++token) {
        for (uint32_t i = 0; i < dim; ++i) {
          wrong +=
              BlockElement(block, format, dim, token, i) != layout::CodeAt(record, format, dim, token, i);
        }
      }
      CHECK(wrong == 0);
      CHECK(BitsBeside(block, format, dim) == 0);
    }
  }
}

TEST_CASE("a block holds the record's rows") {
  std::mt19937 random(2);
  for (const uint32_t format : {layout::kFormatBounds, layout::kFormatMeans}) {
    for (uint32_t dim = layout::kMinDim; dim <= layout::kCardMaxDim; dim *= 2) {
      INFO("format " << format << ", dim " << dim);
      const std::vector<uint8_t> record = RandomRecord(format, dim, random);
      const std::vector<uint8_t> block = Stored(record, format, dim);
      const uint8_t* rows = record.data() + layout::RecordSections(format, dim).rows;
      const uint32_t padded = CardBlockOf(format, dim).dim;
      uint32_t wrong = 0;
      for (uint32_t row = 0; row < (format == layout::kFormatBounds ? 2 * kPageParts : kPageParts + 1);
           ++row) {
        for (uint32_t i = 0; i < dim; ++i) {
          const uint32_t vector = format == layout::kFormatBounds ? row / 2 : row;
          const uint32_t element = format == layout::kFormatBounds ? row % 2 * padded + i : i;
          wrong +=
              BlockElement(block, format, dim, vector, element) != static_cast<int8_t>(rows[row * dim + i]);
        }
      }
      CHECK(wrong == 0);
      CHECK(std::memcmp(block.data(), record.data(), sizeof(layout::RecordHeader)) == 0);
      CHECK(BitsBeside(block, format, dim) == 0);
    }
  }
}

}  // namespace
}  // namespace mnemo::card
