#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "devices/reference/crew.h"
#include "devices/reference/reference_device.h"
#include "devices/reference/reference_kernels.h"

namespace mnemo::devices::reference {
namespace {

std::vector<float> Random(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

TEST_CASE("shares are disjoint and cover everything") {
  for (int64_t count : {0, 1, 11, 12, 13, 1000}) {
    for (int size : {1, 2, 3, 7}) {
      int64_t next = 0;
      for (int member = 0; member < size; ++member) {
        const Share share = ShareOf(count, 12, member, size);
        CHECK(share.begin == next);
        CHECK(share.end >= share.begin);
        CHECK((share.end % 12 == 0 || share.end == count));
        next = share.end;
      }
      CHECK(next == count);
    }
  }
}

TEST_CASE("a crew runs every member once a round, and sees what the rounds before wrote") {
  for (int size : {1, 2, 5}) {
    Crew crew(size);
    std::vector<int64_t> sums(static_cast<size_t>(size));
    int64_t shared = 0;
    std::atomic<int> wrong_sizes{0};
    for (int round = 0; round < 500; ++round) {
      crew.Run([&](int member, int members) {
        if (members != size) ++wrong_sizes;
        sums[static_cast<size_t>(member)] += shared;
      });
      ++shared;
    }
    CHECK(wrong_sizes == 0);
    for (int64_t sum : sums) CHECK(sum == 499 * 500 / 2);
  }
}

TEST_CASE("a product sums in the documented order, whatever tile it falls in") {
  for (int64_t k : {1, 7, 8, 9, 64, 577}) {
    constexpr int kRows = 37;
    constexpr int64_t kOutputs = 29;
    const std::vector<float> x = Random(static_cast<size_t>(kRows * k), 1);
    const std::vector<float> w = Random(static_cast<size_t>(kOutputs * k), 2);
    std::vector<const float*> rows;
    for (int r = 0; r < kRows; ++r) rows.push_back(x.data() + r * k);
    for (int count : {1, 2, 3, kRows}) {
      std::vector<float> y(static_cast<size_t>(kRows * kOutputs));
      MatMul(rows.data(), count, w.data(), k, 0, kOutputs, y.data(), kOutputs);
      for (int r = 0; r < count; ++r) {
        for (int64_t o = 0; o < kOutputs; ++o) {
          volatile float s[8] = {};  // one rounding per operation
          for (int64_t i = 0; i < k; ++i) {
            const volatile float product =
                x[static_cast<size_t>(r * k + i)] * w[static_cast<size_t>(o * k + i)];
            s[i % 8] = s[i % 8] + product;
          }
          const float wanted = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
          REQUIRE(y[static_cast<size_t>(r * kOutputs + o)] == wanted);
        }
      }
    }
  }
}

TEST_CASE("gates are near double precision, and finite for large inputs") {
  for (float x : {-200.0f, -90.0f, -20.0f, -3.0f, -0.01f, 0.0f, 1e-6f, 0.7f, 5.0f, 90.0f, 1e18f}) {
    const double wide = static_cast<double>(x);
    const float up = 1.5f;
    float silu = x;
    SiluGate(&silu, &up, 1);
    CHECK(static_cast<double>(silu) == Approx(wide / (1 + std::exp(-wide)) * 1.5).epsilon(1e-6).margin(1e-6));
    float gelu = x;
    GeluGate(&gelu, &up, 1);
    const double inner = std::sqrt(2 / M_PI) * (wide + 0.044715 * wide * wide * wide);
    CHECK(static_cast<double>(gelu) ==
          Approx(wide / 2 * (1 + std::tanh(inner)) * 1.5).epsilon(1e-6).margin(2e-6));
  }
}

TEST_CASE("the device refuses shapes and cache types that it does not have") {
  const std::unique_ptr<Device> device = Kind().create(DeviceOptions{.kind = "reference"}).value();
  CHECK(device->info().kv_type == KvType::kF32);
  CHECK(device->info().numerics_id.find("unknown") == std::string::npos);
  CHECK(device->CreateKvCache({1, 1, 16, 1, KvType::kF16}).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(device->CreateKvCache({1, 1, 16, 0, KvType::kF32}).status().code() ==
        absl::StatusCode::kInvalidArgument);
  const KvCacheShape huge{1 << 15, 1 << 15, 1 << 10, 1 << 30, KvType::kF32};
  CHECK(device->CreateKvCache(huge).status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(device->Allocate(size_t{1} << 60).status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(device->Reserve(0, 1, 1).code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("progress is counted at every operation") {
  std::atomic<uint64_t> progress{0};
  DeviceOptions options;
  options.kind = "reference";
  options.progress = &progress;
  const std::unique_ptr<Device> device = Kind().create(options).value();
  const std::vector<float> ones(8, 1.0f);
  PackedTensor weight;
  weight.rows = 1;
  weight.cols = 8;
  weight.data = std::as_bytes(std::span(ones));
  std::vector<float> out(8);
  const NormOp norm{ones.data(), &weight, 0.0f, 1, false, out.data()};
  const std::vector<Op> ops(3, Op(norm));
  device->Run(ops);
  CHECK(progress == 3);
  CHECK(out == ones);
}

}  // namespace
}  // namespace mnemo::devices::reference
