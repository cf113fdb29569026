#pragma once

// The jobs of the selector's tests, and what layout::Ranks and layout::TopK answer to them.

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "fpga/tests/select/score_orders.h"
#include "proto/layout/payload.h"

namespace mnemo::rtl_select {

constexpr int kQueries = 4;  // of a pass

enum class Shape { kTokens = 0, kParts = 1, kPages = 2 };
constexpr int EntriesOf(Shape shape) { return shape == Shape::kTokens ? 64 : shape == Shape::kParts ? 4 : 1; }
constexpr uint8_t kShapeMaxima = 3;
// Lanes send rank codes for kRelu.
enum class Rank { kMax, kPlainMax, kExp2Sum, kRelu };
constexpr bool IsWide(Rank rank) { return rank == Rank::kExp2Sum || rank == Rank::kRelu; }
constexpr uint32_t GroupOpOf(Rank rank) {
  return rank == Rank::kMax        ? layout::kGroupMax
         : rank == Rank::kPlainMax ? layout::kGroupPlainMax
                                   : layout::kGroupExp2Sum;
}
constexpr int WordsOf(Shape shape) { return shape == Shape::kTokens ? 8 : 1; }

// One job with the scores of its entries.
struct Job {
  Shape shape = Shape::kTokens;
  int group = 1;
  Rank rank = Rank::kMax;
  bool bounded = false;
  int32_t bound = 0;
  bool listed = false;
  bool to_list = false;
  bool maxima = false;    // the first stage of a long scan
  bool kept = false;      // the second one
  bool twice = false;     // two jobs use its list
  bool measured = false;  // the first of the two
  int shift = 0;
  uint32_t begin = 0;  // entries, not listed
  uint32_t end = 0;
  uint32_t k = 1;
  std::vector<uint32_t> entries;    // that count, rising
  std::vector<int16_t> scores;      // [query][entry], as layout::Scores
  std::vector<int32_t> relu_ranks;  // of the entries, in place of scores

  // The answer of proto/layout.
  std::vector<uint32_t> ids;
  std::vector<int32_t> ranks;
  uint32_t candidates = 0;
  uint32_t pages = 0;                               // that the lanes score
  std::vector<std::pair<uint32_t, uint64_t>> list;  // with to_list: page, mask

  int passes() const { return (group + kQueries - 1) / kQueries; }
};

// The entries of each page, as a list.
std::vector<std::pair<uint32_t, uint64_t>> ListOf(const std::vector<uint32_t>& entries, uint32_t of_page);

std::vector<int32_t> RanksOf(const Job& job);

// Fills in what layout::Ranks and layout::TopK give for the job's scores.
void Expect(Job& job);

// Scores of all entries and queries, or ranks of weighted ReLU.
void FillScores(Job& job, Order order, std::mt19937& rng);

Order AnyOrder(std::mt19937& rng);

// A threshold: an end of its range, the rank or share of an entry or one more, or any.
void SetBound(Job& job, std::mt19937& rng);

}  // namespace mnemo::rtl_select
