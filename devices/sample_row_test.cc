#include "devices/sample_row.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "devices/portable_math.h"

namespace mnemo::devices {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomLogits(int n, uint32_t seed, float scale = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> logits(static_cast<size_t>(n));
  for (float& x : logits) x = normal(random);
  return logits;
}

SampleResult Sample(const std::vector<float>& logits, const SamplingParams& params, SampleRow row = {}) {
  SampleScratch scratch;
  row.logits = logits.data();
  row.params = &params;
  return SampleOneRow(row, static_cast<int>(logits.size()), &scratch);
}

// The specification in double precision with full sorts: token id -> probability of each token that can be
// drawn.
std::map<int, double> Distribution(std::vector<float> logits, const SamplingParams& params,
                                   const SampleRow& row) {
  for (float& x : logits) x = std::isnan(x) ? -kInfinity : x;
  for (const TokenBias& b : row.bias) logits[static_cast<size_t>(b.id)] += b.bias;
  for (const TokenCount& c : row.counts) {
    float& x = logits[static_cast<size_t>(c.id)];
    x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
    if (c.in_output > 0) {
      x -= params.presence_penalty + params.frequency_penalty * static_cast<float>(c.in_output);
    }
  }
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < order.size()) {
    order.resize(static_cast<size_t>(params.top_k));
  }
  auto weight = [&](int id) {
    return std::exp((static_cast<double>(logits[static_cast<size_t>(id)]) -
                     static_cast<double>(logits[static_cast<size_t>(order[0])])) /
                    static_cast<double>(params.temperature));
  };
  double total = 0;
  for (int id : order) total += weight(id);
  std::map<int, double> kept;
  double sum = 0;
  for (int id : order) {
    if (sum >= static_cast<double>(params.top_p) * total) break;
    sum += weight(id);
    if (weight(id) >= static_cast<double>(params.min_p)) kept[id] = weight(id);
  }
  double mass = 0;
  for (const auto& [id, w] : kept) mass += w;
  for (auto& [id, w] : kept) w /= mass;
  return kept;
}

TEST_CASE("Philox 4x32-10 gives the published known answers") {
  using Words = std::array<uint32_t, 4>;
  CHECK(Philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform draws are in [0, 1), differ by seed and index, and are even") {
  CHECK(UniformDraw(1, 0) != UniformDraw(1, 1));
  CHECK(UniformDraw(1, 0) != UniformDraw(2, 0));
  CHECK(UniformDraw(1, 0) != UniformDraw(uint64_t{1} << 32, 0));
  CHECK(UniformDraw(0, 1) != UniformDraw(0, uint64_t{1} << 32));
  double sum = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    const double u = UniformDraw(7, i);
    REQUIRE((u >= 0 && u < 1));
    sum += u;
  }
  CHECK(sum / 20000 == Approx(0.5).margin(0.01));
}

TEST_CASE("portable exp, log and tanh are near the C library's") {
  for (float x = -87.2f; x < 88.7f; x += 0.0131f) {
    const double wanted = std::exp(static_cast<double>(x));
    REQUIRE(std::fabs(static_cast<double>(PortableExp(x)) / wanted - 1) < 2.5e-7);
  }
  CHECK(PortableExp(0.0f) == 1.0f);
  CHECK(PortableExp(-kInfinity) == 0.0f);
  CHECK(PortableExp(kInfinity) == kInfinity);
  CHECK(std::isnan(PortableExp(kNan)));
  for (double x = 1e-300; x < 1e300; x *= 1.7) {
    REQUIRE(std::fabs(PortableLog(x) - std::log(x)) <= 4e-16 * std::fabs(std::log(x)) + 2e-16);
  }
  for (float x = -12; x < 12; x += 0.0037f) {
    REQUIRE(std::fabs(static_cast<double>(PortableTanh(x)) - std::tanh(static_cast<double>(x))) < 3e-7);
  }
}

TEST_CASE("greedy takes the largest, ties to the lower id, at every length") {
  SamplingParams params;
  params.temperature = 0;
  for (int n : {1, 2, 15, 16, 17, 1023, 1024, 1025, 5000}) {
    std::vector<float> logits = RandomLogits(n, static_cast<uint32_t>(n));
    CHECK(Sample(logits, params).id == std::max_element(logits.begin(), logits.end()) - logits.begin());
    logits[static_cast<size_t>(n - 1)] = 100;
    CHECK(Sample(logits, params).id == n - 1);
    logits[static_cast<size_t>(n / 2)] = 100;
    CHECK(Sample(logits, params).id == n / 2);
    logits[0] = kNan;
    if (n > 2) CHECK(Sample(logits, params).id == n / 2);
    logits[0] = kInfinity;
    CHECK(Sample(logits, params).id == 0);
  }
}

TEST_CASE("logits without a number still give a valid id") {
  for (float bad : {kNan, -kInfinity}) {
    const std::vector<float> logits(100, bad);
    for (float temperature : {0.0f, 1.0f}) {
      SamplingParams params;
      params.temperature = temperature;
      params.top_p = 0.9f;
      SampleRow row;
      row.alternatives = 3;
      const SampleResult result = Sample(logits, params, row);
      CHECK(result.id == 0);
      CHECK(result.logprob == -kInfinity);
      CHECK(result.alternative_count == 0);
    }
  }
  std::vector<float> logits(100, kNan);
  logits[37] = kInfinity;
  SamplingParams params;
  for (float temperature : {0.0f, 1e-40f, 0.01f, 5.0f}) {
    params.temperature = temperature;
    SampleRow row;
    row.alternatives = 3;
    const SampleResult result = Sample(logits, params, row);
    CHECK(result.id == 37);
    CHECK(result.logprob == 0.0f);
    CHECK(result.rank == 0);
  }
}

TEST_CASE("draws follow the distribution that the parameters ask for") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 60; ++trial) {
    const int n = trial % 3 == 0 ? 20 : 700;
    const std::vector<float> logits =
        RandomLogits(n, static_cast<uint32_t>(trial), trial % 2 == 0 ? 3.0f : 0.5f);
    SamplingParams params;
    params.temperature = 0.2f + static_cast<float>(random() % 100) / 50.0f;
    if (random() % 2 == 0) params.top_k = 1 + static_cast<int>(random() % 50);
    if (random() % 2 == 0) params.top_p = 0.05f + static_cast<float>(random() % 90) / 100.0f;
    if (random() % 2 == 0) params.min_p = static_cast<float>(random() % 100) / 400.0f;
    std::vector<TokenCount> counts;
    std::vector<TokenBias> bias;
    if (random() % 2 == 0) {
      params.repetition_penalty = 1.3f;
      params.presence_penalty = 0.5f;
      params.frequency_penalty = 0.25f;
      for (int id = 0; id < 10; ++id) counts.push_back({id, id % 4});
      bias = {{3, 4.0f}, {11, -100.0f}};
    }
    SampleRow row;
    row.counts = counts;
    row.bias = bias;
    const std::map<int, double> wanted = Distribution(logits, params, row);
    constexpr int kDraws = 3000;
    std::map<int, int> got;
    for (int i = 0; i < kDraws; ++i) {
      row.index = static_cast<uint64_t>(i);
      params.seed = static_cast<uint64_t>(trial);
      ++got[Sample(logits, params, row).id];
    }
    INFO("trial " << trial);
    for (const auto& [id, times] : got) REQUIRE(wanted.count(id) == 1);
    for (const auto& [id, probability] : wanted) {
      // Five standard deviations of a binomial count, and one for rounding.
      const double deviation = std::sqrt(kDraws * probability * (1 - probability));
      REQUIRE(std::fabs(got[id] - kDraws * probability) < 5 * deviation + 1);
    }
  }
}

TEST_CASE("the kept set is the smallest that reaches top_p, also when most of a large vocabulary is in it") {
  const std::vector<float> logits = RandomLogits(20000, 9, 0.1f);
  SamplingParams params;
  params.top_p = 0.95f;
  const std::map<int, double> wanted = Distribution(logits, params, {});
  REQUIRE(wanted.size() > 10000);
  for (uint64_t i = 0; i < 50; ++i) {
    SampleRow row;
    row.index = i;
    REQUIRE(wanted.count(Sample(logits, params, row).id) == 1);
  }
}

TEST_CASE("ties at the cut of top_k stay with the lower ids") {
  const std::vector<float> logits(3000, 1.0f);
  SamplingParams params;
  params.top_k = 5;
  std::map<int, int> got;
  for (uint64_t i = 0; i < 300; ++i) {
    SampleRow row;
    row.index = i;
    ++got[Sample(logits, params, row).id];
  }
  CHECK(got.size() == 5);
  CHECK(got.rbegin()->first == 4);
}

TEST_CASE("greedy sees bias and penalties, logprobs do not") {
  std::vector<float> logits = {1.0f, 2.0f, 3.0f, -1.0f};
  SamplingParams params;
  params.temperature = 0;
  const std::vector<TokenBias> bias = {{3, 10.0f}};
  SampleRow row;
  row.bias = bias;
  row.alternatives = 2;
  const SampleResult result = Sample(logits, params, row);
  CHECK(result.id == 3);
  CHECK(result.rank == 3);
  const double log_sum = std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0) + std::exp(-1.0));
  CHECK(static_cast<double>(result.logprob) == Approx(-1.0 - log_sum).margin(1e-6));
  REQUIRE(result.alternative_count == 2);
  CHECK(result.alternative_ids[0] == 2);
  CHECK(static_cast<double>(result.alternative_logprobs[1]) == Approx(2.0 - log_sum).margin(1e-6));

  params.repetition_penalty = 4.0f;
  const std::vector<TokenCount> counts = {{2, 0}};
  SampleRow penalised;
  penalised.counts = counts;
  CHECK(Sample(logits, params, penalised).id == 1);
}

TEST_CASE("a forced id is described by the raw logits") {
  const std::vector<float> logits = {0.5f, 2.0f, 2.0f, kNan, 2.0f};
  SamplingParams params;
  SampleRow row;
  row.forced_id = 4;
  row.alternatives = 20;
  const SampleResult result = Sample(logits, params, row);
  CHECK(result.id == 4);
  CHECK(result.rank == 2);
  // The entry without a number is left out.
  REQUIRE(result.alternative_count == 4);
  CHECK(result.alternative_ids[0] == 1);
  CHECK(result.alternative_ids[1] == 2);
  CHECK(result.alternative_ids[2] == 4);
  CHECK(result.alternative_ids[3] == 0);
  row.forced_id = 3;
  CHECK(Sample(logits, params, row).logprob == -kInfinity);
}

TEST_CASE("the scratch memory is not grown once it was sized") {
  constexpr int kVocabulary = 50000;
  SampleScratch scratch;
  scratch.Reserve(kVocabulary);
  const void* before[] = {scratch.logits.data(), scratch.weights.data(), scratch.block_sums.data(),
                          scratch.candidates.data()};
  std::vector<float> ascending(kVocabulary);
  std::iota(ascending.begin(), ascending.end(), -25000.0f);
  for (const std::vector<float>& logits : {RandomLogits(kVocabulary, 3, 0.01f), ascending}) {
    for (int top_k : {0, 1, 20, 49999}) {
      for (float top_p : {0.5f, 0.999f, 1.0f}) {
        SamplingParams params;
        params.top_k = top_k;
        params.top_p = top_p;
        params.min_p = 1e-9f;
        SampleRow row;
        row.logits = logits.data();
        row.params = &params;
        row.alternatives = 20;
        SampleOneRow(row, kVocabulary, &scratch);
      }
    }
  }
  const void* after[] = {scratch.logits.data(), scratch.weights.data(), scratch.block_sums.data(),
                         scratch.candidates.data()};
  for (int i = 0; i < 4; ++i) CHECK(before[i] == after[i]);
}

}  // namespace
}  // namespace mnemo::devices
