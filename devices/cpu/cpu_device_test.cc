#include "devices/cpu/cpu_device.h"

#include <catch2/catch.hpp>

#include "devices/cpu/isa.h"

namespace mnemo::devices::cpu {
namespace {

std::unique_ptr<Device> Make(DeviceOptions options) {
  auto device = Kind().create(options);
  REQUIRE(device.ok());
  return std::move(device).value();
}

TEST_CASE("instruction sets are listed from the plainest to the best, and each has its kernels") {
  const std::vector<std::string> isas = Isas();
  REQUIRE(!isas.empty());
  CHECK(isas.front() == "baseline");
  for (const std::string& isa : isas) {
    REQUIRE(FindKernels(isa) != nullptr);
    CHECK(FindKernels(isa)->isa == isa);
    CHECK(Make({.isa = isa})->info().isa == isa);
  }
  CHECK(FindKernels("auto")->isa == isas.back());
  CHECK(FindKernels("avx1024") == nullptr);
}

TEST_CASE("the numerics id differs exactly when results may differ") {
  const std::string id = Make({.isa = "baseline"})->info().numerics_id;
  CHECK(id == Make({.isa = "baseline", .threads = 2})->info().numerics_id);
  CHECK(id != Make({.isa = "baseline", .kv_type = KvType::kBF16})->info().numerics_id);
  for (const std::string& isa : Isas()) {
    CHECK((isa == "baseline") == (Make({.isa = isa})->info().numerics_id == id));
  }
  for (char c : id) CHECK((c >= ' ' && c <= '~'));
}

TEST_CASE("KV types and cache shapes out of range are refused by name") {
  using Catch::Matchers::Contains;
  const auto refused = Kind().create({.kv_type = KvType::kF32});
  REQUIRE(refused.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(refused.status().message()), Contains("f16, bf16 and q8"));
  const std::unique_ptr<Device> device = Make({});
  auto message = [&](KvCacheShape shape) {
    const auto cache = device->CreateKvCache(shape);
    REQUIRE(!cache.ok());
    return std::string(cache.status().message());
  };
  CHECK_THAT(message({0, 1, 64, 1, KvType::kF16}), Contains("layers is 0"));
  CHECK_THAT(message({1, -1, 64, 1, KvType::kF16}), Contains("kv_heads is -1"));
  CHECK_THAT(message({1, 1, 2048, 1, KvType::kF16}), Contains("head_dim is 2048"));
  CHECK_THAT(message({1, 1, 64, 0, KvType::kF16}), Contains("pages is 0"));
  CHECK_THAT(message({1, 1, 64, 1, KvType::kBF16}), Contains("type"));
  CHECK_THAT(message({3, 1, 64, 1, KvType::kF16, {0, 1}}), Contains("gather_layers has 2 entries"));
  CHECK(device->CreateKvCache({65536, 65536, 1024, 2147483647, KvType::kF16}).status().code() ==
        absl::StatusCode::kResourceExhausted);
}

TEST_CASE("keys kept a second time are counted among a page's bytes") {
  const KvCacheShape plain{3, 2, 64, 1, KvType::kF16};
  KvCacheShape gather = plain;
  gather.gather_layers = {0, 1, 1};
  const int64_t scales = 3 * 2 * kPageTokens * 4;
  CHECK(KvPageBytes(plain) == 2 * 3 * 2 * 64 * kPageTokens * 2 + scales);
  CHECK(KvPageBytes(gather) == (2 * 3 + 2) * 2 * 64 * kPageTokens * 2 + scales);
  gather.type = KvType::kQ8;
  CHECK(KvPageBytes(gather) == (2 * 3 + 2) * 2 * 64 * kPageTokens + scales);
  gather.type = KvType::kF32;
  CHECK(KvPageBytes(gather) == 2 * 3 * 2 * 64 * kPageTokens * 4);
}

TEST_CASE("device memory is zeroed and aligned; an excessive size is an error") {
  const std::unique_ptr<Device> device = Make({});
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{5} << 20}) {
    const auto buffer = device->Allocate(bytes);
    REQUIRE(buffer.ok());
    CHECK((*buffer)->bytes() == bytes);
    CHECK(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64 == 0);
    const char* data = static_cast<const char*>((*buffer)->data());
    for (size_t i = 0; i < bytes; i += 61) REQUIRE(data[i] == 0);
  }
  CHECK(device->Allocate(SIZE_MAX / 2).status().code() == absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace mnemo::devices::cpu
