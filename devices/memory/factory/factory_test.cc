#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "devices/memory/memory_device_registry.h"

namespace mnemo::memory_device {
namespace {

std::string Refusal(const MemoryDeviceOptions& options) {
  const absl::Status status = MakeMemoryDevice(options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

// Names of all kinds, as messages list them.
std::string AllKinds() {
  std::string names;
  for (const MemoryDeviceKind& kind : MemoryDeviceKinds()) names += (names.empty() ? "" : ", ") + kind.name;
  return names;
}

TEST_CASE("every kind of this build has a name of its own") {
  std::set<std::string> names;
  for (const MemoryDeviceKind& kind : MemoryDeviceKinds()) CHECK(names.insert(kind.name).second);
  CHECK(names.count("cpu") == 1);
  CHECK(names.count("card-model") == 1);
}

TEST_CASE("a kind or an option that is not known is refused, naming what there is") {
  CHECK(Refusal({.kind = "abacus"}) == "memory device \"abacus\" is not known; there are: " + AllKinds());
  CHECK(Refusal({.device_options = {{"beads", "10"}}}) ==
        "device option \"beads\": memory device cpu has no options");
}

TEST_CASE("a kind that is added gets its options, once each, and no others") {
  static std::vector<std::string> values;
  AddMemoryDeviceKind(
      {.name = "abacus",
       .option_keys = {"beads", "rods"},
       .create = [](const MemoryDeviceOptions& options) -> absl::StatusOr<std::unique_ptr<MemoryDevice>> {
         for (const auto& [key, value] : options.device_options) values.push_back(key + "=" + value);
         return Unavailable("made of wood");
       }});
  MemoryDeviceOptions options{.kind = "abacus", .device_options = {{"rods", "3"}, {"beads", ""}}};
  CHECK(MakeMemoryDevice(options).status().code() == absl::StatusCode::kUnavailable);
  CHECK(values == std::vector<std::string>{"rods=3", "beads="});
  options.device_options.emplace_back("rods", "4");
  CHECK(Refusal(options) == "device option \"rods\" is given twice");
  options.device_options = {{"wires", "4"}};
  CHECK(Refusal(options) == "device option \"wires\" is not known; memory device abacus has: beads, rods");
  CHECK(AllKinds().ends_with(", abacus"));
  CHECK(Refusal({.kind = "slide rule"}) ==
        "memory device \"slide rule\" is not known; there are: " + AllKinds());
}

TEST_CASE("a check of a kind tells the fault, the option and what is allowed") {
  using Fault = KindCheck::Fault;
  const KindCheck good = CheckKind("cpu", {});
  CHECK(good.fault == Fault::kNone);
  CHECK(good.kind.name == "cpu");
  const KindCheck unknown = CheckKind("sundial", {{"beads", "1"}});
  CHECK(unknown.fault == Fault::kUnknownKind);
  CHECK(std::count(unknown.allowed.begin(), unknown.allowed.end(), "cpu") == 1);
  const KindCheck key = CheckKind("cpu", {{"beads", "1"}});
  CHECK(key.fault == Fault::kUnknownKey);
  CHECK(key.key == "beads");
  CHECK(key.allowed.empty());
}

}  // namespace
}  // namespace mnemo::memory_device
