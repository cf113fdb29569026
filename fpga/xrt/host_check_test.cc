// Checks of the host, over a file system of the test's own, and the sensor of power.
#include "fpga/xrt/host_check.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "fpga/xrt/card_power.h"

namespace mnemo::xrt_card {
namespace {

namespace fs = std::filesystem;

// A variable of the environment, as it was before when the test has ended.
class Variable {
 public:
  explicit Variable(const char* name) : name_(name) {
    if (const char* value = std::getenv(name)) before_ = value;
    ::unsetenv(name);
  }
  ~Variable() { before_.has_value() ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }
  void Set(const std::string& value) { ::setenv(name_, value.c_str(), 1); }

 private:
  const char* const name_;
  std::optional<std::string> before_;
};

struct Host {
  Host() {
    fs::remove_all(folder);
    fs::create_directories(folder / "xrt/lib");
    xrt.Set((folder / "xrt").string());
    user.Set("somebody");
  }
  ~Host() { fs::remove_all(folder); }
  // A card of the driver, with its file in /dev.
  void AddCard(const std::string& address, const std::string& node) {
    const fs::path card = driver / address;
    fs::create_directories(node.empty() ? card : card / "drm" / node);
    if (node.empty()) return;
    fs::create_directories(folder / "dev/dri");
    std::ofstream(folder / "dev/dri" / node) << "";
  }
  absl::Status Check(const std::string& device) const {
    return CheckHost(device, {.sys = (folder / "sys").string(), .dev = (folder / "dev").string()});
  }
  std::string Message(const std::string& device) const { return std::string(Check(device).message()); }

  const fs::path folder = fs::temp_directory_path() / fmt::format("mnemo_host_check_{}", ::getpid());
  const fs::path driver = folder / "sys/bus/pci/drivers/xocl";
  Variable xrt{"XILINX_XRT"};
  Variable vitis{"XILINX_VITIS"};
  Variable mode{"XCL_EMULATION_MODE"};
  Variable user{"USER"};
};

TEST_CASE("a host without XRT, its driver or a card is told what to do") {
  Host host;
  host.xrt.Set("/nowhere");
  CHECK(host.Message("0") == "XILINX_XRT: /nowhere/lib: no such folder; it must have XRT's libraries");
  ::unsetenv("XILINX_XRT");
  CHECK(host.Message("0").find("XILINX_XRT is not set") == 0);
  host.xrt.Set((host.folder / "xrt").string());
  CHECK(host.Message("0") ==
        "device 0: the driver xocl is not loaded; install XRT's package for this kernel and `modprobe xocl`");
  fs::create_directories(host.driver);
  CHECK(host.Check("0").code() == absl::StatusCode::kNotFound);
  CHECK(host.Message("0").find("device 0: the driver xocl has no card") == 0);
}

TEST_CASE("a card is found by index or bus address, and must be open to this user") {
  Host host;
  host.AddCard("0000:3b:00.1", "renderD128");
  fs::create_directories(host.driver / "module");
  CHECK(host.Check("0").ok());
  CHECK(host.Check("0000:3b:00.1").ok());
  CHECK(host.Message("1") == "device 1: the driver xocl has 1 cards: 0000:3b:00.1");
  CHECK(host.Message("0000:5e:00.1") ==
        "device 0000:5e:00.1: the driver xocl has no such card; it has: 0000:3b:00.1");
  host.AddCard("0000:5e:00.1", "");
  CHECK(host.Message("0000:5e:00.1").find("device 0000:5e:00.1: the driver xocl has made no file renderD*") ==
        0);
  fs::remove(host.folder / "dev/dri/renderD128");
  const absl::Status closed = host.Check("0000:3b:00.1");
  CHECK(closed.code() == absl::StatusCode::kPermissionDenied);
  CHECK(closed.message().find("renderD128: No such file or directory; add the user to the file's group") !=
        std::string::npos);
}

TEST_CASE("an emulation without its files is told what to do") {
  Host host;
  host.mode.Set("hw_emu");
  CHECK(host.Message("0") == "XCL_EMULATION_MODE: hw_emu; allowed: sw_emu, or not set for a card");
  host.mode.Set("sw_emu");
  CHECK(host.Message("0").find("XILINX_VITIS is not set") == 0);
  host.vitis.Set(host.folder.string());
  const fs::path model = host.folder / "data/emulation/unified/cpu_em/generic_pcie/model/genericpciemodel";
  CHECK(host.Message("0").find(model.string() + ": No such file or directory; ") == 0);
  fs::create_directories(model.parent_path());
  fs::create_symlink("/bin/true", model);
  CHECK(host.Check("0").ok());
  ::unsetenv("USER");
  CHECK(host.Message("0") == "USER is not set: XRT's emulation names its socket by it");
}

TEST_CASE("power is what XRT tells of the whole card") {
  CHECK(WattsOf(R"({"power_consumption_max_watts":"150","power_consumption_watts":"24.5"})") == 24.5);
  CHECK(WattsOf(R"({"power_consumption_watts":31})") == 31.0);
  for (const char* without :
       {"", "{", "[1]", "{}", R"({"power_consumption_watts":"N/A"})", R"({"power_consumption_watts":"0"})",
        R"({"power_consumption_watts":"-3"})", R"({"power_consumption_watts":"inf"})",
        R"({"power_consumption_watts":null})"}) {
    CAPTURE(without);
    CHECK_FALSE(WattsOf(without).has_value());
  }
}

TEST_CASE("temperature is the highest of the card's sensors") {
  CHECK(DegreesOf(R"({"thermals":[{"temp_C":"37"},{"temp_C":"41","is_present":"true"},{"temp_C":"0"}]})") ==
        41.0);
  for (const char* without : {"", "[]", "{}", R"({"thermals":[]})", R"({"thermals":[5,{"temp_C":"N/A"}]})",
                              R"({"thermals":"hot"})"}) {
    CAPTURE(without);
    CHECK_FALSE(DegreesOf(without).has_value());
  }
}

}  // namespace
}  // namespace mnemo::xrt_card
