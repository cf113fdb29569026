// The numeric invariant of devices/device.h, by comparing bits. A row's result does not depend on the rows
// beside it, on how rows are cut into lists, or on the number of threads. Run and Sample do not allocate.
#include <algorithm>
#include <cmath>

#include "tests/conformance/allocation_count.h"
#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

// Runs `make(bench)` with 1 and 2 threads of every variant and KV type; all must give the same bits.
void SameOnAnyThreads(const std::function<std::vector<float>(Bench&)>& make) {
  for (const Variant& variant : Variants()) {
    for (KvType kv_type : {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8}) {
      std::vector<float> first;
      for (int threads : {1, 2, 3}) {
        const std::unique_ptr<Bench> bench = MakeBench(variant, threads, kv_type);
        if (bench == nullptr) continue;
        INFO(bench->name);
        const std::vector<float> result = make(*bench);
        REQUIRE(!result.empty());
        if (first.empty()) first = result;
        REQUIRE(first.size() == result.size());
        REQUIRE(SameBits(first.data(), result.data(), first.size()));
      }
    }
  }
}

// A product of `rows` rows taken from x by index, with the gate epilogue when there are two weights.
std::vector<float> Product(Bench& bench, const Weights& weights, const std::vector<float>& x, int k, int n,
                           const std::vector<int32_t>& index, bool gate, bool norm) {
  const int rows = static_cast<int>(index.size());
  const Array in(bench.device.get(), x);
  const Array out(bench.device.get(), static_cast<size_t>(rows * n));
  const Array second(bench.device.get(), static_cast<size_t>(rows * n));
  MatMulOp op;
  op.x = in.data();
  op.x_stride = k;
  op.row_index = index.data();
  op.rows = rows;
  op.norm_weight = norm ? weights["norm"] : nullptr;
  op.norm_eps = 1e-5f;
  op.parts[0] = {weights["gate"], nullptr, out.data(), n};
  op.parts[1] = {weights["up"], nullptr, second.data(), n};
  op.part_count = gate ? 2 : 1;
  op.epilogue = gate ? MatMulEpilogue::kSiluGate : MatMulEpilogue::kStore;
  REQUIRE(bench.device->Reserve(rows, std::max(k, n), 1).ok());
  const Op list = op;
  bench.device->Run({&list, 1});
  return out.Get();
}

TEST_CASE("a row of a product is the same alone and among others") {
  for (TensorType type : kAllTypes) {
    Random random(31);
    const int k = Traits(type).block_elements == 256 ? 512 : 288;
    const int n = 77;
    constexpr int kRows = 40;
    const Tensor gate = RandomTensor(&random, "gate", TensorRole::kMatrix, type, n, k);
    const Tensor up = RandomTensor(&random, "up", TensorRole::kMatrix, type, n, k);
    const Tensor norm = RandomTensor(&random, "norm", TensorRole::kVector, TensorType::kF32, 1, k);
    const std::vector<float> x = Normal(&random, static_cast<size_t>(kRows * k));
    INFO(Traits(type).name);
    SameOnAnyThreads([&](Bench& bench) {
      const Weights weights(*bench.device, {&gate, &up, &norm});
      std::vector<float> all;
      for (bool gated : {false, true}) {
        std::vector<int32_t> everyone;
        for (int r = 0; r < kRows; ++r) everyone.push_back(r);
        const std::vector<float> together = Product(bench, weights, x, k, n, everyone, gated, gated);
        for (int size : {1, 2, 3, 7, 8, 16, 33}) {
          for (int begin = 0; begin < kRows; begin += std::max(size, 3)) {
            const int end = std::min(kRows, begin + size);
            const std::vector<float> part = Product(
                bench, weights, x, k, n, {everyone.begin() + begin, everyone.begin() + end}, gated, gated);
            INFO("rows " << begin << " to " << end << " gated " << gated);
            REQUIRE(SameBits(part.data(), together.data() + begin * n, part.size()));
          }
        }
        // In another order too.
        std::vector<int32_t> shuffled = everyone;
        std::shuffle(shuffled.begin(), shuffled.end(), random);
        const std::vector<float> mixed = Product(bench, weights, x, k, n, shuffled, gated, gated);
        for (int r = 0; r < kRows; ++r) {
          REQUIRE(SameBits(mixed.data() + r * n, together.data() + shuffled[static_cast<size_t>(r)] * n,
                           static_cast<size_t>(n)));
        }
        all.insert(all.end(), together.begin(), together.end());
      }
      return all;
    });
  }
}

struct AttentionInput {
  int heads = 6;
  int kv_heads = 2;
  int head_dim = 64;
  int window = 0;
  int positions = 0;
  std::vector<float> q, k, v, cos_sin;

  AttentionInput(Random* random, int count, int window_size) : window(window_size), positions(count) {
    q = Normal(random, static_cast<size_t>(count * heads * head_dim));
    k = Normal(random, static_cast<size_t>(count * kv_heads * head_dim));
    v = Normal(random, static_cast<size_t>(count * kv_heads * head_dim));
    for (int i = 0; i < count * head_dim / 2; ++i) {
      const float angle = static_cast<float>(UniformInt(random, 0, 10000)) * 1e-3f;
      cos_sin.push_back(std::cos(angle));
      cos_sin.push_back(std::sin(angle));
    }
  }
};

// Rows [begin, end) of one input, to be put into a list after others.
struct Piece {
  const AttentionInput* input;
  std::vector<int32_t> pages;
  int begin = 0;
  int end = 0;
};

// Runs the pieces as one list; returns the outputs of each.
std::vector<std::vector<float>> RunPieces(Bench& bench, KvCache* cache, const std::vector<Piece>& pieces) {
  Device* device = bench.device.get();
  const AttentionInput& shape = *pieces[0].input;
  const size_t q_row = static_cast<size_t>(shape.heads * shape.head_dim);
  const size_t kv_row = static_cast<size_t>(shape.kv_heads * shape.head_dim);
  std::vector<float> q, k, v, cos_sin;
  std::vector<int64_t> slots;
  std::vector<AttentionSequence> sequences;
  auto append = [](std::vector<float>* to, const std::vector<float>& from, size_t row, int begin, int end) {
    to->insert(to->end(), from.begin() + static_cast<std::ptrdiff_t>(row) * begin,
               from.begin() + static_cast<std::ptrdiff_t>(row) * end);
  };
  int rows = 0;
  for (const Piece& piece : pieces) {
    append(&q, piece.input->q, q_row, piece.begin, piece.end);
    append(&k, piece.input->k, kv_row, piece.begin, piece.end);
    append(&v, piece.input->v, kv_row, piece.begin, piece.end);
    append(&cos_sin, piece.input->cos_sin, static_cast<size_t>(shape.head_dim), piece.begin, piece.end);
    for (int p = piece.begin; p < piece.end; ++p) {
      slots.push_back(int64_t{piece.pages[static_cast<size_t>(p / kPageTokens)]} * kPageTokens +
                      p % kPageTokens);
    }
    sequences.push_back({rows, piece.end - piece.begin, piece.begin, piece.pages.data()});
    rows += piece.end - piece.begin;
  }
  const Array q_array(device, q), k_array(device, k), v_array(device, v), cs_array(device, cos_sin);
  const Array out(device, q.size());
  REQUIRE(device->Reserve(rows, static_cast<int>(q_row), shape.heads).ok());
  RotaryStoreOp store;
  store.q = q_array.data();
  store.k = k_array.data();
  store.v = v_array.data();
  store.rows = rows;
  store.heads = shape.heads;
  store.kv_heads = shape.kv_heads;
  store.head_dim = shape.head_dim;
  store.rotary_dims = shape.head_dim;
  store.cos_sin = cs_array.data();
  store.cache = cache;
  store.slots = slots.data();
  const AttentionOp attend{q_array.data(), out.data(), cache,        0,        shape.heads, shape.kv_heads,
                           shape.head_dim, 0.125f,     shape.window, sequences};
  const std::vector<Op> ops = {store, attend};
  device->Run(ops);
  const std::vector<float> all = out.Get();
  std::vector<std::vector<float>> results;
  for (const AttentionSequence& s : sequences) {
    results.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(q_row) * s.row_begin,
                         all.begin() + static_cast<std::ptrdiff_t>(q_row) * (s.row_begin + s.row_count));
  }
  return results;
}

TEST_CASE("attention is the same in any chunks, on any pages, alone and beside another sequence") {
  for (int window : {0, 200}) {
    Random random(41);
    const AttentionInput input(&random, 1040, window);
    const AttentionInput neighbour(&random, 130, window);
    constexpr int kPages = 24;
    SameOnAnyThreads([&](Bench& bench) {
      const KvCacheShape shape{1, input.kv_heads, input.head_dim, kPages, bench.device->info().kv_type};
      std::vector<float> whole;
      std::vector<float> neighbour_whole;
      for (int chunk : {1040, 512, 100, 7, 1}) {
        auto cache = bench.device->CreateKvCache(shape);
        REQUIRE(cache.ok());
        std::vector<int32_t> pages;
        for (int i = 0; i < kPages; ++i) pages.push_back(i);
        std::shuffle(pages.begin(), pages.end(), random);
        const std::vector<int32_t> own(pages.begin(), pages.begin() + 17);
        const std::vector<int32_t> other(pages.begin() + 17, pages.begin() + 20);
        std::vector<float> joined, neighbour_joined;
        // One row at a time only at the end, where it costs and shows most.
        int begin = 0;
        int neighbour_begin = 0;
        while (begin < input.positions) {
          const int size = chunk == 1 && begin < 1010 ? 505 : chunk;
          std::vector<Piece> pieces = {{&input, own, begin, std::min(input.positions, begin + size)}};
          if (chunk != 1040 && neighbour_begin < neighbour.positions) {
            const int end = std::min(neighbour.positions, neighbour_begin + (chunk == 7 ? 1 : 40));
            pieces.insert(begin % 2 == 0 ? pieces.begin() : pieces.end(),
                          {&neighbour, other, neighbour_begin, end});
            neighbour_begin = end;
          }
          const std::vector<std::vector<float>> results = RunPieces(bench, cache->get(), pieces);
          for (size_t i = 0; i < pieces.size(); ++i) {
            std::vector<float>* to = pieces[i].input == &input ? &joined : &neighbour_joined;
            to->insert(to->end(), results[i].begin(), results[i].end());
          }
          begin = pieces.size() == 1 || pieces[0].input == &input ? pieces[0].end : pieces[1].end;
        }
        if (whole.empty()) whole = joined;
        INFO("chunk " << chunk << " window " << window);
        REQUIRE(joined.size() == whole.size());
        REQUIRE(SameBits(joined.data(), whole.data(), whole.size()));
        if (neighbour_whole.empty()) neighbour_whole = neighbour_joined;
        const size_t common = std::min(neighbour_joined.size(), neighbour_whole.size());
        REQUIRE(SameBits(neighbour_joined.data(), neighbour_whole.data(), common));
      }
      return whole;
    });
  }
}

TEST_CASE("norms and embeddings are the same for any number of rows") {
  Random random(51);
  const int n = 576;
  constexpr int kRows = 19;
  const Tensor weight = RandomTensor(&random, "w", TensorRole::kVector, TensorType::kF32, 1, n);
  const std::vector<float> x = Normal(&random, static_cast<size_t>(kRows * n));
  SameOnAnyThreads([&](Bench& bench) {
    const Weights weights(*bench.device, {&weight});
    const Array in(bench.device.get(), x), out(bench.device.get(), x.size());
    REQUIRE(bench.device->Reserve(kRows, n, 1).ok());
    const Op all = NormOp{in.data(), weights["w"], 1e-5f, kRows, false, out.data()};
    bench.device->Run({&all, 1});
    const std::vector<float> together = out.Get();
    for (int r = 0; r < kRows; ++r) {
      const Op one = NormOp{in.data() + r * n, weights["w"], 1e-5f, 1, false, out.data()};
      bench.device->Run({&one, 1});
      REQUIRE(SameBits(out.Get().data(), together.data() + r * n, static_cast<size_t>(n)));
    }
    return together;
  });
}

TEST_CASE("a reserved device does not allocate") {
  EachBench([](Bench& bench) {
    Random random(61);
    Device* device = bench.device.get();
    constexpr int kRows = 33, kDim = 128, kHeads = 4, kHeadDim = 32, kVocabulary = 3000;
    const Tensor table =
        RandomTensor(&random, "gate", TensorRole::kMatrix, TensorType::kQ8_0, kVocabulary, kDim);
    const Tensor up = RandomTensor(&random, "up", TensorRole::kMatrix, TensorType::kQ4_1, kVocabulary, kDim);
    const Tensor norm = RandomTensor(&random, "norm", TensorRole::kVector, TensorType::kF32, 1, kDim);
    const Weights weights(*device, {&table, &up, &norm});
    auto cache = device->CreateKvCache({1, kHeads, kHeadDim, 12, device->info().kv_type});
    REQUIRE(cache.ok());
    REQUIRE(device->Reserve(kRows, kVocabulary, kHeads).ok());
    const size_t row_floats = static_cast<size_t>(kRows * kDim);
    const Array x(device, Normal(&random, row_floats)), k(device, Normal(&random, row_floats));
    const Array v(device, Normal(&random, row_floats)), out(device, row_floats);
    const Array logits(device, static_cast<size_t>(kRows * kVocabulary));
    const Array second(device, static_cast<size_t>(kRows * kVocabulary));
    const Array cos_sin(device, std::vector<float>(static_cast<size_t>(kRows * kHeadDim), 0.5f));
    std::vector<int32_t> ids(kRows, 5), pages = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    std::vector<int64_t> slots;
    for (int r = 0; r < kRows; ++r) slots.push_back(640 + r);
    const AttentionSequence sequence{0, kRows, 640, pages.data()};
    RotaryStoreOp store;
    store.q = x.data();
    store.k = k.data();
    store.v = v.data();
    store.rows = kRows;
    store.heads = store.kv_heads = kHeads;
    store.head_dim = store.rotary_dims = kHeadDim;
    store.cos_sin = cos_sin.data();
    store.cache = cache->get();
    store.slots = slots.data();
    MatMulOp product;
    product.x = out.data();
    product.x_stride = kDim;
    product.rows = kRows;
    product.norm_weight = weights["norm"];
    product.norm_eps = 1e-5f;
    product.parts[0] = {weights["gate"], nullptr, logits.data(), kVocabulary};
    product.parts[1] = {weights["up"], nullptr, second.data(), kVocabulary};
    product.part_count = 2;
    product.epilogue = MatMulEpilogue::kSiluGate;
    const AttentionOp attend{x.data(), out.data(), cache->get(), 0, kHeads,
                             kHeads,   kHeadDim,   0.2f,         0, {&sequence, 1}};
    std::vector<Op> ops = {EmbedOp{weights["gate"], ids.data(), kRows, 1.0f, x.data()},
                           NormOp{x.data(), weights["norm"], 1e-5f, kRows, true, x.data()}, store, attend,
                           product};
    // x += norm(x) reads its own output; the contract allows that only without accumulation.
    std::get<NormOp>(ops[1]).out = k.data();
    // A counter that does not count would pass as well.
    const uint64_t start = AllocationCount();
    std::vector<SamplingParams> params(4);
    REQUIRE(AllocationCount() > start);
    params[1].temperature = 0;
    params[2].top_p = 0.7f;
    params[3].top_k = 40;
    std::vector<SampleRow> rows(kRows);
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].logits = logits.data() + r * kVocabulary;
      rows[r].params = &params[r % 4];
      rows[r].alternatives = static_cast<int32_t>(r % 3) * 10 - 1;
    }
    std::vector<SampleResult> results(rows.size());
    device->Run(ops);
    device->Sample(rows, kVocabulary, results);
    const uint64_t before = AllocationCount();
    for (int i = 0; i < 3; ++i) {
      device->Run(ops);
      device->Sample(rows, kVocabulary, results);
    }
    const uint64_t after = AllocationCount();
    CHECK(before == after);
  });
}

}  // namespace
}  // namespace mnemo::conformance
