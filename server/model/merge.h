// Merge loop of both tokenizers: while any two neighbours have a merge, the one of the lowest rank is
// applied, the leftmost first among equals.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace mnemo::model {

// A range of the text that currently is one token, or no token (id < 0).
struct MergeSymbol {
  // Offset in the text.
  uint32_t begin = 0;
  uint32_t length = 0;
  int32_t id = -1;
};

struct MergeResult {
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  uint32_t rank = kNone;
  int32_t id = -1;
};

// Working memory of one Encode.
struct MergeScratch {
  struct Candidate {
    uint32_t rank;
    // Index of the left symbol.
    uint32_t left;
    // Length of both symbols when the candidate was found; a stale candidate does not match it.
    uint32_t length;
    int32_t id;
  };
  std::vector<MergeSymbol> symbols;
  // For few symbols: [i] merges symbols i and i + 1.
  std::vector<MergeResult> pairs;
  // For many symbols.
  std::vector<Candidate> heap;
  // For many symbols: linked list.
  std::vector<uint32_t> next;
  std::vector<uint32_t> previous;
};

inline constexpr size_t kFewSymbols = 48;

// `find(left, right)` returns the merge of two neighbours. Leaves the merged symbols in scratch->symbols.
template <typename Find>
void MergeFew(MergeScratch* scratch, const Find& find) {
  std::vector<MergeSymbol>& symbols = scratch->symbols;
  std::vector<MergeResult>& pairs = scratch->pairs;
  if (symbols.size() < 2) return;
  pairs.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs.push_back(find(symbols[i], symbols[i + 1]));
  while (!pairs.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs.size(); ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == MergeResult::kNone) return;
    symbols[best].length += symbols[best + 1].length;
    symbols[best].id = pairs[best].id;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    pairs.erase(pairs.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) pairs[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best < pairs.size()) pairs[best] = find(symbols[best], symbols[best + 1]);
  }
}

// The same in O(n log n).
template <typename Find>
void MergeMany(MergeScratch* scratch, const Find& find) {
  using Candidate = MergeScratch::Candidate;
  std::vector<MergeSymbol>& symbols = scratch->symbols;
  std::vector<Candidate>& heap = scratch->heap;
  std::vector<uint32_t>& next = scratch->next;
  std::vector<uint32_t>& previous = scratch->previous;
  const auto count = static_cast<uint32_t>(symbols.size());
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto candidate = [&](uint32_t left) {
    const MergeResult merge = find(symbols[left], symbols[next[left]]);
    return Candidate{merge.rank, left, symbols[left].length + symbols[next[left]].length, merge.id};
  };
  const auto push = [&](uint32_t left) {
    const Candidate found = candidate(left);
    if (found.rank == MergeResult::kNone) return;
    heap.push_back(found);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  next.resize(count);
  previous.resize(count);
  heap.clear();
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1;  // `count` ends the list
    previous[i] = i - 1;
  }
  for (uint32_t i = 0; i + 1 < count; ++i) {
    if (const Candidate found = candidate(i); found.rank != MergeResult::kNone) heap.push_back(found);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    const Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    // A symbol only grows, so the joint length tells whether both are unchanged. A symbol that was merged
    // into its left neighbour has length 0.
    const uint32_t left = top.left;
    if (symbols[left].length == 0 || next[left] == count) continue;
    const uint32_t right = next[left];
    if (symbols[left].length + symbols[right].length != top.length) continue;
    symbols[left].length = top.length;
    symbols[left].id = top.id;
    symbols[right].length = 0;
    next[left] = next[right];
    if (next[left] != count) {
      previous[next[left]] = left;
      push(left);
    }
    if (left != 0) push(previous[left]);
  }
  symbols.erase(
      std::remove_if(symbols.begin(), symbols.end(), [](const MergeSymbol& s) { return s.length == 0; }),
      symbols.end());
}

template <typename Find>
void MergeSymbols(MergeScratch* scratch, const Find& find) {
  if (scratch->symbols.size() <= kFewSymbols) {
    MergeFew(scratch, find);
  } else {
    MergeMany(scratch, find);
  }
}

// Merges a text of any length in windows, so that memory is limited to that of one window. `merge(stretch)`
// leaves the symbols that cover a stretch in scratch->symbols. `emit(symbol)` receives them in order, with
// `begin` as an offset in the text, and returns whether to continue.
//
// The result is that of one merge over the whole text. Tokens are the merged form of their text if and only
// if each two neighbours are the merged form of theirs ("Fast byte-pair encoding",
// github.com/github/rust-gems, crate bpe). Inside a window this holds, and the pair at an edge is tested. An
// edge lies well before the window's end, where the cut rarely has an effect.
//
// Returns false when no valid edges were found, which happens only for windows hardly longer than a token.
// The emitted symbols are then void, and the caller merges the text as a whole.
template <typename Merge, typename Emit>
bool MergeInWindows(std::string_view text, size_t window, MergeScratch* scratch, const Merge& merge,
                    const Emit& emit) {
  constexpr int kEdgesTried = 16;
  const auto merged = [&](size_t begin, size_t length) {
    merge(text.substr(begin, length));
    for (MergeSymbol& symbol : scratch->symbols) symbol.begin += static_cast<uint32_t>(begin);
    return scratch->symbols;
  };
  const auto are_neighbours = [&](const MergeSymbol& left, const MergeSymbol& right) {
    merge(text.substr(left.begin, left.length + right.length));
    return scratch->symbols.size() == 2 && scratch->symbols[0].length == left.length;
  };
  size_t at = 0;
  size_t length = window;
  // The last emitted symbol.
  MergeSymbol before;
  std::vector<MergeSymbol> current = merged(at, length);
  while (at + length < text.size()) {
    size_t edge = current.size() - current.size() / 8;
    bool is_found = false;
    for (int tried = 0; tried < kEdgesTried && edge > 0 && edge < current.size(); ++tried, --edge) {
      std::vector<MergeSymbol> next = merged(current[edge].begin, window);
      is_found = are_neighbours(current[edge - 1], next.front());
      if (!is_found) continue;
      for (size_t i = 0; i < edge; ++i) {
        if (!emit(current[i])) return true;
      }
      before = current[edge - 1];
      at = current[edge].begin;
      length = window;
      current = std::move(next);
      break;
    }
    if (is_found) continue;
    length *= 2;
    current = merged(at, length);
    if (at > 0 && !are_neighbours(before, current.front())) return false;
  }
  for (const MergeSymbol& symbol : current) {
    if (!emit(symbol)) break;
  }
  return true;
}

}  // namespace mnemo::model
