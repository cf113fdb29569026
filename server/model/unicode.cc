#include "server/model/unicode.h"

#include <algorithm>
#include <tuple>

#include "server/model/utf8.h"

namespace mnemo::model {
namespace {

// Flag of characters that do not by themselves show that the text around them is normalized.
constexpr uint8_t kNfcUnstable = 0x80;

// Hangul syllables are composed by arithmetic (Unicode standard, section 3.12).
constexpr uint32_t kHangulBase = 0xAC00;
constexpr uint32_t kLeadBase = 0x1100;
constexpr uint32_t kVowelBase = 0x1161;
constexpr uint32_t kTrailBase = 0x11A7;
constexpr uint32_t kLeads = 19;
constexpr uint32_t kVowels = 21;
constexpr uint32_t kTrails = 28;
constexpr uint32_t kSyllables = kLeads * kVowels * kTrails;

bool InBlock(uint32_t code_point, uint32_t base, uint32_t count) {
  return code_point >= base && code_point - base < count;
}

bool ByPair(const Decomposition& a, const Decomposition& b) {
  return std::tie(a.first, a.second) < std::tie(b.first, b.second);
}

}  // namespace

const Unicode& Unicode::Get() {
  static const Unicode unicode;
  return unicode;
}

Unicode::Unicode() : table_(0x110000, kOther) {
  for (const CategoryRange& range : kCategoryRanges) {
    std::fill(table_.begin() + range.first, table_.begin() + range.last + 1, range.category);
  }
  const auto mark_unstable = [this](uint32_t first, uint32_t last) {
    for (uint32_t c = first; c <= last; ++c) table_[c] |= kNfcUnstable;
  };
  for (const CombiningRange& range : kCombiningRanges) mark_unstable(range.first, range.last);
  for (const Decomposition& row : kDecompositions) {
    if (row.composes != 0) {
      mark_unstable(row.second, row.second);
      compositions_.push_back(row);
    } else {
      mark_unstable(row.code_point, row.code_point);
    }
  }
  mark_unstable(kVowelBase, kVowelBase + kVowels - 1);
  mark_unstable(kTrailBase + 1, kTrailBase + kTrails - 1);
  std::sort(compositions_.begin(), compositions_.end(), ByPair);
}

bool Unicode::MayNeedNfc(std::string_view text) const {
  for (size_t at = 0; at < text.size();) {
    // Everything below U+0300 (lead byte 0xCC) is normalized.
    if (static_cast<uint8_t>(text[at]) < 0xCC) {
      ++at;
      continue;
    }
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.code_point != kMalformed && (table_[c.code_point] & kNfcUnstable) != 0) return true;
    at += c.length;
  }
  return false;
}

uint8_t Unicode::CombiningClass(uint32_t code_point) const {
  // Every character with a combining class is flagged unstable: most characters need no search.
  if ((table_[code_point] & kNfcUnstable) == 0) return 0;
  const auto after =
      std::upper_bound(kCombiningRanges.begin(), kCombiningRanges.end(), code_point,
                       [](uint32_t c, const CombiningRange& range) { return c < range.first; });
  if (after == kCombiningRanges.begin()) return 0;
  const CombiningRange& range = *(after - 1);
  return code_point <= range.last ? range.combining_class : 0;
}

void Unicode::Decompose(uint32_t code_point, std::vector<Mark>* out) const {
  if (InBlock(code_point, kHangulBase, kSyllables)) {
    const uint32_t index = code_point - kHangulBase;
    out->push_back({kLeadBase + index / (kVowels * kTrails), 0});
    out->push_back({kVowelBase + index / kTrails % kVowels, 0});
    if (index % kTrails != 0) out->push_back({kTrailBase + index % kTrails, 0});
    return;
  }
  const auto row = std::lower_bound(kDecompositions.begin(), kDecompositions.end(), code_point,
                                    [](const Decomposition& d, uint32_t c) { return d.code_point < c; });
  if (row == kDecompositions.end() || row->code_point != code_point) {
    out->push_back({code_point, CombiningClass(code_point)});
    return;
  }
  Decompose(row->first, out);  // at most three levels deep
  if (row->second != 0) Decompose(row->second, out);
}

uint32_t Unicode::Compose(uint32_t first, uint32_t second) const {
  if (InBlock(first, kLeadBase, kLeads) && InBlock(second, kVowelBase, kVowels)) {
    return kHangulBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTrails;
  }
  if (InBlock(first, kHangulBase, kSyllables) && (first - kHangulBase) % kTrails == 0 &&
      InBlock(second, kTrailBase + 1, kTrails - 1)) {
    return first + (second - kTrailBase);
  }
  const Decomposition key{0, first, second, 1};
  const auto row = std::lower_bound(compositions_.begin(), compositions_.end(), key, ByPair);
  return row != compositions_.end() && row->first == first && row->second == second ? row->code_point : 0;
}

// Orders and composes a decomposed stretch of text and appends it.
void Unicode::Flush(std::vector<Mark>* run, std::string* out) const {
  std::vector<Mark>& marks = *run;
  for (size_t begin = 0; begin < marks.size();) {
    if (marks[begin].combining_class == 0) {
      ++begin;
      continue;
    }
    size_t end = begin;
    while (end < marks.size() && marks[end].combining_class != 0) ++end;
    std::stable_sort(marks.begin() + static_cast<ptrdiff_t>(begin),
                     marks.begin() + static_cast<ptrdiff_t>(end),
                     [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
    begin = end;
  }
  // `starter` is the position of the last character of class 0. A mark is blocked from it by a mark that
  // remained between them and has the same or a higher class.
  size_t kept = 0;
  size_t starter = SIZE_MAX;
  for (const Mark mark : marks) {
    if (starter != SIZE_MAX) {
      const bool adjacent = kept == starter + 1;
      const bool blocked = !adjacent && marks[kept - 1].combining_class >= mark.combining_class;
      const uint32_t composed = blocked ? 0 : Compose(marks[starter].code_point, mark.code_point);
      if (composed != 0) {
        marks[starter].code_point = composed;
        continue;
      }
    }
    if (mark.combining_class == 0) starter = kept;
    marks[kept++] = mark;
  }
  for (size_t i = 0; i < kept; ++i) AppendUtf8(marks[i].code_point, out);
  marks.clear();
}

std::string Unicode::Nfc(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  std::vector<Mark> run;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.code_point == kMalformed) {
      Flush(&run, &out);
      out.append(text.substr(at, c.length));
    } else {
      // A character that ends no pair begins a new stretch.
      if (run.size() >= 64 && (table_[c.code_point] & kNfcUnstable) == 0) Flush(&run, &out);
      Decompose(c.code_point, &run);
    }
    at += c.length;
  }
  Flush(&run, &out);
  return out;
}

}  // namespace mnemo::model
