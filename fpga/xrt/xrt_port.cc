#include "fpga/xrt/xrt_port.h"

#include <experimental/xrt_ip.h>
#include <experimental/xrt_xclbin.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <utility>
#include <vector>

#include "fpga/xrt/xclbin_file.h"
#include "proto/layout/card.h"

namespace mnemo::xrt_card {
namespace {

// Runs what XRT may throw from. `what` says what was tried, `advice` what to do about a failure.
template <typename Function>
absl::Status Try(absl::StatusCode code, const std::string& what, const std::string& advice,
                 const Function& function) {
  try {
    function();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return {code, advice.empty() ? fmt::format("{}: {}", what, error.what())
                                 : fmt::format("{}: {}; {}", what, error.what(), advice)};
  }
}

constexpr uint64_t kLeastChannelBytes = uint64_t{4} << 20;

bool IsEmulation() {
  const char* mode = std::getenv("XCL_EMULATION_MODE");
  return mode != nullptr && *mode != '\0';
}

// Checks first whatever XRT reports by exiting, or by a message that names nothing.
absl::Status CheckHost(const XrtPortOptions& options) {
  if (const char* root = std::getenv("XILINX_XRT"); root == nullptr || *root == '\0') {
    return FailedPrecondition(
        "XILINX_XRT is not set: it must name the folder of XRT, whose folder lib has XRT's libraries");
  }
  if (IsEmulation() && std::getenv("USER") == nullptr) {
    return FailedPrecondition("USER is not set: XRT's emulation names its socket by it");
  }
  if (options.xclbin.empty()) return InvalidArgument("xclbin: the path of the card's image is missing");
  if (::access(options.xclbin.c_str(), R_OK) != 0) {
    return NotFound("xclbin: {}: {}", options.xclbin, std::generic_category().message(errno));
  }
  return absl::OkStatus();
}

bool IsIndex(const std::string& device) {
  return !device.empty() && device.size() < 4 &&
         std::all_of(device.begin(), device.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

struct XrtPort::Parts {
  xrt::device device;
  xrt::xclbin image;
  xrt::ip kernel;
  // Whole channels. XRT copies only to objects that have a copy in the host's memory, of the same size.
  std::vector<xrt::bo> channels;
  uint64_t channel_bytes = 0;
  xrt::bo host;
  std::span<uint8_t> host_memory;
  uint64_t host_address = 0;
};

XrtPort::XrtPort(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
XrtPort::~XrtPort() = default;

absl::StatusOr<std::unique_ptr<XrtPort>> XrtPort::Create(const XrtPortOptions& options) {
  MNEMO_RETURN_IF_ERROR(CheckHost(options));
  auto parts = std::make_unique<Parts>();
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kNotFound, "device " + options.device,
                            "`xbutil examine` lists the cards that XRT sees", [&] {
                              parts->device =
                                  IsIndex(options.device)
                                      ? xrt::device(static_cast<unsigned>(std::stoul(options.device)))
                                      : xrt::device(options.device);
                            }));
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kInvalidArgument, "xclbin " + options.xclbin,
                            "fpga/build makes it for a platform", [&] {
                              parts->image = xrt::xclbin(options.xclbin);
                              std::vector<std::string> names;
                              for (const xrt::xclbin::ip& ip : parts->image.get_ips())
                                names.push_back(ip.get_name());
                              if (!parts->image.get_ip(fmt::format("{}:{}", kKernelName, kInstanceName))) {
                                throw std::runtime_error(fmt::format("no kernel {}:{}; it has: {}",
                                                                     kKernelName, kInstanceName,
                                                                     fmt::join(names, ", ")));
                              }
                            }));
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kFailedPrecondition, "loading " + options.xclbin,
                            "its platform must be the card's, and no other program may use the card", [&] {
                              const xrt::uuid id = parts->device.load_xclbin(parts->image);
                              parts->kernel = xrt::ip(parts->device, id,
                                                      fmt::format("{}:{{{}}}", kKernelName, kInstanceName));
                            }));
  std::unique_ptr<XrtPort> port(new XrtPort(std::move(parts)));
  MNEMO_RETURN_IF_ERROR(port->TakeMemory(options));
  return port;
}

absl::Status XrtPort::TakeMemory(const XrtPortOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t shape, ReadRegister(layout::kCardRegShape));
  const uint32_t channels = shape & 0xFF;
  Parts& parts = *parts_;
  std::vector<xrt::xclbin::arg> arguments;
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kInvalidArgument, "xclbin " + options.xclbin, "", [&] {
    arguments = parts.image.get_ip(fmt::format("{}:{}", kKernelName, kInstanceName)).get_args();
  }));
  if (channels == 0 || arguments.size() != channels + 1) {
    return InvalidArgument("xclbin {}: the kernel has {} memory ports, its register tells {} channels",
                           options.xclbin, arguments.size(), channels);
  }
  uint64_t least_bytes = UINT64_MAX;
  std::vector<uint32_t> groups;
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kInvalidArgument, "memories of " + options.xclbin, "", [&] {
    for (const xrt::xclbin::arg& argument : arguments) {
      const xrt::xclbin::mem memory = argument.get_mems().at(0);
      groups.push_back(static_cast<uint32_t>(memory.get_index()));
      if (groups.size() <= channels) least_bytes = std::min(least_bytes, memory.get_size_kb() * 1024);
    }
  }));
  parts.channel_bytes = options.hbm_bytes == 0 ? least_bytes : options.hbm_bytes / channels / 4096 * 4096;
  if (parts.channel_bytes < kLeastChannelBytes || parts.channel_bytes > least_bytes) {
    return InvalidArgument("hbm_bytes: {}; allowed: {} to {}", options.hbm_bytes,
                           kLeastChannelBytes * channels, least_bytes * channels);
  }
  for (uint32_t n = 0; n < channels; ++n) {
    MNEMO_RETURN_IF_ERROR(Try(
        absl::StatusCode::kResourceExhausted, fmt::format("channel {}, {} bytes", n, parts.channel_bytes),
        "hbm_bytes asks for less", [&] {
          parts.channels.emplace_back(parts.device, parts.channel_bytes, xrt::bo::flags::normal, groups[n]);
        }));
    const uint64_t base = parts.channels[n].address() / layout::kCardBeatBytes;
    const uint32_t at = layout::kCardRegChannels + 8 * n;
    MNEMO_RETURN_IF_ERROR(WriteRegister(at, static_cast<uint32_t>(base)));
    MNEMO_RETURN_IF_ERROR(
        WriteRegister(at + 4, static_cast<uint32_t>(parts.channel_bytes / layout::kCardBeatBytes)));
  }
  const bool host = options.memory == HostMemory::kHost;
  return Try(absl::StatusCode::kFailedPrecondition,
             fmt::format("{} bytes of {} memory", options.host_bytes, host ? "host" : "peer-to-peer"),
             host ? "`xbutil configure --host-mem` enables it" : "`xbutil configure --p2p` enables it", [&] {
               parts.host = xrt::bo(parts.device, options.host_bytes,
                                    host ? xrt::bo::flags::host_only : xrt::bo::flags::p2p,
                                    host ? groups[channels] : groups[0]);
               parts.host_memory = {parts.host.map<uint8_t*>(), options.host_bytes};
               parts.host_address = parts.host.address();
             });
}

absl::StatusOr<uint32_t> XrtPort::ReadRegister(uint32_t offset) {
  uint32_t value = 0;
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kUnavailable, fmt::format("register {:#x}", offset), "",
                            [&] { value = parts_->kernel.read_register(offset); }));
  return value;
}

absl::Status XrtPort::WriteRegister(uint32_t offset, uint32_t value) {
  return Try(absl::StatusCode::kUnavailable, fmt::format("register {:#x}", offset), "",
             [&] { parts_->kernel.write_register(offset, value); });
}

// Copies to `to`, or else from `from`.
absl::Status XrtPort::Copy(uint64_t address, uint64_t size, uint8_t* to, const uint8_t* from) {
  const auto channel = std::find_if(parts_->channels.begin(), parts_->channels.end(), [&](const xrt::bo& of) {
    return address >= of.address() && address - of.address() < parts_->channel_bytes;
  });
  if (channel == parts_->channels.end() || size > parts_->channel_bytes - (address - channel->address())) {
    return InvalidArgument("card memory {:#x}, {} bytes: not within a channel", address, size);
  }
  const uint64_t offset = address - channel->address();
  return Try(absl::StatusCode::kUnavailable, fmt::format("card memory {:#x}, {} bytes", address, size), "",
             [&] {
               if (to != nullptr) {
                 channel->sync(XCL_BO_SYNC_BO_FROM_DEVICE, size, offset);
                 channel->read(to, size, offset);
               } else {
                 channel->write(from, size, offset);
                 channel->sync(XCL_BO_SYNC_BO_TO_DEVICE, size, offset);
               }
             });
}

absl::Status XrtPort::Write(uint64_t address, std::span<const uint8_t> bytes) {
  return Copy(address, bytes.size(), nullptr, bytes.data());
}

absl::Status XrtPort::Read(uint64_t address, std::span<uint8_t> bytes) {
  return Copy(address, bytes.size(), bytes.data(), nullptr);
}

std::span<uint8_t> XrtPort::host_memory() { return parts_->host_memory; }
uint64_t XrtPort::host_address() const { return parts_->host_address; }

}  // namespace mnemo::xrt_card
