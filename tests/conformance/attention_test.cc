// Rotary embedding, KV cache and attention against double precision.
#include <algorithm>
#include <cmath>
#include <span>

#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

double Stored(float value, KvType type) {
  switch (type) {
    case KvType::kF32:
      return static_cast<double>(value);
    case KvType::kF16:
      return static_cast<double>(HalfToFloat(FloatToHalf(value)));
    case KvType::kBF16:
      return static_cast<double>(Bfloat16ToFloat(FloatToBfloat16(value)));
    case KvType::kQ8:
      break;  // read back: its step depends on the other elements
  }
  return 0;
}

// Relative gap between neighbours of the stored type: the effect of one rounding the other way.
double StoredStep(KvType type) {
  return type == KvType::kF32 ? 0x1p-23 : type == KvType::kF16 ? 0x1p-10 : 0x1p-7;
}

struct Case {
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 64;
  int rotary_dims = 64;
  RotaryStyle style = RotaryStyle::kInterleaved;
  bool qk_norm = false;
  bool turn = true;  // false: cosine 1, sine 0, so that keys are stored as they are
  int layers = 2;
  int layer = 1;
  int window = 0;
  int positions = 1;
  int query_begin = 0;  // first position with attention
};

// The oracle's form of one head: norm, then rotation.
std::vector<double> Prepare(const Case& c, const float* x, const float* norm, const float* cos_sin) {
  std::vector<double> y(x, x + c.head_dim);
  if (norm != nullptr) y = NormOracle(x, norm, c.head_dim, 1e-6f);
  const int pairs = c.rotary_dims / 2;
  for (int i = 0; i < pairs; ++i) {
    const bool halves = c.style == RotaryStyle::kHalves;
    const auto a = static_cast<size_t>(halves ? i : 2 * i);
    const auto b = static_cast<size_t>(halves ? i + pairs : 2 * i + 1);
    const double cosine = static_cast<double>(cos_sin[2 * i]), sine = static_cast<double>(cos_sin[2 * i + 1]);
    const double first = y[a] * cosine - y[b] * sine;
    y[b] = y[a] * sine + y[b] * cosine;
    y[a] = first;
  }
  return y;
}

void CheckAttention(Bench& bench, const Case& c, Random* random) {
  Device* device = bench.device.get();
  const KvType kv_type = device->info().kv_type;
  const int rows = c.positions;
  const int group = c.heads / c.kv_heads;
  const size_t q_size = static_cast<size_t>(rows * c.heads * c.head_dim);
  const size_t kv_size = static_cast<size_t>(rows * c.kv_heads * c.head_dim);
  const std::vector<float> q = Normal(random, q_size);
  const std::vector<float> k = Normal(random, kv_size);
  const std::vector<float> v = Normal(random, kv_size);
  std::vector<float> cos_sin;
  for (int i = 0; i < rows * c.rotary_dims / 2; ++i) {
    const double angle = UniformInt(random, 0, 1000000) * 1e-5;
    cos_sin.push_back(c.turn ? static_cast<float>(std::cos(angle)) : 1.0f);
    cos_sin.push_back(c.turn ? static_cast<float>(std::sin(angle)) : 0.0f);
  }
  const Tensor q_norm = RandomTensor(random, "q_norm", TensorRole::kVector, TensorType::kF32, 1, c.head_dim);
  const Tensor k_norm = RandomTensor(random, "k_norm", TensorRole::kVector, TensorType::kF32, 1, c.head_dim);
  const Weights weights(*device, {&q_norm, &k_norm});

  // Pages in random order in a pool with some to spare.
  const int pages_used = (rows + kPageTokens - 1) / kPageTokens;
  const KvCacheShape shape{c.layers, c.kv_heads, c.head_dim, pages_used + 3, kv_type};
  auto cache = device->CreateKvCache(shape);
  REQUIRE(cache.ok());
  CHECK((*cache)->shape().pages == shape.pages);
  std::vector<int32_t> pages;
  for (int i = 0; i < shape.pages; ++i) pages.push_back(i);
  std::shuffle(pages.begin(), pages.end(), *random);
  std::vector<int64_t> slots;
  for (int p = 0; p < rows; ++p) {
    slots.push_back(int64_t{pages[static_cast<size_t>(p / kPageTokens)]} * kPageTokens + p % kPageTokens);
  }

  REQUIRE(device->Reserve(rows, c.heads * c.head_dim, c.heads).ok());
  const Array q_array(device, q), k_array(device, k), v_array(device, v), cs_array(device, cos_sin);
  const Array out(device, q_size);
  RotaryStoreOp store;
  store.q = q_array.data();
  store.k = k_array.data();
  store.v = v_array.data();
  store.rows = rows;
  store.heads = c.heads;
  store.kv_heads = c.kv_heads;
  store.head_dim = c.head_dim;
  store.q_norm = c.qk_norm ? weights["q_norm"] : nullptr;
  store.k_norm = c.qk_norm ? weights["k_norm"] : nullptr;
  store.norm_eps = 1e-6f;
  store.style = c.style;
  store.rotary_dims = c.rotary_dims;
  store.cos_sin = cs_array.data();
  store.cache = cache->get();
  store.layer = c.layer;
  store.slots = slots.data();

  // Pages that no query's window reaches have been given back.
  std::vector<int32_t> table(pages.begin(), pages.begin() + pages_used);
  const int oldest = c.window > 0 ? std::max(0, c.query_begin - c.window + 1) : 0;
  for (int i = 0; i < oldest / kPageTokens; ++i) table[static_cast<size_t>(i)] = -1;
  const int queries = rows - c.query_begin;
  const AttentionSequence sequence{c.query_begin, queries, c.query_begin, table.data()};
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  const AttentionOp attend{q_array.data(), out.data(), cache->get(), c.layer,  c.heads,
                           c.kv_heads,     c.head_dim, scale,        c.window, {&sequence, 1}};
  const std::vector<Op> ops = {store, attend};
  device->Run(ops);

  // The oracle: rotated queries, stored keys and values.
  const float* q_norm_values = c.qk_norm ? q_norm.values.data() : nullptr;
  const float* k_norm_values = c.qk_norm ? k_norm.values.data() : nullptr;
  std::vector<double> keys(kv_size), values(kv_size);
  double largest_value = 0;
  for (int p = 0; p < rows; ++p) {
    for (int h = 0; h < c.kv_heads; ++h) {
      const size_t at = static_cast<size_t>((p * c.kv_heads + h) * c.head_dim);
      const std::vector<double> key =
          Prepare(c, k.data() + at, k_norm_values, cos_sin.data() + p * c.rotary_dims);
      for (size_t d = 0; d < key.size(); ++d) {
        keys[at + d] = bench.bounds.fixed_point_keys ? key[d] : Stored(static_cast<float>(key[d]), kv_type);
        values[at + d] = Stored(v[at + d], kv_type);
      }
      if (kv_type == KvType::kQ8) {
        std::vector<float> stored_key(key.size()), stored_value(key.size());
        (*cache)->ReadKv(c.layer, h, pages[static_cast<size_t>(p / kPageTokens)], p % kPageTokens,
                         stored_key.data(), stored_value.data());
        const std::vector<double> rotated = Rotated(key), stored_rotated = Rotated(stored_key);
        const double key_step = LargestOf(rotated) * kQ8Step;
        const double value_step = LargestOf(std::span(v).subspan(at, key.size())) * kQ8Step;
        for (size_t d = 0; d < key.size(); ++d) {
          REQUIRE(std::fabs(stored_rotated[d] - rotated[d]) <= 0.51 * key_step);
          REQUIRE(std::fabs(stored_value[d] - v[at + d]) <= 0.51 * value_step);
          keys[at + d] = static_cast<double>(stored_key[d]);
          values[at + d] = static_cast<double>(stored_value[d]);
        }
      }
      largest_value = std::max(largest_value, LargestOf(std::span(values).subspan(at, key.size())));
    }
  }
  const std::vector<float> got_q = q_array.Get();
  const std::vector<float> got = out.Get();
  double worst_q = 0, worst = 0;
  for (int p = 0; p < rows; ++p) {
    for (int h = 0; h < c.heads; ++h) {
      const size_t at = static_cast<size_t>((p * c.heads + h) * c.head_dim);
      const std::vector<double> query =
          Prepare(c, q.data() + at, q_norm_values, cos_sin.data() + p * c.rotary_dims);
      for (size_t d = 0; d < query.size(); ++d) {
        worst_q = std::max(worst_q, std::fabs(static_cast<double>(got_q[at + d]) - query[d]));
      }
      if (p < c.query_begin) continue;
      const int first = c.window > 0 ? std::max(0, p - c.window + 1) : 0;
      std::vector<double> scores;
      double largest = -1e300;
      for (int t = first; t <= p; ++t) {
        const size_t key = static_cast<size_t>((t * c.kv_heads + h / group) * c.head_dim);
        double score = 0;
        for (size_t d = 0; d < query.size(); ++d) score += query[d] * keys[key + d];
        scores.push_back(score * static_cast<double>(scale));
        largest = std::max(largest, scores.back());
      }
      double sum = 0;
      std::vector<double> wanted(query.size());
      for (int t = first; t <= p; ++t) {
        const double weight = std::exp(scores[static_cast<size_t>(t - first)] - largest);
        const size_t value = static_cast<size_t>((t * c.kv_heads + h / group) * c.head_dim);
        sum += weight;
        for (size_t d = 0; d < query.size(); ++d) wanted[d] += weight * values[value + d];
      }
      for (size_t d = 0; d < query.size(); ++d) {
        worst = std::max(worst, std::fabs(static_cast<double>(got[at + d]) - wanted[d] / sum));
      }
    }
  }
  CHECK(worst_q < 3e-6 * 6);
  // A turned key lies between two stored numbers, and the last bit of float32 may decide which: a few in a
  // thousand go the other way, by one step.
  double key_slack = c.turn || c.qk_norm ? 0.2 * StoredStep(kv_type) : 0;
  // Errors of half a step in each element of key and query add up like noise, and the scale of scores takes
  // the root of their number out again.
  if (bench.bounds.fixed_point_keys) key_slack = 1.5 * std::sqrt(c.head_dim * 0x1p-31);
  CHECK(worst < (bench.bounds.attention + key_slack) * largest_value);
}

TEST_CASE("attention over every head size, group and number of positions") {
  EachKvBench([](Bench& bench) {
    Random random(7);
    for (int head_dim : {16, 64, 80, 128, 256}) {
      for (int group = 1; group <= 8; ++group) {
        Case c;
        c.head_dim = head_dim;
        c.kv_heads = UniformInt(&random, 1, 2);
        c.heads = c.kv_heads * group;
        c.rotary_dims = head_dim;
        c.turn = false;
        c.positions = UniformInt(&random, 1, 150);
        c.query_begin = std::max(0, c.positions - UniformInt(&random, 1, 9));
        INFO("head_dim " << head_dim << " group " << group << " positions " << c.positions << " from "
                         << c.query_begin);
        CheckAttention(bench, c, &random);
      }
    }
  });
}

TEST_CASE("rotary embedding in both styles, whole and partial, with and without norms of q and k") {
  EachKvBench([](Bench& bench) {
    Random random(8);
    for (int trial = 0; trial < 24; ++trial) {
      Case c;
      c.style = trial % 2 == 0 ? RotaryStyle::kInterleaved : RotaryStyle::kHalves;
      c.qk_norm = trial % 4 >= 2;
      c.head_dim = trial % 3 == 0 ? 80 : 64;
      c.rotary_dims = trial % 5 == 0 ? c.head_dim / 2 : c.head_dim;
      c.positions = UniformInt(&random, 1, 70);
      c.layer = trial % 2;
      INFO("trial " << trial);
      CheckAttention(bench, c, &random);
    }
  });
}

TEST_CASE("attention across splits and with windows") {
  EachKvBench([](Bench& bench) {
    Random random(9);
    for (int positions : {511, 512, 513, 1100}) {
      for (int window : {0, 1, 3, 64, 100, 513, 600, 5000}) {
        Case c;
        c.head_dim = 64;
        c.turn = false;
        c.heads = 3;
        c.kv_heads = 1;
        c.window = window;
        c.positions = positions;
        c.query_begin = positions - UniformInt(&random, 1, 4);
        INFO("positions " << positions << " window " << window << " from " << c.query_begin);
        CheckAttention(bench, c, &random);
      }
    }
  });
}

TEST_CASE("a slot that was never written holds finite numbers") {
  EachKvBench([](Bench& bench) {
    Device* device = bench.device.get();
    const KvCacheShape shape{1, 1, 64, 2, device->info().kv_type};
    auto cache = device->CreateKvCache(shape);
    REQUIRE(cache.ok());
    const Array q(device, std::vector<float>(64, 1.0f)), out(device, std::vector<float>(64, 5.0f));
    const int32_t pages[] = {1, 0};
    const AttentionSequence sequence{0, 1, 99, pages};
    REQUIRE(device->Reserve(1, 64, 1).ok());
    const Op op = AttentionOp{q.data(), out.data(), cache->get(), 0, 1, 1, 64, 0.125f, 0, {&sequence, 1}};
    device->Run({&op, 1});
    CHECK(out.Get() == std::vector<float>(64, 0.0f));
  });
}

}  // namespace
}  // namespace mnemo::conformance
