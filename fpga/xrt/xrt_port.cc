#include "fpga/xrt/xrt_port.h"

#include <experimental/xrt_ip.h>
#include <experimental/xrt_xclbin.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <xclbin.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <utility>
#include <vector>

#include "fpga/xrt/card_power.h"
#include "fpga/xrt/host_check.h"
#include "fpga/xrt/xclbin_file.h"
#include "proto/layout/card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"

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

std::string InstanceName() { return fmt::format("{}:{}", kKernelName, kInstanceName); }

// The clock of the kernel; 0: the image does not tell it.
uint32_t ClockOf(const xrt::xclbin& image) {
  const auto* const clocks = image.get_axlf_section<const clock_freq_topology*>(CLOCK_FREQ_TOPOLOGY);
  for (int n = 0; clocks != nullptr && n < clocks->m_count; ++n) {
    if (clocks->m_clock_freq[n].m_type == CT_DATA) return clocks->m_clock_freq[n].m_freq_Mhz;
  }
  return 0;
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
XrtPort::~XrtPort() {
  if (guard_ != nullptr) guard_->Close();
}

absl::StatusOr<XrtImage> ReadImage(const std::string& path) {
  if (path.empty()) return InvalidArgument("xclbin: the path of the card's image is missing");
  if (::access(path.c_str(), R_OK) != 0) {
    return absl::Status(errno == EACCES ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kNotFound,
                        fmt::format("xclbin: {}: {}", path, std::generic_category().message(errno)));
  }
  XrtImage image;
  MNEMO_RETURN_IF_ERROR(
      Try(absl::StatusCode::kInvalidArgument, "xclbin " + path, "fpga/build makes it for a platform", [&] {
        const xrt::xclbin file(path);
        std::vector<std::string> names;
        for (const xrt::xclbin::ip& ip : file.get_ips()) names.push_back(ip.get_name());
        if (!file.get_ip(InstanceName())) {
          throw std::runtime_error(
              fmt::format("no kernel {}; it has: {}", InstanceName(), fmt::join(names, ", ")));
        }
        image.platform = file.get_xsa_name();
        image.uuid = file.get_uuid().to_string();
        image.clock_mhz = ClockOf(file);
        image.emulation = file.get_target_type() != xrt::xclbin::target_type::hw;
      }));
  return image;
}

absl::Status XrtPort::Open(const XrtPortOptions& options, const XrtImage& image, Parts* parts) {
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kNotFound, "device " + options.device,
                            "`xbutil examine` lists the cards that XRT sees", [&] {
                              parts->device =
                                  IsIndex(options.device)
                                      ? xrt::device(static_cast<unsigned>(std::stoul(options.device)))
                                      : xrt::device(options.device);
                            }));
  if (options.hot_reset && !IsSoftwareEmulation()) {
    MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kUnavailable, "reset of device " + options.device,
                              "`xbutil reset` may tell more; a cold boot always helps",
                              [&] { parts->device.reset(); }));
  }
  return Try(absl::StatusCode::kFailedPrecondition,
             fmt::format("loading {}, an image for {}", options.xclbin, image.platform),
             "`xbutil examine` tells the card's platform; no other program may use the card", [&] {
               parts->image = xrt::xclbin(options.xclbin);
               const xrt::uuid id = parts->device.load_xclbin(parts->image);
               parts->kernel =
                   xrt::ip(parts->device, id, fmt::format("{}:{{{}}}", kKernelName, kInstanceName));
             });
}

absl::StatusOr<std::unique_ptr<XrtPort>> XrtPort::Create(const XrtPortOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const XrtImage image, ReadImage(options.xclbin));
  if (image.clock_mhz < options.clock_mhz) {
    return InvalidArgument("xclbin {}: its clock is {} MHz; at least {} are asked for by clock_mhz",
                           options.xclbin, image.clock_mhz, options.clock_mhz);
  }
  MNEMO_RETURN_IF_ERROR(CheckHost(options.device));
  if (image.emulation != IsSoftwareEmulation()) {
    return InvalidArgument("xclbin {}: an image for {}; XCL_EMULATION_MODE asks for {}", options.xclbin,
                           image.emulation ? "emulation" : "a card",
                           IsSoftwareEmulation() ? "emulation" : "a card");
  }
  if (image.emulation && options.interrupts == Interrupts::kOn) {
    return FailedPrecondition("interrupts: XRT's emulation has none; allowed there: auto, off");
  }
  std::unique_ptr<XrtPort> port(new XrtPort(std::make_unique<Parts>()));
  if (image.emulation) port->guard_ = std::make_unique<EmulationGuard>();
  MNEMO_RETURN_IF_ERROR(Open(options, image, port->parts_.get()));
  if (image.emulation) MNEMO_RETURN_IF_ERROR(port->guard_->Watch());
  // A name is for people: a card that does not tell it is used all the same.
  Try(absl::StatusCode::kUnknown, "name", "", [&] {
    port->device_name_ = port->parts_->device.get_info<xrt::info::device::name>();
  }).IgnoreError();
  MNEMO_RETURN_IF_ERROR(port->CheckIdentity(options.xclbin));
  MNEMO_RETURN_IF_ERROR(port->TakeMemory(options));
  MNEMO_RETURN_IF_ERROR(port->TakeInterrupts(options));
  return port;
}

absl::Status XrtPort::CheckIdentity(const std::string& xclbin) {
  struct Identity {
    const char* name;
    uint32_t offset;
    uint64_t wanted;
    bool pair;
    const char* advice;
  };
  static constexpr char kOtherVersion[] =
      "the image was made from another version of mnemo; fpga/build makes one";
  constexpr Identity kIdentities[] = {
      {"magic", layout::kCardRegMagic, layout::kCardMagic, false,
       "the kernel does not answer; `xbutil reset` brings a card back that hangs"},
      {"version", layout::kCardRegVersion, layout::kCardMajor << 16 | layout::kCardMinor, false,
       kOtherVersion},
      {"card hash", layout::kCardRegCardHash, layout::kCardHash, true, kOtherVersion},
      {"layout hash", layout::kCardRegLayoutHash, layout::kLayoutHash, true, kOtherVersion},
  };
  for (const Identity& identity : kIdentities) {
    MNEMO_ASSIGN_OR_RETURN(const uint32_t low, ReadRegister(identity.offset));
    uint64_t value = low;
    if (identity.pair) {
      MNEMO_ASSIGN_OR_RETURN(const uint32_t high, ReadRegister(identity.offset + 4));
      value |= uint64_t{high} << 32;
    }
    if (value != identity.wanted) {
      return FailedPrecondition("xclbin {}: {} of the card is {:#x}, this program's {:#x}; {}", xclbin,
                                identity.name, value, identity.wanted, identity.advice);
    }
  }
  return absl::OkStatus();
}

absl::Status XrtPort::TakeMemory(const XrtPortOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t shape, ReadRegister(layout::kCardRegShape));
  const uint32_t channels = shape & 0xFF;
  Parts& parts = *parts_;
  std::vector<xrt::xclbin::arg> arguments;
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kInvalidArgument, "xclbin " + options.xclbin, "",
                            [&] { arguments = parts.image.get_ip(InstanceName()).get_args(); }));
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

absl::Status XrtPort::TakeInterrupts(const XrtPortOptions& options) {
  if (options.interrupts == Interrupts::kOff || IsSoftwareEmulation()) return absl::OkStatus();
  xrt::ip& kernel = parts_->kernel;
  InterruptLine line;
  const absl::Status taken =
      Try(absl::StatusCode::kFailedPrecondition, "interrupts of device " + options.device,
          "interrupts=off polls the card", [&] {
            // Waiting with a bound leaves the event to the wait without one, which enables the next.
            const auto notify = std::make_shared<xrt::ip::interrupt>(kernel.create_interrupt_notify());
            line.raised = [notify](std::chrono::milliseconds most) {
              return notify->wait(most) == std::cv_status::no_timeout;
            };
            line.take = [notify, &kernel] {
              const uint32_t status = kernel.read_register(layout::kCardRegInterruptStatus);
              kernel.write_register(layout::kCardRegInterruptStatus, status);
              notify->wait();
            };
          });
  if (!taken.ok()) return options.interrupts == Interrupts::kAuto ? absl::OkStatus() : taken;
  MNEMO_ASSIGN_OR_RETURN(watch_, InterruptWatch::Start(std::move(line)));
  return absl::OkStatus();
}

absl::StatusOr<bool> XrtPort::WaitInterrupt(std::chrono::milliseconds most) {
  return watch_ == nullptr ? false : watch_->Wait(most);
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

std::optional<double> XrtPort::watts() {
  constexpr std::chrono::milliseconds kPeriod{100};
  const auto now = std::chrono::steady_clock::now();
  if (now < watts_until_) return watts_;
  watts_until_ = now + kPeriod;
  watts_.reset();
  Try(absl::StatusCode::kUnavailable, "power", "", [&] {
    watts_ = WattsOf(parts_->device.get_info<xrt::info::device::electrical>());
  }).IgnoreError();  // a card without sensors
  return watts_;
}

std::optional<double> XrtPort::degrees() {
  std::optional<double> degrees;
  Try(absl::StatusCode::kUnavailable, "temperature", "", [&] {
    degrees = DegreesOf(parts_->device.get_info<xrt::info::device::thermal>());
  }).IgnoreError();  // a card without sensors
  return degrees;
}

}  // namespace mnemo::xrt_card
