#include "fpga/device/cpu_memory_device.h"

#include <catch2/catch.hpp>

#include "fpga/device/memory_device.h"

namespace mnemo::fpga {
namespace {

TEST_CASE("an unknown kind of device is refused") {
  const auto device = MakeMemoryDevice({.kind = "abacus"}, nullptr);
  CHECK(std::string(device.status().message()) == "memory device 'abacus' is not known; there is: cpu");
}

}  // namespace
}  // namespace mnemo::fpga
