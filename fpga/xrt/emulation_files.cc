#include "fpga/xrt/emulation_files.h"

#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "fpga/xrt/host_check.h"

namespace mnemo::xrt_card {
namespace {

namespace fs = std::filesystem;

absl::Status Write(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  return file ? absl::OkStatus() : Unavailable("{}: cannot be written", path.string());
}

void Link(const fs::path& to, const fs::path& link) {
  fs::create_directories(link.parent_path());
  fs::remove(link);
  fs::create_symlink(to, link);
}

}  // namespace

absl::Status WriteEmulationFiles(const std::string& folder, const std::string& program,
                                 const std::string& xrt_libraries, const XclbinSpec& spec) {
  fs::path root;
  try {
    root = fs::absolute(folder);
    Link(fs::absolute(program), root / "vitis" / kModelPath);
    Link(xrt_libraries, root / "xrt" / "lib");
    fs::create_directories(root / "run");
  } catch (const fs::filesystem_error& error) {
    return Unavailable("{}: {}", error.path1().string(), error.code().message());
  }
  const std::vector<uint8_t> image = MakeEmulationXclbin(spec);
  MNEMO_RETURN_IF_ERROR(
      Write(root / kImageName, {reinterpret_cast<const char*>(image.data()), image.size()}));
  // Without it a program waits for 5 seconds when it closes the card.
  MNEMO_RETURN_IF_ERROR(Write(root / "xrt.ini", "[Emulation]\nkeep_run_dir=true\n"));
  return Write(root / "environment", fmt::format("XCL_EMULATION_MODE=sw_emu\n"
                                                 "XILINX_XRT={0}/xrt\n"
                                                 "XILINX_VITIS={0}/vitis\n"
                                                 "XRT_INI_PATH={0}/xrt.ini\n"
                                                 "SDACCEL_EM_RUN_DIR={0}/run\n",
                                                 root.string()));
}

}  // namespace mnemo::xrt_card
