#include "devices/sample_row.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "devices/base/status.h"
#include "devices/portable_math.h"

namespace mnemo::devices {
namespace {

using Candidate = SampleScratch::Candidate;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Independent maxima or counts, so that the loop is vectorised.
constexpr int kLanes = 16;
// Elements per entry of SampleScratch::block_sums.
constexpr int kSumBlock = 256;
constexpr int kArgMaxBlock = 1024;

// Maps NaN to -inf, and infinity to the largest finite number, so that differences of logits stay numbers.
float Clean(float x) {
  const float finite = x > std::numeric_limits<float>::max() ? std::numeric_limits<float>::max() : x;
  return finite == finite ? finite : -kInfinity;
}

void CleanCopy(const float* x, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = Clean(x[i]);
}

float Max(const float* x, int n) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -kInfinity;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  }
  float best = -kInfinity;
  for (float lane : lanes) best = lane > best ? lane : best;
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

// Order by rank: the larger logit first, ties to the lower id.
bool Ahead(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Selects the first k by rank among x[0..n) that are above -inf (fewer when there are fewer), in no order.
// One pass over x suffices: a value not above the current k-th best cannot qualify, nor can a later equal
// one.
void SelectTop(const float* x, int n, int k, std::vector<Candidate>* out) {
  out->clear();
  const size_t keep = static_cast<size_t>(k);
  const size_t limit = std::min(keep + std::max(keep, size_t{256}), static_cast<size_t>(n)) + kLanes;
  float threshold = -kInfinity;
  auto cut = [&] {
    if (out->size() <= keep) return;
    std::nth_element(out->begin(), out->begin() + (k - 1), out->end(), Ahead);
    out->resize(keep);
    threshold = (*out)[keep - 1].logit;
  };
  for (int i = 0; i < n; i += kLanes) {
    const int end = std::min(n, i + kLanes);
    if (end - i == kLanes) {
      int hits = 0;
      for (int j = 0; j < kLanes; ++j) hits += x[i + j] > threshold ? 1 : 0;
      if (hits == 0) continue;
    }
    for (int j = i; j < end; ++j) {
      if (x[j] > threshold) out->push_back({x[j], j});
    }
    if (out->size() + kLanes > limit) cut();
  }
  cut();
}

// Maps a logit to exp((logit - max) / temperature): proportional to its probability, 1 for the most likely
// token.
struct WeightScale {
  float max = 0;
  float inverse_temperature = 1;

  float Distance(float logit) const { return (max - logit) * inverse_temperature; }
  float Weight(float logit) const { return PortableExp(-Distance(logit)); }
};

// Writes the weights of all tokens into scratch->weights and block_sums; returns their sum, in one fixed
// order.
double WeighAll(const float* logits, int n, const WeightScale& scale, SampleScratch* scratch) {
  float* weights = scratch->weights.data();
  scratch->block_sums.clear();
  double total = 0;
  for (int begin = 0; begin < n; begin += kSumBlock) {
    const int end = std::min(n, begin + kSumBlock);
    for (int i = begin; i < end; ++i) weights[i] = scale.Weight(logits[i]);
    double lanes[8] = {};
    int i = begin;
    for (; i + 8 <= end; i += 8) {
      for (int j = 0; j < 8; ++j) lanes[j] += static_cast<double>(weights[i + j]);
    }
    double sum = 0;
    for (double lane : lanes) sum += lane;
    for (; i < end; ++i) sum += static_cast<double>(weights[i]);
    scratch->block_sums.push_back(sum);
    total += sum;
  }
  return total;
}

// Returns the token at which the running sum of weights, ids ascending, passes `target`.
int32_t DrawFromAll(const SampleScratch& scratch, int n, double target) {
  double sum = 0;
  size_t block = 0;
  while (block + 1 < scratch.block_sums.size() && sum + scratch.block_sums[block] <= target) {
    sum += scratch.block_sums[block++];
  }
  // A sum in another order can differ in the last bits. In that case the last token with a nonzero weight is
  // taken.
  auto walk = [&](int begin, int end) {
    int32_t last = -1;
    for (int i = begin; i < end; ++i) {
      if (scratch.weights[static_cast<size_t>(i)] <= 0) continue;
      last = i;
      sum += static_cast<double>(scratch.weights[static_cast<size_t>(i)]);
      if (sum > target) break;
    }
    return last;
  };
  const int begin = static_cast<int>(block) * kSumBlock;
  const int32_t id = walk(begin, std::min(n, begin + kSumBlock));
  if (id >= 0) return id;
  return walk(0, begin);
}

void ApplyBiasAndPenalties(const SampleRow& row, int vocabulary, float* logits) {
  const SamplingParams& params = *row.params;
  for (const TokenBias& bias : row.bias) {
    MNEMO_CHECK(bias.id >= 0 && bias.id < vocabulary);
    logits[bias.id] = Clean(logits[bias.id] + bias.bias);
  }
  for (const TokenCount& count : row.counts) {
    MNEMO_CHECK(count.id >= 0 && count.id < vocabulary);
    float x = logits[count.id];
    x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
    if (count.in_output > 0) {
      x -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count.in_output);
    }
    logits[count.id] = Clean(x);
  }
}

void ApplyTopK(const float* logits, int vocabulary, int top_k, SampleScratch* scratch) {
  SelectTop(logits, vocabulary, top_k, &scratch->candidates);
  std::sort(scratch->candidates.begin(), scratch->candidates.end(), Ahead);
}

// Keeps the shortest prefix of candidates [begin, end), sorted by rank, whose weights bring `sum` to
// `wanted`.
void CutByMass(std::vector<Candidate>* candidates, size_t begin, const WeightScale& scale, double sum,
               double wanted) {
  for (size_t i = begin; i < candidates->size(); ++i) {
    sum += static_cast<double>(scale.Weight((*candidates)[i].logit));
    if (sum >= wanted) {
      candidates->resize(i + 1);
      return;
    }
  }
}

// Buckets of tokens by distance below the largest logit, each about 3 % wide: 32 for each power of two from
// 2^-10 to 2^7, where weights vanish. Unlike the weight, the distance orders tokens exactly as their logits
// do.
constexpr int kBuckets = 17 * 32;

int BucketOf(float distance) {
  const int bits = std::bit_cast<int32_t>(distance) >> 18;
  return std::clamp(bits - ((127 - 10) << 5), 0, kBuckets - 1);
}

// Sets the candidates to the smallest set of most likely tokens whose weights reach `wanted`. Every bucket
// but the last belongs to the set as a whole, so only the last one is sorted. Expects WeighAll's weights.
void ApplyTopPToAll(const float* logits, int vocabulary, const WeightScale& scale, double wanted,
                    SampleScratch* scratch) {
  std::array<double, kBuckets> mass = {};
  const float* weights = scratch->weights.data();
  for (int i = 0; i < vocabulary; ++i) {
    mass[static_cast<size_t>(BucketOf(scale.Distance(logits[i])))] += static_cast<double>(weights[i]);
  }
  double sum = 0;
  int last = 0;
  while (last < kBuckets - 1 && sum + mass[static_cast<size_t>(last)] < wanted) {
    sum += mass[static_cast<size_t>(last++)];
  }
  std::vector<Candidate>* candidates = &scratch->candidates;
  candidates->clear();
  for (int i = 0; i < vocabulary; ++i) {
    if (weights[i] > 0 && BucketOf(scale.Distance(logits[i])) < last) candidates->push_back({logits[i], i});
  }
  const size_t whole = candidates->size();
  for (int i = 0; i < vocabulary; ++i) {
    if (weights[i] > 0 && BucketOf(scale.Distance(logits[i])) == last) candidates->push_back({logits[i], i});
  }
  std::sort(candidates->begin() + static_cast<std::ptrdiff_t>(whole), candidates->end(), Ahead);
  CutByMass(candidates, whole, scale, sum, wanted);
}

int32_t DrawFromCandidates(const std::vector<Candidate>& candidates, const WeightScale& scale,
                           double uniform) {
  double total = 0;
  for (const Candidate& c : candidates) total += static_cast<double>(scale.Weight(c.logit));
  const double target = uniform * total;
  double sum = 0;
  int32_t last = candidates.front().id;
  for (const Candidate& c : candidates) {
    const float weight = scale.Weight(c.logit);
    if (weight <= 0) continue;
    last = c.id;
    sum += static_cast<double>(weight);
    if (sum > target) break;
  }
  return last;
}

int32_t Draw(const SampleRow& row, const float* logits, int vocabulary, SampleScratch* scratch) {
  const SamplingParams& params = *row.params;
  const float max = Max(logits, vocabulary);
  if (max == -kInfinity) return 0;
  const WeightScale scale{max, std::min(1.0f / params.temperature, std::numeric_limits<float>::max())};
  const double uniform = UniformDraw(params.seed, row.index);
  const auto top_p = static_cast<double>(params.top_p);
  std::vector<Candidate>* candidates = &scratch->candidates;
  if (params.top_k > 0 && params.top_k < vocabulary) {
    ApplyTopK(logits, vocabulary, params.top_k, scratch);
    if (top_p < 1) {
      double total = 0;
      for (const Candidate& c : *candidates) total += static_cast<double>(scale.Weight(c.logit));
      CutByMass(candidates, 0, scale, 0, top_p * total);
    }
  } else {
    const double total = WeighAll(logits, vocabulary, scale, scratch);
    if (top_p >= 1 && params.min_p <= 0) return DrawFromAll(*scratch, vocabulary, uniform * total);
    if (top_p < 1) {
      ApplyTopPToAll(logits, vocabulary, scale, top_p * total, scratch);
    } else {
      candidates->clear();
      for (int i = 0; i < vocabulary; ++i) {
        if (scratch->weights[static_cast<size_t>(i)] >= params.min_p) candidates->push_back({logits[i], i});
      }
    }
  }
  // The most likely token has weight 1 and is always kept.
  if (params.min_p > 0) {
    std::erase_if(*candidates, [&](const Candidate& c) { return scale.Weight(c.logit) < params.min_p; });
  }
  return DrawFromCandidates(*candidates, scale, uniform);
}

int32_t Choose(const SampleRow& row, int vocabulary, SampleScratch* scratch) {
  const SamplingParams& params = *row.params;
  const bool penalties = params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                         params.frequency_penalty != 0.0f;
  const bool changed = !row.bias.empty() || (penalties && !row.counts.empty());
  const bool greedy = params.temperature <= 0.0f;
  if (greedy && !changed) return ArgMax(row.logits, vocabulary);
  float* logits = scratch->logits.data();
  CleanCopy(row.logits, vocabulary, logits);
  if (changed) {
    SampleRow applied = row;
    if (!penalties) applied.counts = {};
    ApplyBiasAndPenalties(applied, vocabulary, logits);
  }
  return greedy ? ArgMax(logits, vocabulary) : Draw(row, logits, vocabulary, scratch);
}

void DescribeRaw(const SampleRow& row, int vocabulary, SampleScratch* scratch, SampleResult* result) {
  float* logits = scratch->logits.data();
  CleanCopy(row.logits, vocabulary, logits);
  const float max = Max(logits, vocabulary);
  const float chosen = logits[result->id];
  int32_t rank = 0;
  for (int i = 0; i < vocabulary; ++i) rank += logits[i] > chosen ? 1 : 0;
  for (int i = 0; i < result->id; ++i) rank += logits[i] == chosen ? 1 : 0;
  result->rank = rank;
  if (max == -kInfinity) {
    result->logprob = -kInfinity;
    return;
  }
  const double log_sum = PortableLog(WeighAll(logits, vocabulary, WeightScale{max, 1.0f}, scratch));
  auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(max) - log_sum);
  };
  result->logprob = logprob(chosen);
  if (row.alternatives == 0) return;
  ApplyTopK(logits, vocabulary, std::min({row.alternatives, kMaxAlternatives, vocabulary}), scratch);
  result->alternative_count = static_cast<int32_t>(scratch->candidates.size());
  for (size_t i = 0; i < scratch->candidates.size(); ++i) {
    result->alternative_ids[i] = scratch->candidates[i].id;
    result->alternative_logprobs[i] = logprob(scratch->candidates[i].logit);
  }
}

}  // namespace

void SampleScratch::Reserve(int vocabulary) {
  const size_t n = static_cast<size_t>(vocabulary);
  if (logits.size() >= n) return;
  logits.resize(n);
  weights.resize(n);
  block_sums.reserve(n / kSumBlock + 1);
  candidates.reserve(n + kLanes);
}

int32_t ArgMax(const float* x, int n) {
  float best = -kInfinity;
  int best_begin = 0;
  for (int begin = 0; begin < n; begin += kArgMaxBlock) {
    const float block = Max(x + begin, std::min(kArgMaxBlock, n - begin));
    if (block > best) {
      best = block;
      best_begin = begin;
    }
  }
  if (best == -kInfinity) return 0;
  int32_t i = best_begin;
  while (x[i] != best) ++i;
  return i;
}

SampleResult SampleOneRow(const SampleRow& row, int vocabulary, SampleScratch* scratch) {
  MNEMO_CHECK(vocabulary >= 1 && row.forced_id < vocabulary);
  scratch->Reserve(vocabulary);
  SampleResult result;
  result.id = row.forced_id >= 0 ? row.forced_id : Choose(row, vocabulary, scratch);
  if (row.alternatives >= 0) DescribeRaw(row, vocabulary, scratch, &result);
  return result;
}

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

double UniformDraw(uint64_t seed, uint64_t index) {
  const std::array<uint32_t, 4> bits =
      Philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t word = (uint64_t{bits[1]} << 32) | bits[0];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace mnemo::devices
