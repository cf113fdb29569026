#pragma once

// Two hashes that peers compare at attach: one of the layout (structs, constants, record offsets) and one of
// the quantiser (tables and widths of the arithmetic). The compiler computes both from the definitions, so a
// change cannot be missed.

#include <stdint.h>

#include <string>
#include <string_view>

#include "proto/layout/attach.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/numerics.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"

namespace mnemo::layout {

// 64-bit FNV-1a, byte by byte; numbers as 8 bytes, lowest first.
class Fnv {
 public:
  constexpr void Add(std::string_view text) {
    for (const char c : text) {
      value_ = (value_ ^ static_cast<uint8_t>(c)) * 0x100000001B3;
    }
  }
  constexpr void Add(uint64_t number) {
    for (int i = 0; i < 8; ++i, number >>= 8) {
      value_ = (value_ ^ (number & 0xFF)) * 0x100000001B3;
    }
  }
  constexpr uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xCBF29CE484222325;
};

// The structs field by field, as "name type offset;".
#define MNEMO_FIELD_TEXT(type, name, at) #name " " #type " " #at ";"
inline constexpr std::string_view kLayoutText =
    "Descriptor:" MNEMO_DESCRIPTOR_FIELDS(MNEMO_FIELD_TEXT)
    "IndexSpec:" MNEMO_INDEX_SPEC_FIELDS(MNEMO_FIELD_TEXT)
    "Completion:" MNEMO_COMPLETION_FIELDS(MNEMO_FIELD_TEXT)
    "RingHeader:" MNEMO_RING_FIELDS(MNEMO_FIELD_TEXT)
    "AttachHello:" MNEMO_ATTACH_FIELDS(MNEMO_FIELD_TEXT);
#undef MNEMO_FIELD_TEXT

constexpr uint64_t LayoutHash() {
  Fnv hash;
  hash.Add(kLayoutText);
  for (const uint64_t number : {kOpCreate, kOpAppend, kOpFork, kOpTruncate, kOpFree, kOpKvStore,
                                kOpScoreSelect, kOpGather, kOpScoreGather}) {
    hash.Add(number);
  }
  for (const uint64_t number : {kScoreDot, kScoreReluDot, kScorePageBound, kScoreBlockMean}) {
    hash.Add(number);
  }
  for (const uint64_t number : {kGroupNone, kGroupMax, kGroupExp2Sum, kGroupPlainMax}) {
    hash.Add(number);
  }
  for (const uint64_t number : {kSelectTopK, kSelectThreshold, kSelectWeightedSum, kSelectLatest}) {
    hash.Add(number);
  }
  for (const uint64_t number : {kFlagByRank, kFlagRanks, kFlagPages64}) {
    hash.Add(number);
  }
  hash.Add(uint64_t{kUnitBytes});
  for (const uint32_t format : {kFormatCodes2, kFormatCodes4, kFormatCodes8, kFormatBounds, kFormatMeans}) {
    for (uint32_t dim = kMinDim; dim <= kMaxDim; dim *= 2) {
      const RecordLayout at = RecordSections(format, dim);
      for (const uint64_t offset : {at.base, at.sign, at.magnitude, at.codes, at.scales, at.rows, at.bytes}) {
        hash.Add(offset);
      }
    }
  }
  hash.Add(QueryBlockBytes(3, 64));
  hash.Add(ResultBlockBytes(kSelectTopK, kFlagRanks, 100, 64));
  hash.Add(ResultBlockBytes(kSelectWeightedSum, 0, 0, 64));
  return hash.value();
}

constexpr uint64_t QuantiserId() {
  Fnv hash;
  hash.Add("quantiser 1");  // increment for changes that no number below shows
  for (uint32_t i = 0; i < 8; ++i) {
    hash.Add(static_cast<uint64_t>(ScaleMantissa(i)));
  }
  for (uint32_t i = 0; i < 16; ++i) {
    hash.Add(Exp2Fraction(i));
  }
  for (const int32_t code_max : {1, 3, 7, 127}) {
    for (uint32_t dim = kMinDim; dim <= kMaxDim; dim *= 2) {
      hash.Add(static_cast<uint64_t>(DotShift(code_max, dim)));
    }
  }
  hash.Add(static_cast<uint64_t>(-kRankFloor));
  hash.Add(static_cast<uint64_t>(-kPlainRankFloor));
  hash.Add(static_cast<uint64_t>(kReluRankShift));
  hash.Add(static_cast<uint64_t>(int64_t{ScoreTerm(12345, 150, 20, DotShift(3, 64), 40000, 141)} + 32768));
  return hash.value();
}

inline constexpr uint64_t kLayoutHash = LayoutHash();
inline constexpr uint64_t kQuantiserId = QuantiserId();

// Returns a hello with magic, versions, hash and quantiser set and no request.
AttachHello NewHello();

// Returns an empty string when the two are compatible; otherwise the differences, with both values, for the
// error.
std::string CompareHello(const AttachHello& own, const AttachHello& peer);

}  // namespace mnemo::layout
