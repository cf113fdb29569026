// Character properties as make_unicode_data.py found them: sorted, disjoint ranges.
#pragma once

#include <cstdint>
#include <span>

namespace mnemo::model {

enum Category : uint8_t {
  kOther = 0,
  kLetter = 1,      // general category L
  kNumber = 2,      // general category N
  kSpace = 3,       // property White_Space
  kLateNumber = 4,  // N since Unicode 17.0, unassigned before
};

struct CategoryRange {
  uint32_t first;
  uint32_t last;
  Category category;
};
struct CombiningRange {
  uint32_t first;
  uint32_t last;
  uint8_t combining_class;  // never 0
};
// The canonical decomposition, one level.
struct Decomposition {
  uint32_t code_point;
  uint32_t first;
  uint32_t second;   // 0 = a singleton
  uint8_t composes;  // 1: normalization form C puts the pair together again
};

extern const std::span<const CategoryRange> kCategoryRanges;
extern const std::span<const CombiningRange> kCombiningRanges;
extern const std::span<const Decomposition> kDecompositions;

}  // namespace mnemo::model
