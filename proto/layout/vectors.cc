#include "proto/layout/vectors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "proto/layout/layout_hash.h"
#include "proto/layout/quantise.h"
#include "proto/layout/reference.h"

namespace mnemo::layout {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): integers only, so that the numbers are the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(Next() % bound); }
  // Bell-shaped around 0, standard deviation about 1, a multiple of 2^-12: exact in float32.
  float Bell() {
    int32_t sum = -4 * 4096;
    for (int i = 0; i < 8; ++i) {
      sum += static_cast<int32_t>(Below(4096 + 1));
    }
    return static_cast<float>(sum) * (1.25F / 4096);
  }

 private:
  uint64_t state_;
};

std::string Hex(std::span<const uint8_t> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

template <typename T>
std::span<const uint8_t> Bytes(const T& object) {
  return {reinterpret_cast<const uint8_t*>(&object), sizeof(T)};
}

template <typename T>
std::span<const uint8_t> BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

std::string Number(uint64_t value) { return std::to_string(value); }

constexpr const char* kFormatNames[] = {"", "codes2", "codes4", "codes8", "bounds", "means"};

// Truncates to the value type; the vectors need fixed bytes, not correct rounding.
void Store(float value, uint32_t value_type, std::vector<uint8_t>& to) {
  const auto bits = std::bit_cast<uint32_t>(value);
  uint32_t stored = bits;
  if (value_type == kFormatBf16) {
    stored = bits >> 16;
  } else if (value_type == kFormatF16) {
    const uint32_t exponent = bits >> 23 & 255;
    stored = (bits >> 16 & 0x8000) | (exponent < 113 ? 0 : (exponent - 112) << 10 | (bits >> 13 & 0x3FF));
  }
  for (uint32_t i = 0; i < ValueBytes(value_type); ++i) {
    to.push_back(static_cast<uint8_t>(stored >> (8 * i)));
  }
}

// Keys with a mean per dimension, one dimension ten times larger, and pages of zeros, of equal keys, and of
// one spike.
std::vector<uint8_t> MakeKeys(Random& random, uint32_t pages, uint32_t dim, uint32_t value_type) {
  std::vector<float> mean(dim);
  for (float& value : mean) {
    value = random.Bell();
  }
  std::vector<uint8_t> keys;
  std::vector<float> first(dim);
  for (uint32_t t = 0; t < pages * kPageTokens; ++t) {
    const uint32_t page = t / kPageTokens;
    for (uint32_t i = 0; i < dim; ++i) {
      float value = mean[i] + random.Bell();
      value *= i == dim / 3 ? 10.0F : 1.0F;
      if (t % kPageTokens == 0) {
        first[i] = value;
      }
      if (page == 1) {
        value = first[i];
      } else if (page == 2) {
        value = t % kPageTokens == 7 && i == 1 ? 1000.0F : value * 0.0009765625F;
      } else if (page == 3) {
        value = 0;
      }
      Store(value, value_type, keys);
    }
  }
  return keys;
}

class Writer {
 public:
  explicit Writer(uint64_t seed) : random_(seed) {}

  std::string Run() {
    text_ = "# Test vectors of the wire layout; README.md tells the grammar. Made by write_layout_vectors.\n";
    text_ += "layout_hash " + Number(kLayoutHash) + "\nquantiser_id " + Number(kQuantiserId) + "\n";
    struct Set {
      uint32_t dim;
      uint32_t value_type;
      uint32_t pages;
    };
    for (const auto& [dim, value_type, pages] :
         {Set{16, kFormatF16, 4}, Set{32, kFormatBf16, 5}, Set{64, kFormatF16, 2}, Set{16, kFormatF32, 1}}) {
      Keys(dim, value_type, pages);
    }
    return text_;
  }

 private:
  void Keys(uint32_t dim, uint32_t value_type, uint32_t pages) {
    const std::string name = "k" + Number(count_++);
    const std::vector<uint8_t> keys = MakeKeys(random_, pages, dim, value_type);
    text_ += "keys " + name + " type " + Number(value_type) + " dim " + Number(dim) + " pages " +
             Number(pages) + " " + Hex(keys) + "\n";
    for (uint32_t format = kFormatCodes2; format <= kFormatMeans; ++format) {
      const std::string records = name + "." + kFormatNames[format];
      const size_t size = RecordBytes(format, dim);
      std::vector<uint8_t> bytes(pages * size);
      std::vector<const uint8_t*> at(pages);
      const size_t row_bytes = size_t{dim} * ValueBytes(value_type);
      for (uint32_t p = 0; p < pages; ++p) {
        at[p] = bytes.data() + p * size;
        MakeRecord({keys.data() + p * kPageTokens * row_bytes, row_bytes, value_type}, dim, format,
                   {bytes.data() + p * size, size});
      }
      text_ += "records " + records + " of " + name + " format " + Number(format) + " " + Hex(bytes) + "\n";
      Select(records, {format, dim, at});
    }
  }

  // A query block, then operations on it.
  void Select(const std::string& records, const IndexColumn& index) {
    const uint32_t group = 1 + random_.Below(3);
    std::vector<float> queries(size_t{group} * index.dim);
    for (float& value : queries) {
      value = random_.Bell() * 0.5F;
    }
    std::vector<int16_t> weights(group);
    for (int16_t& weight : weights) {
      weight = static_cast<int16_t>(random_.Below(36000) - 4000);
    }
    std::vector<uint8_t> block(QueryBlockBytes(group, index.dim));
    MakeQueryBlock(queries, group, index.dim, index.format, 0.25F, weights, block);
    const std::string name = "q" + Number(count_++);
    text_ += "query " + name + " format " + Number(index.format) + " dim " + Number(index.dim) + " group " +
             Number(group) + " scale " + Hex(Bytes(0.25F)) + " weights " + Hex(BytesOf(weights)) + " " +
             Hex(BytesOf(queries)) + "\n";
    text_ += "block " + name + " " + Hex(block) + "\n";
    Operations(records, name, index, group, block);
  }

  void Operations(const std::string& records, const std::string& query, const IndexColumn& index,
                  uint32_t group, const std::vector<uint8_t>& block) {
    Descriptor op = Base(index, group);
    op.score_op = index.format == kFormatBounds  ? kScorePageBound
                  : index.format == kFormatMeans ? kScoreBlockMean
                                                 : kScoreDot;
    const uint32_t entries = op.end / EntryTokens(index.format, 0);
    for (const uint32_t k : {1U, entries / 5, entries, entries + 9}) {
      op.k = std::max(k, 1U);
      for (const uint8_t group_op : {kGroupMax, kGroupExp2Sum}) {
        op.group_op = group_op;
        op.flags = static_cast<uint8_t>(random_.Below(4));
        op.select_op = kSelectTopK;
        Write(records, query, op, index, block);
      }
    }
    op.k = std::max(entries / 4, 1U);
    op.select_op = kSelectThreshold;
    op.threshold = static_cast<int32_t>(random_.Below(2000));
    Write(records, query, op, index, block);
    op.group_op = kGroupMax;
    op.threshold = -static_cast<int32_t>(random_.Below(100));
    Write(records, query, op, index, block);
    if (!IsCodeFormat(index.format)) {
      op.flags = kFlagPages64 | kFlagRanks;
      op.begin = 0;
      Write(records, query, op, index, block);
      PlainMax(records, query, op, index, block);
      return;
    }
    op.score_op = kScoreReluDot;
    op.group_op = kGroupNone;
    op.select_op = kSelectTopK;
    op.threshold = 0;
    Write(records, query, op, index, block);
    if (index.format == kFormatCodes2) {
      op.score_op = kScoreDot;
      op.group_op = kGroupMax;
      op.k1 = entries / 2;
      Write(records, query, op, index, block);
    }
    PlainMax(records, query, op, index, block);
    if (index.format == kFormatCodes8 && group == 1) {
      op = Base(index, group);
      op.score_op = kScoreDot;
      op.group_op = kGroupExp2Sum;
      op.select_op = kSelectWeightedSum;
      Write(records, query, op, index, block);
    }
    op = Base(index, 0);
    op.select_op = kSelectLatest;
    op.k = 3;
    Write(records, query, op, index, block);
  }

  // Uses the fields of the preceding operation; draws no random number.
  void PlainMax(const std::string& records, const std::string& query, Descriptor op, const IndexColumn& index,
                const std::vector<uint8_t>& block) {
    const uint32_t entries = op.end / EntryTokens(index.format, op.flags);
    op.score_op = index.format == kFormatBounds  ? kScorePageBound
                  : index.format == kFormatMeans ? kScoreBlockMean
                                                 : kScoreDot;
    op.group_op = kGroupPlainMax;
    op.select_op = kSelectTopK;
    op.threshold = 0;
    op.flags |= kFlagRanks;
    op.k = entries / 3 + 1;
    op.k1 = op.k1 == 0 ? 0 : entries / 2 + 1;
    Write(records, query, op, index, block);
    op.flags |= kFlagByRank;
    op.select_op = kSelectThreshold;
    Write(records, query, op, index, block);
  }

  Descriptor Base(const IndexColumn& index, uint32_t group) {
    Descriptor op{};
    op.op = kOpScoreSelect;
    op.heads = 1;
    op.queries = 1;
    op.group = static_cast<uint8_t>(group);
    op.format = static_cast<uint8_t>(index.format);
    op.begin = IsCodeFormat(index.format) ? random_.Below(20) : uint32_t{kPartTokens};
    op.end = static_cast<uint32_t>(index.records.size()) * kPageTokens;
    return op;
  }

  void Write(const std::string& records, const std::string& query, const Descriptor& op,
             const IndexColumn& index, const std::vector<uint8_t>& block) {
    std::vector<uint8_t> result(ResultBlockBytes(op.select_op, op.flags, op.k, index.dim));
    ScoreSelect(op, index, block.data(), result);
    text_ += "select " + records + " " + query + " " + Hex(Bytes(op)) + " " + Hex(result) + "\n";
  }

  Random random_;
  std::string text_;
  uint32_t count_ = 0;
};

}  // namespace

std::string MakeVectors(uint64_t seed) { return Writer(seed).Run(); }

}  // namespace mnemo::layout
