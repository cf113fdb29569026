// Attention to listed positions: against double precision, and the numeric invariant by comparing bits.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "tests/conformance/allocation_count.h"
#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

struct Shape {
  int group = 3;
  int kv_heads = 3;
  int head_dim = 64;
};

// A sequence: keys and values of its positions, and the query of the last one with its selection.
struct Context {
  int positions = 0;
  std::vector<float> q, k, v;
  bool listed = true;
  int first_end = 0;
  int tail_begin = 0;
  int entry_tokens = 1;
  std::vector<std::vector<uint32_t>> entries;  // [kv_heads]
};

// `count` entries of each head, or a random number of them when it is negative; fewer where they do not fit.
Context MakeContext(Random* random, const Shape& shape, int positions, int entry_tokens, int count = -1) {
  Context c;
  c.positions = positions;
  c.entry_tokens = entry_tokens;
  c.q = Normal(random, static_cast<size_t>(shape.kv_heads * shape.group * shape.head_dim));
  c.k = Normal(random, static_cast<size_t>(positions * shape.kv_heads * shape.head_dim));
  c.v = Normal(random, c.k.size());
  c.first_end = UniformInt(random, 0, 3) == 0 ? 0 : UniformInt(random, 0, std::min(70, positions - 1));
  c.tail_begin = UniformInt(random, std::max(c.first_end, positions - 140), positions - 1);
  const int begin = (c.first_end + entry_tokens - 1) / entry_tokens;
  const int end = std::max(begin, c.tail_begin / entry_tokens);
  for (int head = 0; head < shape.kv_heads; ++head) {
    std::vector<uint32_t> ids(static_cast<size_t>(end - begin));
    std::iota(ids.begin(), ids.end(), static_cast<uint32_t>(begin));
    std::shuffle(ids.begin(), ids.end(), *random);
    const int size = count >= 0 ? std::min(count, end - begin) : UniformInt(random, 0, end - begin);
    ids.resize(static_cast<size_t>(size));
    std::sort(ids.begin(), ids.end());
    c.entries.push_back(std::move(ids));
  }
  return c;
}

std::vector<int> ListedPositions(const Context& c, int kv_head) {
  std::vector<int> positions;
  for (int p = 0; p < c.positions; ++p) {
    const auto& ids = c.entries[static_cast<size_t>(kv_head)];
    const auto entry = static_cast<uint32_t>(p / c.entry_tokens);
    const bool inside = p >= c.first_end && p < c.tail_begin;
    if (!c.listed || !inside || std::binary_search(ids.begin(), ids.end(), entry)) positions.push_back(p);
  }
  return positions;
}

// Contexts stored on random pages of one cache.
class Store {
 public:
  Store(Bench* bench, const Shape& shape, bool gather, Random* random, std::vector<const Context*> contexts)
      : device_(bench->device.get()), shape_(shape), contexts_(std::move(contexts)) {
    int pages = 3;
    for (const Context* c : contexts_) pages += (c->positions + kPageTokens - 1) / kPageTokens;
    KvCacheShape cache_shape{2, shape.kv_heads, shape.head_dim, pages, device_->info().kv_type};
    if (gather) {
      cache_shape.gather_layers = {0, 1};
      cache_shape.extra_pages = 2;  // no layer uses them: changes nothing
      cache_shape.staging_pages = pages;
    }
    auto cache = device_->CreateKvCache(cache_shape);
    REQUIRE(cache.ok());
    cache_ = std::move(cache).value();
    std::vector<int32_t> free(static_cast<size_t>(pages));
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), *random);
    for (const Context* c : contexts_) {
      const int count = (c->positions + kPageTokens - 1) / kPageTokens;
      tables_.emplace_back(free.end() - count, free.end());
      free.resize(free.size() - static_cast<size_t>(count));
      Write(*c, tables_.back());
    }
  }

  // Moves selected entries of lists to the pages of another context, entry by entry in a random order, and
  // pages of rows without a list to staging pages. Other numbers overwrite their former places.
  void MoveAway(size_t context, size_t hot_context, Random* random) {
    const Context& c = *contexts_[context];
    const size_t bytes =
        static_cast<size_t>(StoredKvBytes(StoredForm(cache_->shape().type), shape_.head_dim));
    std::vector<uint8_t> copy(bytes * kPageTokens);
    const std::vector<uint8_t> zeros(copy.size());
    if (!c.listed) {
      for (int32_t& page : tables_[context]) {
        for (int head = 0; head < shape_.kv_heads; ++head) {
          cache_->CopyOut(kLayer, head, page, 0, kPageTokens, copy.data());
          cache_->CopyIn(kLayer, head, cache_->shape().pages + staged_, 0, kPageTokens, copy.data());
          cache_->CopyIn(kLayer, head, page, 0, kPageTokens, zeros.data());
        }
        page = cache_->shape().pages + staged_++;
      }
      return;
    }
    const int width = c.entry_tokens;
    places_.resize(contexts_.size());
    places_[context].resize(static_cast<size_t>(shape_.kv_heads));
    for (int head = 0; head < shape_.kv_heads; ++head) {
      const std::vector<uint32_t>& ids = c.entries[static_cast<size_t>(head)];
      std::vector<int64_t>& places = places_[context][static_cast<size_t>(head)];
      for (size_t i = 0; i < ids.size(); ++i) places.push_back(static_cast<int64_t>(i));
      std::shuffle(places.begin(), places.end(), *random);
      for (size_t i = 0; i < ids.size(); ++i) {
        const int at = static_cast<int>(places[i]) * width;
        const int32_t to = PageOf(hot_context, at);
        const int from = static_cast<int>(ids[i]) * width;
        cache_->CopyOut(kLayer, head, PageOf(context, from), from % kPageTokens, width, copy.data());
        cache_->CopyIn(kLayer, head, to, at % kPageTokens, width, copy.data());
        cache_->CopyIn(kLayer, head, PageOf(context, from), from % kPageTokens, width, zeros.data());
        places[i] = int64_t{to} * kPageTokens + at % kPageTokens;
      }
    }
  }

  const KvCache& cache() const { return *cache_; }
  int32_t PageOf(size_t context, int position) const {
    return tables_[context][static_cast<size_t>(position / kPageTokens)];
  }

  // One row of each of these contexts in one list; returns the outputs one after another. `late` fills in the
  // selections by an operation before the attention.
  std::vector<float> Attend(const std::vector<size_t>& which, bool late = false) {
    const int heads = shape_.kv_heads * shape_.group;
    const size_t row = static_cast<size_t>(heads * shape_.head_dim);
    std::vector<float> q;
    std::vector<AttentionSequence> sequences;
    std::vector<TokenSelection> filled;
    std::vector<SparseSelection> sparse(which.size());
    for (size_t i : which) {
      q.insert(q.end(), contexts_[i]->q.begin(), contexts_[i]->q.end());
      for (size_t head = 0; head < contexts_[i]->entries.size(); ++head) {
        const std::vector<uint32_t>& ids = contexts_[i]->entries[head];
        filled.push_back({ids.data(), static_cast<uint32_t>(ids.size())});
        if (i < places_.size() && !places_[i].empty()) filled.back().places = places_[i][head].data();
      }
    }
    std::vector<TokenSelection> heads_read(filled.size());
    if (!late) heads_read = filled;
    for (size_t n = 0; n < which.size(); ++n) {
      const Context& c = *contexts_[which[n]];
      sparse[n] = {c.first_end, c.tail_begin, c.entry_tokens,
                   heads_read.data() + n * static_cast<size_t>(shape_.kv_heads), c.positions};
      sequences.push_back({static_cast<int>(n), 1, c.positions - 1, tables_[which[n]].data(),
                           c.listed ? &sparse[n] : nullptr});
    }
    const Array q_array(device_, q), out(device_, std::vector<float>(q.size(), 7.0f));
    REQUIRE(device_->Reserve(static_cast<int>(which.size()), static_cast<int>(row), heads).ok());
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    std::pair<std::vector<TokenSelection>*, std::vector<TokenSelection>*> fill = {&filled, &heads_read};
    const HostOp host{late ? static_cast<int>(filled.size()) : 0,
                      [](void* context, int item, int) {
                        auto& [from, to] = *static_cast<decltype(fill)*>(context);
                        (*to)[static_cast<size_t>(item)] = (*from)[static_cast<size_t>(item)];
                      },
                      &fill};
    const AttentionOp attend{q_array.data(),  out.data(),      cache_.get(), kLayer, heads,
                             shape_.kv_heads, shape_.head_dim, scale,        0,      sequences};
    const std::vector<Op> ops = {host, attend};
    device_->Run(ops);
    const uint64_t before = AllocationCount();
    device_->Run({&ops[1], 1});
    CHECK(AllocationCount() == before);
    return out.Get();
  }

  static constexpr int kLayer = 1;

 private:
  void Write(const Context& c, const std::vector<int32_t>& table) {
    const size_t row = static_cast<size_t>(shape_.kv_heads * shape_.head_dim);
    std::vector<float> cos_sin;
    std::vector<int64_t> slots;
    for (int p = 0; p < c.positions; ++p) {
      slots.push_back(int64_t{table[static_cast<size_t>(p / kPageTokens)]} * kPageTokens + p % kPageTokens);
      cos_sin.insert(cos_sin.end(), {1.0f, 0.0f});
    }
    const Array q(device_, row * slots.size()), k(device_, c.k), v(device_, c.v), turn(device_, cos_sin);
    REQUIRE(device_->Reserve(c.positions, static_cast<int>(row), shape_.kv_heads).ok());
    RotaryStoreOp store;
    store.q = q.data();
    store.k = k.data();
    store.v = v.data();
    store.rows = c.positions;
    store.heads = store.kv_heads = shape_.kv_heads;
    store.head_dim = shape_.head_dim;
    store.rotary_dims = 2;
    store.cos_sin = turn.data();
    store.cache = cache_.get();
    store.layer = kLayer;
    store.slots = slots.data();
    const Op op = store;
    device_->Run({&op, 1});
  }

  Device* device_;
  const Shape shape_;
  const std::vector<const Context*> contexts_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::vector<int32_t>> tables_;
  int staged_ = 0;                                         // staging pages in use
  std::vector<std::vector<std::vector<int64_t>>> places_;  // [contexts][kv_heads], of moved entries
};

// The oracle's output of one query head, from keys and values as the cache gives them back.
std::vector<double> Oracle(const Store& store, const Shape& shape, const Context& c, size_t context, int head,
                           double* largest_value) {
  const auto dim = static_cast<size_t>(shape.head_dim);
  const int kv_head = head / shape.group;
  std::vector<float> key(dim), value(dim);
  std::vector<double> scores;
  const std::vector<int> positions = ListedPositions(c, kv_head);
  auto read = [&](int p) {
    store.cache().ReadKv(Store::kLayer, kv_head, store.PageOf(context, p), p % kPageTokens, key.data(),
                         value.data());
  };
  const float* q = c.q.data() + static_cast<size_t>(head) * dim;
  double largest = -1e300;
  for (int p : positions) {
    read(p);
    double score = 0;
    for (size_t d = 0; d < dim; ++d) score += static_cast<double>(q[d]) * static_cast<double>(key[d]);
    scores.push_back(score / std::sqrt(static_cast<double>(dim)));
    largest = std::max(largest, scores.back());
  }
  std::vector<double> sum(dim);
  double total = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    read(positions[i]);
    const double weight = std::exp(scores[i] - largest);
    total += weight;
    for (size_t d = 0; d < dim; ++d) {
      sum[d] += weight * static_cast<double>(value[d]);
      *largest_value = std::max(*largest_value, std::fabs(static_cast<double>(value[d])));
    }
  }
  for (double& x : sum) x /= total;
  return sum;
}

void CheckAgainstOracle(Bench& bench, const Shape& shape, const std::vector<Context>& contexts, bool gather,
                        Random* random) {
  std::vector<const Context*> pointers;
  std::vector<size_t> all;
  for (const Context& c : contexts) {
    all.push_back(all.size());
    pointers.push_back(&c);
  }
  Store store(&bench, shape, gather, random, pointers);
  const std::vector<float> got = store.Attend(all);
  const auto dim = static_cast<size_t>(shape.head_dim);
  const auto heads = static_cast<size_t>(shape.kv_heads * shape.group);
  double worst = 0, largest_value = 0;
  for (size_t i = 0; i < contexts.size(); ++i) {
    for (size_t head = 0; head < heads; ++head) {
      const std::vector<double> wanted =
          Oracle(store, shape, contexts[i], i, static_cast<int>(head), &largest_value);
      for (size_t d = 0; d < dim; ++d) {
        worst =
            std::max(worst, std::fabs(static_cast<double>(got[(i * heads + head) * dim + d]) - wanted[d]));
      }
    }
  }
  // Half a step in each element of the query: see attention_test.cc.
  const double slack = bench.bounds.fixed_point_keys ? std::sqrt(shape.head_dim * 0x1p-31) : 0;
  CHECK(worst < (bench.bounds.attention + slack) * largest_value);
}

TEST_CASE("listed attention over every head size, group, entry size and number of positions") {
  EachKvBench([](Bench& bench) {
    Random random(71);
    for (int head_dim : {16, 24, 64, 80, 128, 256}) {
      for (int group = 1; group <= 8; ++group) {
        const Shape shape{group, UniformInt(&random, 1, 3), head_dim};
        for (int entry_tokens : {1, 16, 64}) {
          std::vector<Context> contexts;
          for (int i = UniformInt(&random, 1, 2); i > 0; --i) {
            contexts.push_back(MakeContext(&random, shape, UniformInt(&random, 1, 330), entry_tokens));
          }
          INFO("head_dim " << head_dim << " group " << group << " entries of " << entry_tokens);
          CheckAgainstOracle(bench, shape, contexts, UniformInt(&random, 0, 1) == 1, &random);
        }
      }
    }
  });
}

TEST_CASE("listed attention over several splits, beside rows that attend to everything") {
  EachKvBench([](Bench& bench) {
    Random random(72);
    for (int entry_tokens : {1, 16, 64}) {
      const Shape shape;
      std::vector<Context> contexts = {MakeContext(&random, shape, 1900, entry_tokens),
                                       MakeContext(&random, shape, 700, entry_tokens, 0),
                                       MakeContext(&random, shape, 600, 1),
                                       MakeContext(&random, shape, 1300, entry_tokens, 1100 / entry_tokens)};
      contexts[2].listed = false;
      INFO("entries of " << entry_tokens);
      CheckAgainstOracle(bench, shape, contexts, true, &random);
    }
  });
}

TEST_CASE("keys and values are read back as they were stored") {
  EachKvBench([](Bench& bench) {
    Random random(73);
    for (bool gather : {false, true}) {
      for (int head_dim : {24, 64}) {
        const Shape shape{1, 2, head_dim};
        const Context c = MakeContext(&random, shape, 130, 1);
        const Store store(&bench, shape, gather, &random, {&c});
        const auto dim = static_cast<size_t>(head_dim);
        const KvType kv_type = bench.device->info().kv_type;
        const double step = kv_type == KvType::kQ8          ? kQ8Step
                            : bench.bounds.fixed_point_keys ? std::sqrt(head_dim * 0x1p-31)
                                                            : 0;
        std::vector<float> page(kPageTokens * dim), key(dim), value(dim);
        double worst = 0;
        for (int p = 0; p < c.positions; ++p) {
          for (int head = 0; head < shape.kv_heads; ++head) {
            store.cache().ReadKeys(Store::kLayer, head, store.PageOf(0, p), page.data());
            store.cache().ReadKv(Store::kLayer, head, store.PageOf(0, p), p % kPageTokens, key.data(),
                                 value.data());
            REQUIRE(SameBits(key.data(), page.data() + static_cast<size_t>(p % kPageTokens) * dim, dim));
            const float* k = c.k.data() + static_cast<size_t>(p * shape.kv_heads + head) * dim;
            const float* v = c.v.data() + static_cast<size_t>(p * shape.kv_heads + head) * dim;
            // kQ8 rounds the rotated key.
            const auto rounded = [&](const float* x) {
              return kv_type == KvType::kQ8 ? Rotated(std::span(x, dim)) : std::vector<double>(x, x + dim);
            };
            const std::vector<double> given = rounded(k), stored = rounded(key.data());
            const double largest = LargestOf(given);
            const double largest_value = LargestOf(std::span(v, dim));
            for (size_t d = 0; d < dim; ++d) {
              worst = std::max(worst, std::fabs(stored[d] - given[d]) / largest);
              const double half_step =
                  kv_type == KvType::kQ8
                      ? 0.51 * kQ8Step * largest_value
                      : std::fabs(static_cast<double>(v[d])) * (kv_type == KvType::kBF16 ? 0x1p-8 : 0x1p-11);
              CHECK(std::fabs(static_cast<double>(value[d] - v[d])) <= half_step + 0x1p-25);
            }
          }
        }
        CHECK(worst <= 0.51 * step);
      }
    }
  });
}

TEST_CASE("a listed row is the same alone, beside others, on any pages and any threads") {
  Random random(74);
  const Shape shape;
  std::vector<Context> contexts;
  for (int entry_tokens : {1, 16, 64}) {
    for (int count : {5, 400, 1100}) {
      contexts.push_back(MakeContext(&random, shape, UniformInt(&random, 1100, 1600), entry_tokens,
                                     (count + entry_tokens - 1) / entry_tokens));
    }
  }
  contexts[4].listed = false;
  std::vector<const Context*> pointers;
  for (const Context& c : contexts) pointers.push_back(&c);
  for (const Variant& variant : Variants()) {
    for (KvType kv_type : {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8}) {
      std::vector<float> wanted;
      for (int threads : {1, 2, 3}) {
        const std::unique_ptr<Bench> bench = MakeBench(variant, threads, kv_type);
        if (bench == nullptr) continue;
        INFO(bench->name);
        for (bool gather : {true, false}) {
          Store store(bench.get(), shape, gather, &random, pointers);
          std::vector<size_t> order(contexts.size());
          std::iota(order.begin(), order.end(), size_t{0});
          if (wanted.empty()) wanted = store.Attend(order);
          const size_t row = wanted.size() / contexts.size();
          for (int size : {1, 2, 9}) {
            std::shuffle(order.begin(), order.end(), random);
            for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(size)) {
              const size_t end = std::min(order.size(), begin + static_cast<size_t>(size));
              const std::vector<size_t> which(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                              order.begin() + static_cast<std::ptrdiff_t>(end));
              const std::vector<float> got = store.Attend(which, size == 2);
              for (size_t i = 0; i < which.size(); ++i) {
                REQUIRE(SameBits(got.data() + i * row, wanted.data() + which[i] * row, row));
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("rows whose keys and values were moved have the bits of rows that read them in place") {
  EachKvBench([](Bench& bench) {
    Random random(76);
    for (const int head_dim : {24, 64}) {
      const Shape shape{3, 2, head_dim};
      std::vector<Context> contexts;
      for (int entry_tokens : {1, 16, 64}) {
        contexts.push_back(MakeContext(&random, shape, UniformInt(&random, 900, 1400), entry_tokens));
        contexts.push_back(MakeContext(&random, shape, 1400, 1));  // where the entries go
      }
      contexts.push_back(MakeContext(&random, shape, 1200, 1));
      contexts.back().listed = false;
      std::vector<const Context*> pointers;
      for (const Context& c : contexts) pointers.push_back(&c);
      Store store(&bench, shape, true, &random, pointers);
      const std::vector<float> wanted = store.Attend({0, 2, 4, 6});
      for (const size_t context : {0, 2, 4, 6}) store.MoveAway(context, context + 1, &random);
      const std::vector<float> got = store.Attend({0, 2, 4, 6});
      CHECK(SameBits(got.data(), wanted.data(), wanted.size()));
    }
  });
}

TEST_CASE("a list of all positions gives the bits of a row without a list") {
  EachKvBench([](Bench& bench) {
    Random random(75);
    for (int positions : {1, 64, 500, 513, 1500}) {
      const Shape shape;
      std::vector<Context> contexts;
      for (int entry_tokens : {1, 16, 64}) {
        contexts.push_back(MakeContext(&random, shape, positions, entry_tokens, positions));
        // Entries are whole: the ends take the positions left between.
        Context& c = contexts.back();
        c.first_end = c.first_end / entry_tokens * entry_tokens;
        c.tail_begin = std::max(c.first_end, c.tail_begin / entry_tokens * entry_tokens);
        for (auto& ids : c.entries) {
          ids.resize(static_cast<size_t>((c.tail_begin - c.first_end) / entry_tokens));
          std::iota(ids.begin(), ids.end(), static_cast<uint32_t>(c.first_end / entry_tokens));
        }
      }
      for (size_t i = 0; i < 3; ++i) {
        contexts.push_back(contexts[i]);
        contexts.back().listed = false;
      }
      std::vector<const Context*> pointers;
      for (const Context& c : contexts) pointers.push_back(&c);
      Store store(&bench, shape, true, &random, pointers);
      const std::vector<float> out = store.Attend({0, 1, 2, 3, 4, 5});
      INFO(positions << " positions");
      CHECK(SameBits(out.data(), out.data() + out.size() / 2, out.size() / 2));
    }
  });
}

}  // namespace
}  // namespace mnemo::conformance
