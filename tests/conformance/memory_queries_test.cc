// Queries of every kind of memory device against the scalar reference of proto/layout, bit by bit. Formats,
// dims, groups, operations, ranges, k and flags meet in pairs, over what appends, forks and truncations left.
// A device's caps say what is drawn; what they lack is refused with the field that asks for it.
#include <algorithm>
#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cstddef>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fpga/tests/testing/cases.h"
#include "proto/layout/record.h"
#include "tests/conformance/memory_bench.h"

namespace mnemo::conformance {
namespace {

using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kStates = 4;  // of the indexes of a story

// One format and dim: what is stored, step by step. Made once for all devices.
struct Story {
  struct Step {
    enum Kind { kAppend, kFork, kTruncate, kFree } kind;
    uint32_t id;
    uint32_t pages;  // appended, or those that stay
    uint32_t source = 0;
    std::vector<float> keys;
  };
  layout::IndexSpec spec{};
  std::array<std::vector<Step>, kStates> steps;
  std::array<std::vector<Records>, kStates> states;  // after the steps, by index
};

Story MakeStory(uint32_t format, uint32_t dim) {
  using Step = Story::Step;
  std::mt19937 random(format * 1000 + dim);
  Story story;
  story.spec = SpecOf(format, dim);
  std::vector<Records> now(2, Records(story.spec));
  uint32_t state = 0;
  const auto append = [&](uint32_t id, uint32_t pages) {
    const uint32_t tokens = pages * kPageTokens;
    Step step{Step::kAppend, id, pages, 0, RandomKeys(random, size_t{kSlots} * kHeads * tokens * dim)};
    now[id].Append(step.keys, tokens);
    story.steps[state].push_back(std::move(step));
  };
  const auto fork = [&](uint32_t id, uint32_t source, uint32_t pages) {
    story.steps[state].push_back({Step::kFork, id, pages, source, {}});
    now[id] = now[source];
    now[id].Truncate(pages);
  };
  const auto truncate = [&](uint32_t id, uint32_t pages) {
    story.steps[state].push_back({Step::kTruncate, id, pages, 0, {}});
    now[id].Truncate(pages);
  };
  const auto end = [&] { story.states[state++] = now; };
  append(0, 3);
  end();
  append(0, 2);
  fork(1, 0, 4);
  append(1, 3);
  end();
  truncate(0, 2);
  append(0, 1);
  end();
  story.steps[state].push_back({Step::kFree, 0, 0, 0, {}});
  fork(0, 1, 7);
  truncate(1, 0);
  append(1, 1);
  end();
  return story;
}

void Play(Bench& bench, const Story& story, uint32_t state) {
  if (state == 0) REQUIRE(bench.Create(0, story.spec).status == layout::kStatusOk);
  for (const Story::Step& step : story.steps[state]) {
    const uint32_t tokens = step.pages * kPageTokens;
    switch (step.kind) {
      case Story::Step::kAppend: {
        const uint32_t begin = bench.table->Info(bench.owner, step.id, 0).tokens;
        REQUIRE(bench.Append(step.id, begin, begin + tokens, step.keys).watermark == begin + tokens);
        break;
      }
      case Story::Step::kFork:
        REQUIRE(bench.Simple(layout::kOpFork, step.id, tokens, step.source).status == layout::kStatusOk);
        break;
      case Story::Step::kTruncate:
        REQUIRE(bench.Simple(layout::kOpTruncate, step.id, tokens).status == layout::kStatusOk);
        break;
      case Story::Step::kFree:
        REQUIRE(bench.Simple(layout::kOpFree, step.id, 0).status == layout::kStatusOk);
        break;
    }
  }
}

constexpr uint32_t kDims[] = {16, 32, 64, 128, 256};
constexpr uint8_t kGroups[] = {1, 2, 3, 4, 5, 8, 16};

// A query's factors, each a small number, and the descriptor that they make.
constexpr size_t kFactors = 14;
struct Row {
  std::array<uint8_t, kFactors> factors{};
  uint32_t format = 0;
  uint32_t dim = 0;
  uint32_t state = 0;
  uint32_t seed = 0;  // of payloads
  Descriptor d{};
};

enum Range {
  kWhole,
  kEmptyAtStart,
  kEmptyWithin,
  kBeginsWithinPage,
  kEndsWithinPage,
  kWithinOnePage,
  kRanges
};

void SetRange(uint32_t range, uint32_t tokens, std::mt19937& random, Descriptor* d) {
  const uint32_t step = layout::EntryTokens(d->format, d->flags);
  const auto within = [&](uint32_t bound) {
    return static_cast<uint32_t>(random() % (bound / step + 1)) * step;
  };
  d->begin = 0;
  d->end = tokens;
  switch (range) {
    case kEmptyAtStart:
      d->end = 0;
      break;
    case kEmptyWithin:
      d->begin = d->end = within(tokens);
      break;
    case kBeginsWithinPage:
      d->begin = within(tokens);
      break;
    case kEndsWithinPage:
      d->end = within(tokens);
      break;
    case kWithinOnePage: {
      const uint32_t page = static_cast<uint32_t>(random() % (tokens / kPageTokens)) * kPageTokens;
      const uint32_t first = within(kPageTokens);
      d->begin = page + first;
      d->end = d->begin + within(kPageTokens - first);
      break;
    }
    default:
      break;
  }
}

enum Count { kOne, kFew, kAllButOne, kAll, kMoreThanAll, kMany, kMost, kCounts };

uint32_t KOf(uint32_t count, uint32_t entries, std::mt19937& random) {
  switch (count) {
    case kOne:
      return 1;
    case kFew:
      return 2 + static_cast<uint32_t>(random() % 40);
    case kAllButOne:
      return std::max(entries, 2U) - 1;
    case kAll:
      return std::max(entries, 1U);
    case kMoreThanAll:
      return entries + 1;
    case kMany:
      return 1000;
    default:
      return 16'384;
  }
}

// Operations that go together: score, group and select operation, of all that proto/layout knows.
void SetOperations(std::mt19937& random, Row* row) {
  Descriptor& d = row->d;
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
  d.score_op = static_cast<uint8_t>(d.format == layout::kFormatBounds  ? layout::kScorePageBound
                                    : d.format == layout::kFormatMeans ? layout::kScoreBlockMean
                                    : below(4) == 0                    ? layout::kScoreReluDot
                                                                       : layout::kScoreDot);
  const uint8_t groups[] = {layout::kGroupMax, layout::kGroupExp2Sum, layout::kGroupPlainMax};
  d.group_op = d.score_op == layout::kScoreReluDot ? uint8_t{layout::kGroupNone} : groups[below(3)];
  const uint32_t select = below(8);
  d.select_op = select < 5   ? uint8_t{layout::kSelectTopK}
                : select < 7 ? uint8_t{layout::kSelectThreshold}
                             : uint8_t{layout::kSelectLatest};
  if (d.format == layout::kFormatCodes8 && d.score_op == layout::kScoreDot && below(5) == 0) {
    d.select_op = layout::kSelectWeightedSum;
    d.group_op = layout::kGroupExp2Sum;
    d.group = 1;
    d.flags = 0;
    d.k = 0;
    // A card takes long for large dims: its simulation has one block of them.
    if (row->dim > 64) d.queries = d.heads = 1;
  }
  if (d.select_op == layout::kSelectLatest) d.score_op = d.group_op = d.group = 0;
  if (d.select_op == layout::kSelectThreshold) {
    const auto any = static_cast<int32_t>(random());
    d.threshold = d.group_op == layout::kGroupMax        ? -static_cast<int32_t>(below(600))
                  : d.group_op == layout::kGroupPlainMax ? any % 600
                  : d.group_op == layout::kGroupExp2Sum  ? static_cast<int32_t>(below(2) * below(3000))
                                                         : any % 100'000;
  }
}

Row RandomRow(uint32_t format, uint32_t dim, const Story& story, std::mt19937& random) {
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
  Row row{
      .factors = {}, .format = format, .dim = dim, .state = below(kStates), .seed = below(1 << 30), .d = {}};
  Descriptor& d = row.d;
  d.op = layout::kOpScoreSelect;
  d.format = static_cast<uint8_t>(format);
  d.index_id = row.state == 0 ? 0 : below(2);
  d.layer_slot = static_cast<uint16_t>(below(kSlots));
  d.first_head = static_cast<uint8_t>(below(kHeads));
  d.heads = static_cast<uint8_t>(1 + below(kHeads - d.first_head));
  d.queries = static_cast<uint8_t>(1 + below(3));
  const uint32_t group = below(std::size(kGroups));
  d.group = kGroups[group];
  d.flags = static_cast<uint8_t>(below(4));
  if (!layout::IsCodeFormat(format) && below(2) == 0) d.flags |= layout::kFlagPages64;
  const uint32_t range = below(kRanges);
  SetRange(range, story.states[row.state][d.index_id].pages() * kPageTokens, random, &d);
  const uint32_t entries = (d.end - d.begin) / layout::EntryTokens(d.format, d.flags);
  const uint32_t count = below(kCounts);
  d.k = KOf(count, entries, random);
  SetOperations(random, &row);
  uint32_t first_stage = 0;
  if (format == layout::kFormatCodes2 &&
      (d.select_op == layout::kSelectTopK || d.select_op == layout::kSelectThreshold)) {
    first_stage = below(4);
    const uint32_t most = std::max(d.k, entries);
    d.k1 = first_stage == 0   ? 0
           : first_stage == 1 ? d.k
           : first_stage == 2 ? d.k + below(most - d.k + 1)
                              : most + 5;
  }
  row.factors = {static_cast<uint8_t>(format),
                 static_cast<uint8_t>(std::bit_width(dim)),
                 static_cast<uint8_t>(row.state * 2 + d.index_id),
                 d.select_op == layout::kSelectLatest ? uint8_t{7} : static_cast<uint8_t>(group),
                 static_cast<uint8_t>(range),
                 static_cast<uint8_t>(count),
                 d.flags,
                 d.score_op,
                 d.group_op,
                 d.select_op,
                 static_cast<uint8_t>(first_stage),
                 d.queries,
                 d.heads,
                 static_cast<uint8_t>(d.layer_slot * 3 + d.first_head)};
  return row;
}

// Rows, stories and the reference's answers, shared by all devices.
class Pool {
 public:
  explicit Pool(uint32_t seed) {
    constexpr int kRowsOfStory = 120;
    std::mt19937 random(seed);
    for (uint32_t format = layout::kFormatCodes2; format <= layout::kFormatMeans; ++format) {
      for (const uint32_t dim : kDims) {
        const Story& story = stories_[{format, dim}] = MakeStory(format, dim);
        for (int n = 0; n < kRowsOfStory; ++n) rows_.push_back(RandomRow(format, dim, story, random));
      }
    }
    queries_.resize(rows_.size());
  }

  const std::vector<Row>& rows() const { return rows_; }
  const std::map<std::pair<uint32_t, uint32_t>, Story>& stories() const { return stories_; }
  const Query& QueryOf(size_t row) {
    std::unique_ptr<Query>& query = queries_[row];
    if (query == nullptr) {
      const Row& of = rows_[row];
      std::mt19937 random(of.seed);
      const Records& records = stories_.at({of.format, of.dim}).states[of.state][of.d.index_id];
      query = std::make_unique<Query>(MakeQuery(of.d, records, random));
    }
    return *query;
  }
  // Chooses rows that `served` takes until each pair of factors that any such row has is there.
  template <typename Served>
  std::vector<size_t> Cover(const Served& served) const;

 private:
  std::map<std::pair<uint32_t, uint32_t>, Story> stories_;
  std::vector<Row> rows_;
  std::vector<std::unique_ptr<Query>> queries_;
};

template <typename Served>
std::vector<size_t> Pool::Cover(const Served& served) const {
  constexpr size_t kLevels = 16;
  std::vector<size_t> candidates;
  for (size_t n = 0; n < rows_.size(); ++n) {
    if (served(rows_[n])) candidates.push_back(n);
  }
  std::vector<bool> covered(kFactors * kFactors * kLevels * kLevels);
  const auto for_pairs = [&](size_t row, const auto& body) {
    const auto& factors = rows_[row].factors;
    for (size_t i = 0; i < kFactors; ++i) {
      for (size_t j = 0; j < i; ++j) body(((i * kFactors + j) * kLevels + factors[i]) * kLevels + factors[j]);
    }
  };
  std::vector<size_t> chosen;
  while (true) {
    size_t best = 0;
    size_t most = 0;
    for (const size_t row : candidates) {
      size_t fresh = 0;
      for_pairs(row, [&](size_t pair) { fresh += covered[pair] ? 0 : 1; });
      if (fresh > most) {
        most = fresh;
        best = row;
      }
    }
    if (most == 0) return chosen;
    for_pairs(best, [&](size_t pair) { covered[pair] = true; });
    chosen.push_back(best);
  }
}

// Plays every story on a device and compares the chosen rows' queries after each of its states.
void CheckStories(Bench& bench, Pool& pool) {
  const layout::AttachHello& caps = bench.caps();
  const std::vector<size_t> chosen = pool.Cover([&](const Row& row) {
    return HasIndex(caps, row.format, row.dim) && LackingField(row.d, caps) == SIZE_MAX;
  });
  REQUIRE(chosen.size() > 20);
  for (const auto& [shape, story] : pool.stories()) {
    CAPTURE(shape.first, shape.second);
    if (!HasIndex(caps, shape.first, shape.second)) continue;
    for (uint32_t state = 0; state < kStates; ++state) {
      CAPTURE(state);
      Play(bench, story, state);
      std::vector<Query> queries;
      for (const size_t n : chosen) {
        const Row& row = pool.rows()[n];
        if (std::pair(row.format, row.dim) == shape && row.state == state) queries.push_back(pool.QueryOf(n));
      }
      if (!queries.empty()) CheckQueries(bench, queries);
      // Descriptors that ask for what a device lacks do not reach it, all others do.
      for (const Row& row : pool.rows()) {
        if (std::pair(row.format, row.dim) != shape || row.state != state) continue;
        const size_t field = LackingField(row.d, caps);
        const layout::Verdict verdict = bench.Check(row.d);
        REQUIRE(verdict.status == (field == SIZE_MAX ? layout::kStatusOk : layout::kStatusUnsupported));
        REQUIRE(verdict.detail == (field == SIZE_MAX ? size_t{layout::kNoDetail} : field));
      }
    }
    REQUIRE(bench.Simple(layout::kOpFree, 0, 0).status == layout::kStatusOk);
    REQUIRE(bench.Simple(layout::kOpFree, 1, 0).status == layout::kStatusOk);
  }
  CHECK(bench.table->Stats(bench.owner).held_bytes == 0);
}

TEST_CASE("memory devices select what the reference selects, in all pairs of what they serve") {
  for (uint32_t seed = 1; seed <= rtl_tests::Cases(2U); ++seed) {
    CAPTURE(seed);
    Pool pool(seed);
    ForEachDevice([&](Bench& bench, const MemoryDeviceOptions&) { CheckStories(bench, pool); });
  }
}

// One index of many pages, the same for all devices.
class LongIndex {
 public:
  LongIndex(uint32_t format, uint32_t dim, uint32_t pages)
      : spec_(SpecOf(format, dim)), pages_(pages), records_(spec_) {
    std::mt19937 random(format + dim + pages);
    spec_.max_tokens = pages * kPageTokens;
    keys_ = RandomKeys(random, size_t{kSlots} * kHeads * spec_.max_tokens * dim);
    records_.Append(keys_, spec_.max_tokens);
  }
  uint32_t tokens() const { return pages_ * kPageTokens; }
  void Store(Bench& bench) const {
    REQUIRE(bench.Create(0, spec_).status == layout::kStatusOk);
    REQUIRE(bench.Append(0, 0, tokens(), keys_).watermark == tokens());
  }
  // A scan of all of a head.
  Descriptor Scan(uint8_t group, uint8_t group_op, uint32_t k, std::mt19937& random) const {
    Descriptor d{};
    d.op = layout::kOpScoreSelect;
    d.format = spec_.record_format;
    d.layer_slot = static_cast<uint16_t>(random() % kSlots);
    d.first_head = static_cast<uint8_t>(random() % kHeads);
    d.heads = d.queries = 1;
    d.group = group;
    d.score_op = d.format == layout::kFormatBounds  ? layout::kScorePageBound
                 : d.format == layout::kFormatMeans ? layout::kScoreBlockMean
                 : group_op == layout::kGroupNone   ? layout::kScoreReluDot
                                                    : layout::kScoreDot;
    d.group_op = group_op;
    d.select_op = layout::kSelectTopK;
    d.flags = static_cast<uint8_t>(random() % 4);
    d.end = tokens();
    d.k = k;
    return d;
  }
  const Records& records() const { return records_; }

 private:
  layout::IndexSpec spec_;
  uint32_t pages_;
  Records records_;
  std::vector<float> keys_;
};

// A card of two channels with 64 words a bank.
MemoryDeviceOptions FewScores() {
  MemoryDeviceOptions options{
      .kind = "card-model", .name = "one", .device_options = {{"channels", "2"}, {"bank_words", "64"}}};
  options.max_operations = kOperations;
  options.max_tokens = 1 << 13;
  options.max_group = 8;
  return options;
}

TEST_CASE("memory devices select up to the largest k of the longest index that all of them have") {
  const LongIndex index(layout::kFormatCodes2, 16, 256);
  std::mt19937 random(1);
  std::vector<Query> queries;
  for (const auto& [group, group_op, k, k1] :
       {std::tuple(1, layout::kGroupMax, 1U, 0U), std::tuple(2, layout::kGroupMax, 8192U, 0U),
        std::tuple(1, layout::kGroupPlainMax, 16'383U, 0U), std::tuple(4, layout::kGroupMax, 16'384U, 0U),
        std::tuple(3, layout::kGroupPlainMax, 700U, 9001U), std::tuple(16, layout::kGroupMax, 5000U, 0U),
        std::tuple(2, layout::kGroupExp2Sum, 9000U, 0U), std::tuple(5, layout::kGroupNone, 12'000U, 0U)}) {
    Descriptor d = index.Scan(static_cast<uint8_t>(group), static_cast<uint8_t>(group_op), k, random);
    d.begin = random() % 2 * 77;
    d.k1 = k1;
    queries.push_back(MakeQuery(d, index.records(), random));
  }
  ForEachDevice([&](Bench& bench, const MemoryDeviceOptions&) {
    REQUIRE(bench.caps().max_k == 16'384);
    if (!Has(bench.caps().formats, layout::kFormatCodes2)) return;
    REQUIRE(bench.caps().max_tokens >= index.tokens());
    index.Store(bench);
    std::vector<Query> served;
    for (const Query& query : queries) {
      if (LackingField(query.d, bench.caps()) == SIZE_MAX) served.push_back(query);
    }
    REQUIRE(served.size() >= 3);
    CheckQueries(bench, served);
  });
}

TEST_CASE("memory devices serve groups as large as they say") {
  const LongIndex index(layout::kFormatCodes4, 32, 4);
  std::mt19937 random(2);
  std::vector<Query> queries;
  for (const uint8_t group : {17, 33, 64}) {
    for (const uint8_t group_op :
         {layout::kGroupMax, layout::kGroupPlainMax, layout::kGroupExp2Sum, layout::kGroupNone}) {
      queries.push_back(MakeQuery(index.Scan(group, group_op, 100, random), index.records(), random));
    }
  }
  for (MemoryDeviceOptions options : Devices()) {
    const std::string what = NameOf(options);
    CAPTURE(what);
    options.max_group = 64;
    options.max_tokens = index.tokens();
    Bench bench(options);
    if (!Has(bench.caps().formats, layout::kFormatCodes4)) continue;
    CHECK(bench.caps().max_group == 64);
    index.Store(bench);
    std::vector<Query> served;
    for (const Query& query : queries) {
      if (LackingField(query.d, bench.caps()) == SIZE_MAX) served.push_back(query);
    }
    REQUIRE_FALSE(served.empty());
    CheckQueries(bench, served);
  }
}

// A bank of a card of two channels holds the scores of 64 pages of a group of 64, of bounds and means of 512.
// More are scanned by the largest scores of pages, whatever k is. Sums of exponentials take both banks.
TEST_CASE("memory devices scan more tokens than a card has room for scores") {
  for (const uint32_t format :
       {layout::kFormatCodes2, layout::kFormatCodes8, layout::kFormatBounds, layout::kFormatMeans}) {
    const bool codes = layout::IsCodeFormat(format);
    const LongIndex index(format, 16, codes ? 70 : 530);
    std::mt19937 random(format);
    std::vector<Query> queries;
    const uint32_t most = format == layout::kFormatCodes2 ? 5 : 3;
    for (uint32_t n = 0; n < most + 2; ++n) {
      const bool sum = n >= most;
      Descriptor d =
          index.Scan(static_cast<uint8_t>(sum ? 64 : 60 + n),
                     sum          ? layout::kGroupExp2Sum
                     : n % 2 == 0 ? layout::kGroupMax
                                  : layout::kGroupPlainMax,
                     n < 2 ? 1 + static_cast<uint32_t>(random() % 32)
                           : 33 + static_cast<uint32_t>(random() % std::min(index.tokens(), 16'000U)),
                     random);
      if (!sum && (n == 2 || n == 3)) {
        d.select_op = layout::kSelectThreshold;
        d.threshold = n == 2 ? -600 : 100;
      }
      if (n == most + 1) {
        d.select_op = layout::kSelectThreshold;
        d.threshold = 20;
      }
      if (format == layout::kFormatCodes2 && n % 2 == 1) d.k1 = d.k + static_cast<uint32_t>(random() % 100);
      if (!codes && n == 0) d.flags |= layout::kFlagPages64;
      const uint32_t unit = layout::EntryTokens(format, d.flags);
      d.begin = static_cast<uint32_t>(random() % 100) / unit * unit;
      d.end -= static_cast<uint32_t>(random() % 100) / unit * unit;
      queries.push_back(MakeQuery(d, index.records(), random));
    }
    for (MemoryDeviceOptions options : Devices()) {
      if (options.kind == "late") continue;
      const std::string what = NameOf(options);
      CAPTURE(what);
      options.max_group = 64;
      options.max_tokens = index.tokens();
      Bench bench(options);
      REQUIRE(bench.caps().max_tokens >= index.tokens());
      index.Store(bench);
      std::vector<Query> asked = ShareOf(options, queries);
      CheckQueries(bench, asked);
    }
  }
}

// Scores of a card's bank are few here, so that short indexes are long scans for it: those by the largest
// term are answered for every k and k1.
TEST_CASE("scans of more scores than a card's bank holds are exact") {
  constexpr uint32_t kPages = 64;  // as many as a card lists
  Bench bench(FewScores());
  REQUIRE(bench.caps().max_tokens == kPages * kPageTokens);
  REQUIRE(bench.caps().cascade == 1);
  const LongIndex index(layout::kFormatCodes2, 64, kPages);
  index.Store(bench);
  std::mt19937 random(3);
  for (int n = 0; n < 60; ++n) {
    const auto group = static_cast<uint8_t>(1 + random() % 8);
    const uint8_t group_op = random() % 2 == 0 ? layout::kGroupMax : layout::kGroupPlainMax;
    const uint32_t most = n % 2 == 0 ? 100 : index.tokens() + 10;
    Descriptor d = index.Scan(group, group_op, 1 + static_cast<uint32_t>(random() % most), random);
    d.begin = static_cast<uint32_t>(random() % 200);
    d.end -= static_cast<uint32_t>(random() % 200);
    if (n % 4 < 2) d.k1 = d.k + static_cast<uint32_t>(random() % (n % 4 == 0 ? 50 : 5000));
    if (n % 8 == 7 || n % 8 == 3) {
      d.select_op = layout::kSelectThreshold;
      d.threshold = -1000;
    }
    REQUIRE(LackingField(d, bench.caps()) == SIZE_MAX);
    std::vector<Query> queries(1, MakeQuery(d, index.records(), random));
    CheckQueries(bench, queries);
  }
}

// The other scans take one bank or both.
TEST_CASE("scans of both banks of scores are exact, those of more are refused with a field") {
  Bench bench(FewScores());
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> cases;  // of a kind, by banks; 3: refused
  for (const uint32_t format : {layout::kFormatCodes2, layout::kFormatCodes8}) {
    const LongIndex index(format, 64, 64);
    index.Store(bench);
    std::mt19937 random(format);
    for (uint32_t n = 0; n < 90; ++n) {
      enum { kSum, kBoundedSum, kCascade, kRelu, kWeighted };
      const uint32_t kind = n % 5;
      if (kind == (format == layout::kFormatCodes2 ? kWeighted : kCascade)) continue;
      const auto group = static_cast<uint8_t>(kind == kWeighted ? 1 : 1 + random() % 8);
      Descriptor d = index.Scan(group, kind == kRelu ? layout::kGroupNone : layout::kGroupExp2Sum,
                                1 + static_cast<uint32_t>(random() % 3000), random);
      const uint32_t pages = 1 + static_cast<uint32_t>(random() % 60);
      d.begin = static_cast<uint32_t>(random() % 4) * kPageTokens + static_cast<uint32_t>(random() % 64);
      d.end = (d.begin / kPageTokens + pages) * kPageTokens - static_cast<uint32_t>(random() % 64);
      if (d.end < d.begin) d.end = d.begin + 1;
      if (kind == kBoundedSum || (kind == kRelu && random() % 2 == 0)) {
        d.select_op = layout::kSelectThreshold;
        d.threshold = kind == kBoundedSum ? static_cast<int32_t>(random() % 100) : -100;
      }
      if (kind == kCascade) d.k1 = d.k + static_cast<uint32_t>(random() % 1000);
      if (kind == kWeighted) {
        d.select_op = layout::kSelectWeightedSum;
        d.k = 0;
        d.flags = 0;
      }
      REQUIRE(LackingField(d, bench.caps()) == SIZE_MAX);
      std::vector<Query> queries(1, MakeQuery(d, index.records(), random));
      const uint32_t words = kind == kRelu ? 4 : 8 * ((group + 3U) / 4);
      const uint32_t rows = (pages + 1) / 2;
      const uint32_t banks = std::min(3U, (rows * words + 63) / 64);
      CAPTURE(format, kind, rows, words);
      ++cases[{kind, banks}];
      if (banks < 3) {
        CheckQueries(bench, queries);
        continue;
      }
      const Operation operation{d, bench.owner, queries[0].payload.data(), queries[0].result.data()};
      const layout::Completion done = bench.Run({&operation, 1})[0];
      REQUIRE(done.status == layout::kStatusUnsupported);
      REQUIRE(done.detail == offsetof(Descriptor, end));
    }
    REQUIRE(bench.Simple(layout::kOpFree, 0, 0).status == layout::kStatusOk);
  }
  CHECK(cases.size() == 5 * 3 - 1);  // both banks hold ranks of weighted ReLU of all tokens
}

// A card of two channels has words for 512 pages of one query a bank and lane, for 1,024 of weighted ReLU.
TEST_CASE("memory devices sum over more tokens than a bank of a card has room for") {
  const LongIndex index(layout::kFormatCodes8, 16, 2060);
  std::mt19937 random(9);
  std::vector<Query> queries;
  const auto ask = [&](uint8_t group_op, uint8_t select_op, uint32_t k, uint32_t pages) {
    Descriptor d = index.Scan(1, group_op, k, random);
    d.select_op = select_op;
    if (select_op == layout::kSelectWeightedSum) d.flags = 0;
    d.begin = 100;
    d.end = pages * kPageTokens - 3;
    queries.push_back(MakeQuery(d, index.records(), random));
  };
  ask(layout::kGroupNone, layout::kSelectTopK, 2000, 2060);
  ask(layout::kGroupExp2Sum, layout::kSelectTopK, 16'384, 2040);
  ask(layout::kGroupNone, layout::kSelectTopK, 9, 2060);
  // The simulation takes a minute for 2 million cycles.
  if (rtl_tests::Cases(1) > 1) ask(layout::kGroupExp2Sum, layout::kSelectWeightedSum, 0, 1040);
  for (MemoryDeviceOptions options : Devices()) {
    const std::map<std::string, std::string> given(options.device_options.begin(),
                                                   options.device_options.end());
    if (options.kind == "late") continue;
    if (given.contains("channels") && given.at("channels") != "2") continue;
    if (given.contains("seed") && given.at("seed") != "1") continue;
    const std::string what = NameOf(options);
    CAPTURE(what);
    options.max_tokens = index.tokens();
    Bench bench(options);
    REQUIRE(bench.caps().max_tokens >= index.tokens());
    index.Store(bench);
    std::vector<Query> asked = ShareOf(options, queries);
    CheckQueries(bench, asked);
  }
}

}  // namespace
}  // namespace mnemo::conformance
