// Memory, embedding and norms.
#include <cmath>

#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

TEST_CASE("devices say what they are, and equal numerics have equal ids") {
  for (const Variant& variant : Variants()) {
    std::unique_ptr<Bench> one = MakeBench(variant, 1, KvType::kF16);
    std::unique_ptr<Bench> two = MakeBench(variant, 2, KvType::kF16);
    if (one == nullptr) {
      one = MakeBench(variant, 1, KvType::kF32);
      two = MakeBench(variant, 2, KvType::kF32);
    }
    CHECK(one->device->info().kind == variant.kind);
    CHECK(two->device->info().threads == 2);
    CHECK(one->device->info().numerics_id == two->device->info().numerics_id);
    for (char c : one->device->info().numerics_id) CHECK((c >= 32 && c < 127));
    for (const Variant& other : Variants()) {
      if (other.kind != variant.kind || other.isa == variant.isa) continue;
      CHECK(MakeBench(other, 1, one->device->info().kv_type)->device->info().numerics_id !=
            one->device->info().numerics_id);
    }
    const std::unique_ptr<Bench> bfloat = MakeBench(variant, 1, KvType::kBF16);
    if (bfloat != nullptr) CHECK(bfloat->device->info().numerics_id != one->device->info().numerics_id);
  }
}

TEST_CASE("device memory is zeroed, aligned, and copied both ways") {
  EachBench([](Bench& bench) {
    for (size_t count : {1, 15, 1000, 100000}) {
      Array array(bench.device.get(), count);
      REQUIRE(reinterpret_cast<uintptr_t>(array.data()) % 64 == 0);
      REQUIRE(array.Get() == std::vector<float>(count, 0.0f));
      Random random(3);
      const std::vector<float> values = Normal(&random, count);
      array.Set(values);
      REQUIRE(array.Get() == values);
    }
    CHECK(bench.device->Allocate(size_t{1} << 60).status().code() == absl::StatusCode::kResourceExhausted);
  });
}

TEST_CASE("embedding rows of every weight type") {
  EachBench([](Bench& bench) {
    Random random(17);
    for (TensorType type : kAllTypes) {
      for (int64_t blocks : {1, 3}) {
        const int64_t cols =
            Traits(type).block_elements == 1 ? 96 * blocks : Traits(type).block_elements * blocks;
        const int64_t table_rows = UniformInt(&random, 1, 70);
        const Tensor table = RandomTensor(&random, "table", TensorRole::kMatrix, type, table_rows, cols);
        const Weights weights(*bench.device, {&table});
        std::vector<int32_t> ids;
        for (int i = 0; i < 9; ++i) ids.push_back(UniformInt(&random, 0, static_cast<int>(table_rows) - 1));
        ids.push_back(static_cast<int32_t>(table_rows) - 1);
        const float scale = blocks == 1 ? 1.0f : 11.313708f;
        const Array out(bench.device.get(), ids.size() * static_cast<size_t>(cols));
        const Op op = EmbedOp{weights["table"], ids.data(), static_cast<int>(ids.size()), scale, out.data()};
        bench.device->Run({&op, 1});
        const std::vector<float> got = out.Get();
        INFO(Traits(type).name << " " << table_rows << " x " << cols);
        double worst = 0;
        for (size_t r = 0; r < ids.size(); ++r) {
          for (int64_t c = 0; c < cols; ++c) {
            const double wanted = static_cast<double>(table.values[static_cast<size_t>(ids[r] * cols + c)]) *
                                  static_cast<double>(scale);
            const double difference = std::fabs(
                static_cast<double>(got[r * static_cast<size_t>(cols) + static_cast<size_t>(c)]) - wanted);
            worst = std::max(worst, difference / (std::fabs(wanted) + 0.01));
          }
        }
        REQUIRE(worst < 1e-5);
      }
    }
  });
}

TEST_CASE("norms, stored and accumulated, also in place") {
  EachBench([](Bench& bench) {
    Random random(23);
    for (int trial = 0; trial < 30; ++trial) {
      const int rows = UniformInt(&random, 1, 12);
      const int n = trial % 2 == 0 ? UniformInt(&random, 1, 300) : 32 * UniformInt(&random, 1, 40);
      const TensorType type = trial % 3 == 0 ? TensorType::kF16 : TensorType::kF32;
      const Tensor weight = RandomTensor(&random, "w", TensorRole::kVector, type, 1, n);
      const Weights weights(*bench.device, {&weight});
      const float scale = std::pow(10.0f, static_cast<float>(UniformInt(&random, -4, 3)));
      std::vector<float> x = Normal(&random, static_cast<size_t>(rows * n), scale);
      std::fill(x.begin(), x.begin() + n, trial % 5 == 0 ? 0.0f : 1.0f);
      const bool accumulate = trial % 4 == 1;
      const bool in_place = !accumulate && trial % 4 == 2;
      const std::vector<float> before = Normal(&random, x.size());
      const Array in(bench.device.get(), x);
      const Array other(bench.device.get(), before);
      const Array& out = in_place ? in : other;
      REQUIRE(bench.device->Reserve(rows, n, 1).ok());
      const Op op = NormOp{in.data(), weights["w"], 1e-5f, rows, accumulate, out.data()};
      bench.device->Run({&op, 1});
      const std::vector<float> got = out.Get();
      INFO("trial " << trial << ": " << rows << " rows of " << n);
      for (int r = 0; r < rows; ++r) {
        const std::vector<double> y = NormOracle(x.data() + r * n, weight.values.data(), n, 1e-5f);
        for (int c = 0; c < n; ++c) {
          const auto i = static_cast<size_t>(r * n + c);
          const double wanted = y[static_cast<size_t>(c)] + (accumulate ? static_cast<double>(before[i]) : 0);
          REQUIRE(std::fabs(static_cast<double>(got[i]) - wanted) < 1e-5 * (std::fabs(wanted) + 0.1));
        }
      }
    }
  });
}

}  // namespace
}  // namespace mnemo::conformance
