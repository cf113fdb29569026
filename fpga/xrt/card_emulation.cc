// The simulated card for XRT's software emulation, as one program with two uses. XRT starts it as its device
// process, with the name of a socket in the environment; a person starts it to write the files that XRT needs
// for that.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "fpga/sim/rtl_card.h"
#include "fpga/xrt/device_process.h"
#include "fpga/xrt/emulated_rtl.h"
#include "fpga/xrt/emulation_files.h"

#ifndef MNEMO_XRT_LIBRARIES
#error MNEMO_XRT_LIBRARIES is set by CMakeLists.txt
#endif

namespace mnemo::xrt_card {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "card_emulation: %s\n", std::string(status.message()).c_str());
  return 1;
}

int ServeXrt(const std::string& user, const std::string& socket) {
  // Signals to the host's process group, of which XRT wants this process to be, are not for the card: it ends
  // with its host.
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_IGN);
  const sim::RtlCardOptions options;
  auto process =
      DeviceProcess::Connect("/tmp/" + user + "/" + socket, std::make_unique<EmulatedRtl>(options));
  if (!process.ok()) return Fail(process.status());
  const absl::Status end = (*process)->Serve();
  // A host that is killed closes nothing.
  return end.ok() || absl::IsUnavailable(end) ? 0 : Fail(end);
}

int WriteFiles(int argc, char** argv) {
  std::string folder;
  XclbinSpec spec;
  spec.channels = sim::RtlCard::Channels();
  CLI::App app(
      "Writes the files with which XRT's software emulation runs a simulated card: its image and a file "
      "`environment`, whose variables a program of XRT needs.",
      "card_emulation");
  app.add_option("folder", folder, "Folder of the files; it is made")->required();
  app.add_option("--channel-bytes", spec.channel_bytes, "Memory of each channel")
      ->check(CLI::Range(uint64_t{4} << 20, uint64_t{1} << 30));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status =
      WriteEmulationFiles(folder, std::filesystem::read_symlink("/proc/self/exe"), MNEMO_XRT_LIBRARIES, spec);
  if (!status.ok()) return Fail(status);
  std::printf("%s/%s\n", folder.c_str(), kImageName);
  return 0;
}

}  // namespace
}  // namespace mnemo::xrt_card

int main(int argc, char** argv) {
  const char* const user = std::getenv("USER");
  const char* const socket = std::getenv("EMULATION_SOCKETID");
  if (argc == 1 && user != nullptr && socket != nullptr) return mnemo::xrt_card::ServeXrt(user, socket);
  return mnemo::xrt_card::WriteFiles(argc, argv);
}
