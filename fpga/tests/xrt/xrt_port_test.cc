// XrtPort over XRT's own software emulation, whose device process is plain_card.cc. One process opens the
// card once: the emulation serves one device a process.
#include "fpga/xrt/xrt_port.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "fpga/xrt/xclbin_file.h"
#include "proto/layout/card.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::xrt_card {
namespace {

// XRT kills its process group when the device process dies: this process leaves the group of what started it.
[[maybe_unused]] const pid_t kSession = ::setsid();

std::string Write(const std::string& name, const std::vector<uint8_t>& bytes) {
  const std::string path = (std::filesystem::temp_directory_path() / name).string();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return path;
}

TEST_CASE("what misses is named with what to do") {
  const auto refused = [](const XrtPortOptions& options) {
    const absl::Status status = XrtPort::Create(options).status();
    REQUIRE_FALSE(status.ok());
    return std::string(status.message());
  };
  CHECK(refused({}) == "xclbin: the path of the card's image is missing");
  CHECK(refused({.xclbin = "/nowhere/card.xclbin"}) ==
        "xclbin: /nowhere/card.xclbin: No such file or directory");
  const std::string root = std::getenv("XILINX_XRT");
  ::unsetenv("XILINX_XRT");
  const std::string image = Write("mnemo_card_named.xclbin", MakeEmulationXclbin({}));
  CHECK(refused({.xclbin = image}).find("XILINX_XRT is not set") == 0);
  ::setenv("XILINX_XRT", root.c_str(), 1);
}

void OnSignal(int) {}

// The process of the next test does this. Its exit code tells what went wrong; 1 is the guard's.
[[noreturn]] void LoseTheDeviceProcess(const std::string& image) {
  constexpr int kSignals[] = {SIGSEGV, SIGFPE, SIGABRT, SIGUSR1, SIGCHLD};
  for (const int number : kSignals) ::signal(number, OnSignal);
  const pid_t group = ::getpgrp();
  auto port = XrtPort::Create({.xclbin = image, .hbm_bytes = uint64_t{32} << 20, .host_bytes = 1 << 20});
  if (!port.ok() || (*port)->device_process() <= 0) ::_exit(10);
  for (const int number : kSignals) {
    struct sigaction action {};
    ::sigaction(number, nullptr, &action);
    if (action.sa_handler != OnSignal) ::_exit(11);
  }
  if (::getpgrp() != group) ::_exit(12);
  ::kill((*port)->device_process(), SIGKILL);
  while (true) (*port)->ReadRegister(layout::kCardRegMagic).IgnoreError();
}

TEST_CASE("a program keeps its signals and its group, and ends alone with its device process") {
  const std::string image = Write("mnemo_card_lost.xclbin", MakeEmulationXclbin({.channels = 2}));
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe[1], STDERR_FILENO);
    LoseTheDeviceProcess(image);
  }
  ::close(pipe[1]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CAPTURE(status);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  std::string said(4096, '\0');
  said.resize(static_cast<size_t>(std::max<ssize_t>(::read(pipe[0], said.data(), said.size()), 0)));
  ::close(pipe[0]);
  CHECK(said.find("XRT's emulation: the device process has ended") != std::string::npos);
}

TEST_CASE("a card of another version is refused, naming both hashes") {
  const std::string image = Write("mnemo_card_other.xclbin", MakeEmulationXclbin({.channels = 2}));
  ::setenv("MNEMO_PLAIN_CARD_HASH", "5", 1);
  const absl::Status status = XrtPort::Create({.xclbin = image}).status();
  ::unsetenv("MNEMO_PLAIN_CARD_HASH");
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(
      status.message() ==
      fmt::format("xclbin {}: layout hash of the card is 0x5, this program's {:#x}; the image was made from "
                  "another version of mnemo; fpga/build makes one",
                  image, layout::kLayoutHash));
}

TEST_CASE("emulation has no interrupts, and is polled unless they are asked for") {
  XrtPortOptions options{
      .xclbin = Write("mnemo_card_polled.xclbin", MakeEmulationXclbin({})),
      .hbm_bytes = uint64_t{32} << 20,
      .host_bytes = 1 << 20,
      .interrupts = Interrupts::kOn,
  };
  const absl::Status refused = XrtPort::Create(options).status();
  CHECK(refused.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(refused.message() == "interrupts: XRT's emulation has none; allowed there: auto, off");
}

TEST_CASE("registers, channels and host memory are reached through XRT") {
  std::mt19937 random(1);
  const XclbinSpec spec{.channels = 2, .channel_bytes = uint64_t{64} << 20};
  const std::string text = Write("mnemo_text.xclbin", std::vector<uint8_t>(1000, 'x'));
  CHECK(XrtPort::Create({.xclbin = text}).status().code() == absl::StatusCode::kInvalidArgument);

  const std::string image = Write("mnemo_card_test.xclbin", MakeEmulationXclbin(spec));
  auto created = XrtPort::Create({.xclbin = image, .hbm_bytes = uint64_t{32} << 20, .host_bytes = 1 << 20});
  INFO(created.status().message());
  REQUIRE(created.ok());
  XrtPort& port = **created;
  CHECK(port.ReadRegister(layout::kCardRegMagic).value() == layout::kCardMagic);
  REQUIRE(port.WriteRegister(0x400, 0x12345678).ok());
  CHECK(port.ReadRegister(0x400).value() == 0x12345678);

  uint64_t bases[2];
  for (uint32_t n = 0; n < 2; ++n) {
    const uint32_t at = layout::kCardRegChannels + 8 * n;
    bases[n] = uint64_t{port.ReadRegister(at).value()} * layout::kCardBeatBytes;
    CHECK(uint64_t{port.ReadRegister(at + 4).value()} * layout::kCardBeatBytes == uint64_t{16} << 20);
  }
  for (uint32_t n = 0; n < 2; ++n) {
    CAPTURE(n);
    std::vector<uint8_t> bytes(9 << 20);  // more than a piece of the emulation's protocol
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    REQUIRE(port.Write(bases[n], bytes).ok());
    std::vector<uint8_t> back(5000);
    REQUIRE(port.Read(bases[n] + 777 * 64, back).ok());
    CHECK(std::memcmp(back.data(), bytes.data() + 777 * 64, back.size()) == 0);
    // The card writes host memory that the host reads in place.
    REQUIRE(port.host_memory().size() == 1 << 20);
    REQUIRE(port.WriteRegister(0xF00, n).ok());
    REQUIRE(port.ReadRegister(0xF04).value() == 1);
    CHECK(std::memcmp(port.host_memory().data(), bytes.data(), 64) == 0);
    const absl::Status outside = port.Write(bases[n] + (16 << 20) - 64, std::vector<uint8_t>(128));
    CHECK(outside.code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace mnemo::xrt_card
