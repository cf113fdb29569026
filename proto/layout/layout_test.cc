#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>
#include <vector>

#include "proto/layout/layout_hash.h"
#include "proto/layout/quantise.h"
#include "proto/layout/reference.h"
#include "proto/layout/vectors.h"

namespace mnemo::layout {
namespace {

TEST_CASE("the stored vectors are reproduced") {
  std::ifstream file(MNEMO_LAYOUT_VECTORS, std::ios::binary);
  REQUIRE(file);
  std::stringstream stored;
  stored << file.rdbuf();
  std::istringstream made(MakeVectors(kVectorSeed));
  std::string made_line;
  std::string stored_line;
  int number = 0;
  while (std::getline(made, made_line)) {
    ++number;
    std::getline(stored, stored_line);
    if (made_line != stored_line) {
      FAIL("vectors.txt:"
           << number << " begins " << stored_line.substr(0, 60) << ", now " << made_line.substr(0, 60)
           << "; if that is meant, raise the quantiser and run write_layout_vectors > vectors.txt");
    }
  }
  CHECK(number > 200);
  CHECK_FALSE(std::getline(stored, stored_line));
}

TEST_CASE("top k by counting is a stable sort's beginning") {
  std::mt19937 random(5);
  for (int n = 0; n < 300; ++n) {
    std::vector<int32_t> ranks(random() % 3000);
    const int kind = n % 4;
    for (size_t j = 0; j < ranks.size(); ++j) {
      // Ascending, the worst order for a heap.
      ranks[j] = kind == 0   ? static_cast<int32_t>(random())
                 : kind == 1 ? -static_cast<int32_t>(random() % 4096)
                 : kind == 2 ? static_cast<int32_t>(random() % 3) * 5000 - 5000
                             : static_cast<int32_t>(j) * 7 - 4000;
    }
    const uint32_t k = random() % 3200;
    std::vector<uint32_t> order(ranks.size());
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return ranks[a] > ranks[b]; });
    order.resize(std::min<size_t>(k, order.size()));
    std::sort(order.begin(), order.end());
    INFO("case " << n << ", k " << k);
    REQUIRE(TopK(ranks, k) == order);
  }
  CHECK(TopK({}, 5).empty());
  CHECK(TopK(std::vector<int32_t>{1, 2}, 0).empty());
  CHECK(TopK(std::vector<int32_t>{INT32_MIN, INT32_MAX, INT32_MIN}, 2) == std::vector<uint32_t>{0, 1});
}

TEST_CASE("products of scores stay within 32 bits at the extremes") {
  for (const int32_t code_max : {1, 3, 7, 127}) {
    for (uint32_t dim = kMinDim; dim <= kMaxDim; dim *= 2) {
      const int64_t dot = int64_t{127} * code_max * dim;
      REQUIRE(dot * 235 < int64_t{1} << 31);
      const int64_t v = (-dot * 235) >> DotShift(code_max, dim);
      REQUIRE(v >= -32768);
      REQUIRE(v * 65535 >= INT32_MIN);
      // The undefined-behaviour sanitizer detects an overflow in the function itself.
      for (const int32_t sign : {-1, 1}) {
        for (const uint32_t scale : {0U, 7U, 128U, 255U}) {
          const int32_t y =
              ScoreTerm(static_cast<int32_t>(sign * dot), scale, 31, DotShift(code_max, dim), 65535, 0);
          REQUIRE((y >= -32768 && y <= 32767));
        }
      }
    }
  }
  // 64 queries at their best fit the i32 rank.
  CHECK(int64_t{kMaxGroup} * Exp2Term(5, 5) < int64_t{1} << 31);
  CHECK((int64_t{kMaxGroup} * ReluTerm(32767, -32768)) >> kReluRankShift > int64_t{INT32_MIN});
}

TEST_CASE("keys of every exponent make records without overflow") {
  std::mt19937 random(6);
  std::vector<uint32_t> keys(kPageTokens * kMaxDim);
  for (const uint32_t dim : {16U, 64U, 512U}) {
    for (int n = 0; n < 20; ++n) {
      for (uint32_t& bits : keys) {
        bits = n == 0   ? 0x7F7FFFFF
               : n == 1 ? 0x00000001
               : n == 2 ? random() % 2 * 0x80000000 | 0x7F800000
                        : random();
      }
      for (uint32_t format = kFormatCodes2; format <= kFormatMeans; ++format) {
        std::vector<uint8_t> record(RecordBytes(format, dim), 0xFF);
        MakeRecord({keys.data(), size_t{dim} * 4, kFormatF32}, dim, format, record);
        CHECK(record[3] == format);
        CHECK(record[15] == 0);
      }
    }
  }
}

TEST_CASE("an invalid head dim or format makes no record") {
  const std::vector<float> keys(64 * 48);
  std::vector<uint8_t> record(4096, 1);
  MakeRecord({keys.data(), 48 * 4, kFormatF32}, 48, kFormatCodes2, record);
  CHECK(std::count(record.begin(), record.end(), 0) == 4096);
  CHECK(IsIndexDim(64));
  CHECK_FALSE(IsIndexDim(96));
  CHECK_FALSE(IsIndexDim(8));
  CHECK_FALSE(IsIndexDim(1024));
}

TEST_CASE("rotation is its own inverse up to the factor dim") {
  std::vector<int32_t> x(128);
  std::iota(x.begin(), x.end(), -50);
  std::vector<int32_t> y = x;
  Hadamard(y);
  Hadamard(y);
  for (size_t i = 0; i < x.size(); ++i) {
    REQUIRE(y[i] == 128 * x[i]);
  }
}

TEST_CASE("the first stage of a cascade reads only bases and sign planes") {
  std::mt19937 random(7);
  std::vector<float> keys(kPageTokens * 64);
  std::generate(keys.begin(), keys.end(),
                [&] { return static_cast<float>(static_cast<int32_t>(random())) * 1e-9F; });
  const RecordLayout at = RecordSections(kFormatCodes2, 64);
  std::vector<uint8_t> record(at.bytes);
  MakeRecord({keys.data(), 256, kFormatF32}, 64, kFormatCodes2, record);
  std::vector<uint8_t> block(QueryBlockBytes(1, 64));
  MakeQueryBlock(std::span(keys).first(64), 1, 64, kFormatCodes2, 0.125F, {}, block);
  std::vector<uint32_t> tokens(kPageTokens);
  std::iota(tokens.begin(), tokens.end(), 0U);
  const auto scores = [&] {
    const uint8_t* pages[] = {record.data()};
    return Scores({kFormatCodes2, 64, pages}, kScoreDot, 0, Stage::kSign, 1, block.data(), tokens);
  };
  const auto before = scores();
  REQUIRE(*std::max_element(before.begin(), before.end()) != *std::min_element(before.begin(), before.end()));
  std::fill(record.begin() + at.magnitude, record.end(), uint8_t{0x5A});
  CHECK(scores() == before);
}

TEST_CASE("a difference between peers is reported with both values") {
  const AttachHello own = NewHello();
  CHECK(CompareHello(own, own).empty());
  AttachHello peer = own;
  peer.abi_minor = 9;
  CHECK(CompareHello(own, peer).empty());
  peer.abi_major = 99;
  CHECK(CompareHello(own, peer) == "abi_major: here " + std::to_string(kAbiMajor) + ", the peer has 99");
  peer = own;
  peer.quantiser_id ^= 1;
  CHECK(CompareHello(own, peer).find("quantiser_id: here 0x") == 0);
  peer = own;
  peer.layout_hash = 0;
  CHECK(CompareHello(own, peer).find("the peer has 0x0") != std::string::npos);
}

}  // namespace
}  // namespace mnemo::layout
