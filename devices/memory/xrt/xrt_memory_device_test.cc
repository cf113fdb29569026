// Options of the kind xrt. What a card answers is compared by tests/conformance over XRT's emulation.
#include "devices/memory/xrt/xrt_memory_device.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "fpga/xrt/xclbin_file.h"

namespace mnemo::memory_device::xrt {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

MemoryDeviceOptions With(Pairs pairs) {
  return {.kind = "xrt", .name = "one", .device_options = std::move(pairs)};
}

std::string Refusal(Pairs pairs) {
  const absl::Status status = Kind().create(With(std::move(pairs))).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

std::string WriteImage(const xrt_card::XclbinSpec& spec) {
  std::string path = (std::filesystem::temp_directory_path() / "mnemo_options_test.xclbin").string();
  const std::vector<uint8_t> bytes = xrt_card::MakeEmulationXclbin(spec);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return path;
}

TEST_CASE("values of options are checked, and what is allowed is named") {
  CHECK(Refusal({}) ==
        "device option \"xclbin\": the path of the card's image is missing; fpga/build makes an image, "
        "`card_emulation` one for XRT's emulation");
  CHECK(Refusal({{"index", "256"}}) ==
        "device option \"index\": \"256\"; allowed: whole numbers from 0 to 255");
  CHECK(Refusal({{"memory", "disk"}}) == "device option \"memory\": \"disk\"; allowed: host, hbm");
  CHECK(Refusal({{"hbm_bytes", "1"}}) ==
        "device option \"hbm_bytes\": \"1\"; allowed: whole numbers from 4194304 to 34359738368");
  CHECK(Refusal({{"host_bytes", "1"}}) ==
        "device option \"host_bytes\": \"1\"; allowed: whole numbers from 4194304 to 1073741824");
  CHECK(Refusal({{"clock_mhz", "fast"}}) ==
        "device option \"clock_mhz\": \"fast\"; allowed: whole numbers from 0 to 1000");
  CHECK(Refusal({{"interrupts", "yes"}}) == "device option \"interrupts\": \"yes\"; allowed: auto, on, off");
  CHECK(Refusal({{"watchdog", "999"}}) ==
        "device option \"watchdog\": \"999\"; allowed: whole numbers from 1000 to 4294967295");
  CHECK(Refusal({{"index", "0"}, {"bdf", "0000:3b:00.1"}}) ==
        "device options \"index\" and \"bdf\": only one names the card");
  for (const char* bdf : {"", "3b:00.1", "0000:3B:00.1", "0000:3b:00:1", "0000:3b:00.g", "0000:3b:00.1 "}) {
    CAPTURE(bdf);
    CHECK(Refusal({{"bdf", bdf}}).find("device option \"bdf\": \"" + std::string(bdf) + "\"; allowed: ") ==
          0);
  }
}

TEST_CASE("options reach the port and the driver") {
  const std::string image = WriteImage({.clock_mhz = 275});
  const auto parsed = ParseOptions(With({{"xclbin", image},
                                         {"bdf", "0000:3b:00.1"},
                                         {"memory", "hbm"},
                                         {"hbm_bytes", "8388608"},
                                         {"host_bytes", "4198401"},
                                         {"clock_mhz", "270"},
                                         {"interrupts", "off"},
                                         {"watchdog", "5000"}}));
  REQUIRE(parsed.ok());
  CHECK(parsed->port.xclbin == image);
  CHECK(parsed->port.device == "0000:3b:00.1");
  CHECK(parsed->port.memory == xrt_card::HostMemory::kHbm);
  CHECK(parsed->port.hbm_bytes == 8388608);
  CHECK(parsed->port.host_bytes == 4198400);  // whole pages
  CHECK(parsed->port.clock_mhz == 270);
  CHECK(parsed->port.interrupts == xrt_card::Interrupts::kOff);
  const auto driver = DriverOptions(*parsed);
  REQUIRE(driver.ok());
  CHECK(driver->kind == "xrt");
  CHECK(driver->clock_mhz == 275);
  CHECK(driver->watchdog_cycles == 5000);
  CHECK(driver->simulated_time);
  CHECK(driver->energy.has_value());
}

TEST_CASE("an image that is missing, foreign or too slow is named") {
  const std::string image = WriteImage({.clock_mhz = 200});
  const absl::Status missing = Kind().create(With({{"xclbin", "/nowhere/card.xclbin"}})).status();
  CHECK(missing.code() == absl::StatusCode::kNotFound);
  CHECK(missing.message() == "xclbin: /nowhere/card.xclbin: No such file or directory");
  CHECK(Refusal({{"xclbin", image}, {"clock_mhz", "225"}}) ==
        "xclbin " + image + ": its clock is 200 MHz; at least 225 are asked for by clock_mhz");
  const std::string text = image + ".text";
  std::ofstream(text) << std::string(1000, 'x');
  CHECK(Refusal({{"xclbin", text}}).find("xclbin " + text + ": ") == 0);
}

}  // namespace
}  // namespace mnemo::memory_device::xrt
