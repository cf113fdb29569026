// Work of the caller's own within a list of operations.
#include <atomic>

#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

// Counts the calls for each item, and works unevenly, so that items are not done in order.
struct Tally {
  explicit Tally(int items) : calls(static_cast<size_t>(items)) {}
  static void Run(void* context, int item, int thread) {
    Tally& tally = *static_cast<Tally*>(context);
    if (item < 0 || item >= static_cast<int>(tally.calls.size()) || thread < 0 || thread >= tally.threads) {
      tally.out_of_range.store(true);
      return;
    }
    volatile int turns = item % 7 == 0 ? 2000 : 0;
    while (turns > 0) turns = turns - 1;
    tally.calls[static_cast<size_t>(item)].fetch_add(1);
  }
  HostOp Op() { return {.count = static_cast<int>(calls.size()), .run = Run, .context = this}; }

  int threads = 1;
  std::vector<std::atomic<int>> calls;
  std::atomic<bool> out_of_range = false;
};

TEST_CASE("host work is done once for every item, on the device's threads") {
  EachBench([](Bench& bench) {
    for (int items : {1, 2, 3, 500}) {
      Tally first(items);
      Tally second(items + 1);
      first.threads = second.threads = bench.device->info().threads;
      const std::vector<Op> ops = {first.Op(), second.Op(), first.Op()};
      bench.device->Run(ops);
      INFO(items << " items");
      CHECK_FALSE(first.out_of_range.load());
      CHECK_FALSE(second.out_of_range.load());
      for (const std::atomic<int>& calls : first.calls) REQUIRE(calls.load() == 2);
      for (const std::atomic<int>& calls : second.calls) REQUIRE(calls.load() == 1);
    }
  });
}

TEST_CASE("host work of no items does nothing, wherever it stands") {
  EachBench([](Bench& bench) {
    const HostOp nothing;
    bench.device->Run(std::vector<Op>{nothing});
    Tally tally(10);
    tally.threads = bench.device->info().threads;
    bench.device->Run(std::vector<Op>{nothing, tally.Op(), nothing, nothing, tally.Op(), nothing});
    for (const std::atomic<int>& calls : tally.calls) REQUIRE(calls.load() == 2);
  });
}

// Result of one step of host work for the next one: plain memory, so that the thread sanitizer sees a step
// that begins too early.
struct Chain {
  std::vector<int32_t> ids;
  std::vector<int32_t> reversed;
};

TEST_CASE("operations see what the host work before them wrote, and the other way round") {
  EachBench([](Bench& bench) {
    Random random(31);
    constexpr int64_t kTableRows = 50;
    constexpr int64_t kCols = 64;
    const Tensor table =
        RandomTensor(&random, "table", TensorRole::kMatrix, TensorType::kF32, kTableRows, kCols);
    const Weights weights(*bench.device, {&table});
    for (int rows : {1, 9, 40}) {
      Chain chain{std::vector<int32_t>(static_cast<size_t>(rows)), {}};
      chain.reversed = chain.ids;
      const Array forwards(bench.device.get(), static_cast<size_t>(rows * kCols));
      const Array backwards(bench.device.get(), static_cast<size_t>(rows * kCols));
      const HostOp choose = {.count = rows,
                             .run =
                                 [](void* context, int item, int) {
                                   static_cast<Chain*>(context)->ids[static_cast<size_t>(item)] =
                                       item * 7 % static_cast<int>(kTableRows);
                                 },
                             .context = &chain};
      const HostOp reverse = {.count = rows,
                              .run =
                                  [](void* context, int item, int) {
                                    auto& [ids, reversed] = *static_cast<Chain*>(context);
                                    const auto i = static_cast<size_t>(item);
                                    reversed[i] = ids[ids.size() - 1 - i];
                                    ids[ids.size() - 1 - i] = -1;
                                  },
                              .context = &chain};
      // The first table look-up has read the ids before `reverse` spoils them.
      bench.device->Run(std::vector<Op>{
          choose, EmbedOp{weights["table"], chain.ids.data(), rows, 1.0f, forwards.data()}, reverse,
          EmbedOp{weights["table"], chain.reversed.data(), rows, 1.0f, backwards.data()}});
      const std::vector<float> first = forwards.Get();
      const std::vector<float> second = backwards.Get();
      for (int r = 0; r < rows; ++r) {
        const float* wanted = table.values.data() + r * 7 % kTableRows * kCols;
        REQUIRE(SameBits(first.data() + r * kCols, wanted, kCols));
        REQUIRE(SameBits(second.data() + (rows - 1 - r) * kCols, wanted, kCols));
      }
    }
  });
}

}  // namespace
}  // namespace mnemo::conformance
