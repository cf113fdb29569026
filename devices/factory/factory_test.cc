#include <catch2/catch.hpp>
#include <set>

#include "devices/device_registry.h"

namespace mnemo::devices {
namespace {

TEST_CASE("every kind of this build can be made, and its packer is its device's") {
  std::set<std::string> names;
  for (const DeviceKind& kind : DeviceKinds()) {
    INFO(kind.name);
    CHECK(names.insert(kind.name).second);
    std::vector<std::string> isas = kind.isas;
    isas.push_back("auto");
    for (const std::string& isa : isas) {
      DeviceOptions options;
      options.kind = kind.name;
      options.isa = isa;
      options.threads = 2;
      const auto device = CreateDevice(options);
      REQUIRE(device.ok());
      CHECK((*device)->info().kind == kind.name);
      CHECK((*device)->info().threads == 2);
      CHECK(!(*device)->info().numerics_id.empty());
      if (isa != "auto") CHECK((*device)->info().isa == isa);
      const auto packer = CreateWeightPacker(options);
      REQUIRE(packer.ok());
      CHECK((*packer)->layout() == (*device)->packer().layout());
    }
  }
  CHECK(names.count("reference") == 1);
}

TEST_CASE("options out of range are refused, naming the field and the valid values") {
  auto refusal = [](const DeviceOptions& options) {
    const absl::Status status = CreateDevice(options).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(CreateWeightPacker(options).status().code() == absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  DeviceOptions options;
  options.kind = "abacus";
  CHECK_THAT(refusal(options), Catch::Contains("abacus") && Catch::Contains("reference"));
  options.kind = "reference";
  for (int threads : {-1, 0, 1025}) {
    options.threads = threads;
    CHECK_THAT(refusal(options), Catch::Contains("threads") && Catch::Contains("1024"));
  }
  options.threads = 1;
  for (const DeviceKind& kind : DeviceKinds()) {
    if (kind.isas.empty()) continue;
    options.kind = kind.name;
    options.isa = "pdp11";
    CHECK_THAT(refusal(options), Catch::Contains("pdp11") && Catch::Contains(kind.isas.front()));
  }
}

}  // namespace
}  // namespace mnemo::devices
