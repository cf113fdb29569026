// Character categories and normalization form C, for the tokenizers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/unicode_data.h"

namespace mnemo::model {

// Built at first use. Immutable and thread-safe.
class Unicode {
 public:
  // Returns the only object. Any thread; the first call builds it.
  static const Unicode& Get();

  // `code_point` is at most 0x10FFFF, or kMalformed: a malformed byte counts as a symbol, as U+FFFD would.
  Category CategoryOf(uint32_t code_point) const {
    return code_point < table_.size() ? static_cast<Category>(table_[code_point] & 0x07) : kOther;
  }
  // Returns true when normalization form C may change these bytes. Cheap for normalized text.
  bool MayNeedNfc(std::string_view text) const;
  // Returns normalization form C (Unicode Standard Annex 15). Malformed bytes stay in place, and nothing
  // composes across them.
  std::string Nfc(std::string_view text) const;

 private:
  struct Mark {
    uint32_t code_point;
    uint8_t combining_class;
  };

  Unicode();
  void Decompose(uint32_t code_point, std::vector<Mark>* out) const;
  uint8_t CombiningClass(uint32_t code_point) const;
  // 0: they do not compose.
  uint32_t Compose(uint32_t first, uint32_t second) const;
  void Flush(std::vector<Mark>* run, std::string* out) const;

  // [0x110000]: category and kNfcUnstable.
  std::vector<uint8_t> table_;
  // Pairs that compose, by (first, second).
  std::vector<Decomposition> compositions_;
};

}  // namespace mnemo::model
