#include "proto/layout/reference.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "proto/layout/numerics.h"
#include "proto/layout/quantise.h"

namespace mnemo::layout {
namespace {

RecordHeader HeaderOf(const uint8_t* record) {
  RecordHeader header;
  std::memcpy(&header, record, sizeof(header));
  return header;
}

QueryParam ParamOf(const uint8_t* query_block, uint32_t group, uint32_t dim, uint32_t g) {
  QueryParam param;
  std::memcpy(&param, query_block + QueryParamOffset(group, dim) + g * sizeof(param), sizeof(param));
  return param;
}

const int8_t* Codes(const uint8_t* bytes) { return reinterpret_cast<const int8_t*>(bytes); }

// Both arguments are int8_t* for a reason: GCC 12.2 with AVX-512 VNNI compiles `query[i] *
// static_cast<int8_t>(byte[i])` to a product of signed and unsigned bytes.
int32_t Dot(const int8_t* query, const int8_t* row, uint32_t dim) {
  int32_t sum = 0;
  for (uint32_t i = 0; i < dim; ++i) {
    sum += query[i] * row[i];
  }
  return sum;
}

// Scores of one query against the index.
class Scorer {
 public:
  Scorer(const IndexColumn& index, const int8_t* query, const QueryParam& param)
      : index_(index), at_(RecordSections(index.format, index.dim)), query_(query), param_(param) {}

  int32_t Token(uint32_t token, Stage stage) const {
    const uint8_t* record = index_.records[token / kPageTokens];
    const uint32_t t = token % kPageTokens;
    const RecordHeader header = HeaderOf(record);
    const int32_t base = Own(Dot(query_, Codes(record + at_.base), index_.dim), header.base_scale, 127);
    int32_t dot = 0;
    for (uint32_t i = 0; i < index_.dim; ++i) {
      const int32_t code = CodeAt({record, at_.bytes}, index_.format, index_.dim, t, i);
      dot += query_[i] * (stage == Stage::kFull ? code : code < 0 ? -1 : 1);
    }
    if (stage == Stage::kSign) {
      return AddScores(base, Own(dot, header.sign_scale, 1));
    }
    return AddScores(
        base, ScoreTerm(dot, record[at_.scales + t], header.top_octave,
                        DotShift(CodeMax(index_.format), index_.dim), param_.multiplier, param_.shift));
  }

  int32_t PageBound(uint32_t part) const {
    const uint8_t* record = index_.records[part / kPageParts];
    const uint32_t row = part % kPageParts;
    const int8_t* low = Codes(record + at_.rows + row * 2 * index_.dim);
    const int8_t* high = low + index_.dim;
    int32_t dot = 0;
    for (uint32_t i = 0; i < index_.dim; ++i) {
      dot += std::max(query_[i] * low[i], query_[i] * high[i]);
    }
    return Own(dot, HeaderOf(record).row_scales[row], 127);
  }

  int32_t BlockMean(uint32_t page, uint32_t row) const {
    const uint8_t* record = index_.records[page];
    return Own(Dot(query_, Codes(record + at_.rows + row * index_.dim), index_.dim),
               HeaderOf(record).row_scales[row], 127);
  }

  int32_t Entry(uint32_t score_op, uint32_t flags, Stage stage, uint32_t entry) const {
    const bool whole_pages = (flags & kFlagPages64) != 0;
    if (score_op == kScoreBlockMean) {
      return whole_pages ? BlockMean(entry, kPageParts) : BlockMean(entry / kPageParts, entry % kPageParts);
    }
    if (score_op != kScorePageBound) {
      return Token(entry, stage);
    }
    if (!whole_pages) {
      return PageBound(entry);
    }
    int32_t best = PageBound(entry * kPageParts);
    for (uint32_t part = 1; part < kPageParts; ++part) {
      best = std::max(best, PageBound(entry * kPageParts + part));
    }
    return best;
  }

 private:
  // Returns a term whose scale is not shared with others of its page.
  int32_t Own(int32_t dot, uint32_t scale, int32_t code_max) const {
    return ScoreTerm(dot, scale, scale >> 3, DotShift(code_max, index_.dim), param_.multiplier, param_.shift);
  }

  const IndexColumn& index_;
  RecordLayout at_;
  const int8_t* query_;
  QueryParam param_;
};

// Positions that satisfy the select operation's own condition, and of these the k best.
struct Chosen {
  // Ascending.
  std::vector<uint32_t> positions;
  uint32_t candidates = 0;
  bool cut = false;
};

Chosen Choose(const Descriptor& op, std::span<const int32_t> ranks) {
  Chosen chosen;
  std::vector<uint32_t> passed(ranks.size());
  std::iota(passed.begin(), passed.end(), 0U);
  if (op.select_op == kSelectThreshold) {
    uint64_t total = 0;
    if (op.group_op == kGroupExp2Sum) {
      for (const int32_t rank : ranks) {
        total += static_cast<uint32_t>(rank);
      }
    }
    std::erase_if(passed, [&](uint32_t j) {
      return op.group_op == kGroupExp2Sum
                 ? !ReachesShare(static_cast<uint32_t>(ranks[j]), total, static_cast<uint32_t>(op.threshold))
                 : ranks[j] < op.threshold;
    });
  }
  chosen.candidates = static_cast<uint32_t>(passed.size());
  chosen.cut = op.select_op == kSelectThreshold && passed.size() > op.k;
  std::vector<int32_t> passed_ranks;
  passed_ranks.reserve(passed.size());
  for (const uint32_t j : passed) {
    passed_ranks.push_back(ranks[j]);
  }
  for (const uint32_t n : TopK(passed_ranks, op.k)) {
    chosen.positions.push_back(passed[n]);
  }
  return chosen;
}

void WriteIds(const Descriptor& op, std::span<const uint32_t> ids, std::span<const int32_t> ranks,
              ResultHeader header, std::span<uint8_t> result) {
  header.count = static_cast<uint32_t>(ids.size());
  header.last_rank = ranks.empty() ? 0 : *std::min_element(ranks.begin(), ranks.end());
  std::memcpy(result.data(), &header, sizeof(header));
  std::vector<uint32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0U);
  if ((op.flags & kFlagByRank) != 0) {
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return ranks[a] > ranks[b]; });
  }
  for (size_t n = 0; n < order.size(); ++n) {
    std::memcpy(result.data() + sizeof(header) + 4 * n, &ids[order[n]], 4);
    if ((op.flags & kFlagRanks) != 0) {
      std::memcpy(result.data() + RanksOffset(op.k) + 4 * n, &ranks[order[n]], 4);
    }
  }
}

void WriteWeightedSum(const IndexColumn& index, std::span<const uint32_t> tokens,
                      std::span<const int32_t> ranks, std::span<uint8_t> result) {
  const RecordLayout at = RecordSections(index.format, index.dim);
  WeightedSumHeader header{};
  header.candidates = static_cast<uint32_t>(tokens.size());
  for (const uint32_t token : tokens) {
    const RecordHeader of = HeaderOf(index.records[token / kPageTokens]);
    header.top_octave = std::max<uint32_t>({header.top_octave, of.top_octave, uint32_t{of.base_scale} >> 3});
  }
  std::vector<int64_t> sum(index.dim);
  for (size_t j = 0; j < tokens.size(); ++j) {
    const uint8_t* record = index.records[tokens[j] / kPageTokens];
    const uint32_t t = tokens[j] % kPageTokens;
    const uint32_t weight = static_cast<uint32_t>(ranks[j]) >> 8;  // 65536 for the best
    header.count += weight != 0 ? 1 : 0;
    header.weight_total += weight;
    for (uint32_t i = 0; i < index.dim; ++i) {
      const int32_t base = AlignedValue(static_cast<int8_t>(record[at.base + i]), HeaderOf(record).base_scale,
                                        header.top_octave);
      const int32_t code = CodeAt({record, at.bytes}, index.format, index.dim, t, i);
      sum[i] += int64_t{weight} * (base + AlignedValue(code, record[at.scales + t], header.top_octave));
    }
  }
  std::memcpy(result.data(), &header, sizeof(header));
  std::memcpy(result.data() + sizeof(header), sum.data(), sum.size() * sizeof(int64_t));
}

template <typename T>
std::vector<T> Pick(std::span<const T> from, std::span<const uint32_t> positions) {
  std::vector<T> picked;
  picked.reserve(positions.size());
  for (const uint32_t at : positions) {
    picked.push_back(from[at]);
  }
  return picked;
}

}  // namespace

std::vector<int16_t> Scores(const IndexColumn& index, uint32_t score_op, uint32_t flags, Stage stage,
                            uint32_t group, const uint8_t* query_block, std::span<const uint32_t> entries) {
  std::vector<int16_t> scores;
  scores.reserve(group * entries.size());
  for (uint32_t g = 0; g < group; ++g) {
    const auto* query = reinterpret_cast<const int8_t*>(query_block) + size_t{g} * index.dim;
    const Scorer scorer(index, query, ParamOf(query_block, group, index.dim, g));
    for (const uint32_t entry : entries) {
      scores.push_back(static_cast<int16_t>(scorer.Entry(score_op, flags, stage, entry)));
    }
  }
  return scores;
}

std::vector<int32_t> Ranks(std::span<const int16_t> scores, uint32_t group, uint32_t group_op, uint32_t dim,
                           const uint8_t* query_block) {
  const size_t count = scores.size() / group;
  std::vector<int32_t> ranks(count, group_op == kGroupMax        ? kRankFloor
                                    : group_op == kGroupPlainMax ? kPlainRankFloor
                                                                 : 0);
  if (count == 0) {
    return ranks;
  }
  std::vector<int64_t> relu_sums(count);
  for (uint32_t g = 0; g < group; ++g) {
    const auto of_query = scores.subspan(g * count, count);
    const int32_t best = *std::max_element(of_query.begin(), of_query.end());
    const int32_t weight = ParamOf(query_block, group, dim, g).weight;
    for (size_t j = 0; j < count; ++j) {
      if (group_op == kGroupMax) {
        ranks[j] = std::max(ranks[j], MaxTerm(of_query[j], best));
      } else if (group_op == kGroupPlainMax) {
        ranks[j] = std::max(ranks[j], PlainMaxTerm(of_query[j]));
      } else if (group_op == kGroupExp2Sum) {
        ranks[j] += static_cast<int32_t>(Exp2Term(of_query[j], best));
      } else {
        relu_sums[j] += ReluTerm(of_query[j], weight);
        ranks[j] = static_cast<int32_t>(relu_sums[j] >> kReluRankShift);
      }
    }
  }
  return ranks;
}

std::vector<uint32_t> TopK(std::span<const int32_t> ranks, uint32_t k) {
  std::vector<uint32_t> best;
  if (k >= ranks.size()) {
    best.resize(ranks.size());
    std::iota(best.begin(), best.end(), 0U);
    return best;
  }
  const auto key = [](int32_t rank) {
    return static_cast<uint32_t>(rank) ^ 0x80000000U;
  };  // order of i32 as u32
  // The k-th best key, determined digit by digit from the top; `need` of the keys equal to it are taken.
  uint32_t last = 0;
  // Mask of the digits of `last` found so far.
  uint32_t known = 0;
  uint32_t need = k;
  for (const uint32_t shift : {20U, 8U, 0U}) {
    std::array<uint32_t, kRankBins> bins{};
    const uint32_t digit_mask = shift == 0 ? 0xFF : 0xFFF;
    for (const int32_t rank : ranks) {
      if ((key(rank) & known) == last) {
        ++bins[key(rank) >> shift & digit_mask];
      }
    }
    uint32_t digit = digit_mask;
    while (digit > 0 && bins[digit] < need) {
      need -= bins[digit--];
    }
    last |= digit << shift;
    known |= digit_mask << shift;
  }
  for (uint32_t j = 0; j < ranks.size() && best.size() < k; ++j) {
    if (key(ranks[j]) > last) {
      best.push_back(j);
    } else if (key(ranks[j]) == last && need > 0) {
      best.push_back(j);
      --need;
    }
  }
  return best;
}

void ScoreSelect(const Descriptor& op, const IndexColumn& index, const uint8_t* query_block,
                 std::span<uint8_t> result) {
  std::fill(result.begin(), result.end(), uint8_t{0});
  const uint32_t entry_tokens = EntryTokens(index.format, op.flags);
  std::vector<uint32_t> entries(op.end / entry_tokens - op.begin / entry_tokens);
  std::iota(entries.begin(), entries.end(), op.begin / entry_tokens);
  ResultHeader header{};
  if (op.select_op == kSelectLatest) {
    header.candidates = static_cast<uint32_t>(entries.size());
    const size_t count = std::min<size_t>(op.k, entries.size());
    WriteIds(op, std::span(entries).last(count), std::vector<int32_t>(count), header, result);
    return;
  }
  const auto ranks_of = [&](Stage stage) {
    const auto scores = Scores(index, op.score_op, op.flags, stage, op.group, query_block, entries);
    return Ranks(scores, op.group, op.group_op, index.dim, query_block);
  };
  if (op.k1 != 0) {
    entries = Pick<uint32_t>(entries, TopK(ranks_of(Stage::kSign), op.k1));
  }
  const std::vector<int32_t> ranks = ranks_of(Stage::kFull);
  if (op.select_op == kSelectWeightedSum) {
    WriteWeightedSum(index, entries, ranks, result);
    return;
  }
  const Chosen chosen = Choose(op, ranks);
  header.candidates = chosen.candidates;
  header.flags = chosen.cut ? kResultCut : 0;
  WriteIds(op, Pick<uint32_t>(entries, chosen.positions), Pick<int32_t>(ranks, chosen.positions), header,
           result);
}

}  // namespace mnemo::layout
