#include "fpga/xrt/xrt_port.h"

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

#include "fpga/xrt/card_power.h"
#include "fpga/xrt/host_check.h"
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

}  // namespace

XrtPort::~XrtPort() {
  if (guard_ != nullptr) guard_->Close();
}

absl::Status XrtPort::Open(const XrtPortOptions& options, const XrtImage& image) {
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kNotFound, "device " + options.device,
                            "`xbutil examine` lists the cards that XRT sees",
                            [&] { calls_->Open(options.device); }));
  if (options.hot_reset != nullptr && !image.emulation) {
    MNEMO_RETURN_IF_ERROR(options.hot_reset->Run(options.device, [calls = calls_] { calls->Reset(); }));
  }
  return Try(absl::StatusCode::kFailedPrecondition,
             fmt::format("loading {}, an image for {}", options.xclbin, image.platform),
             "`xbutil examine` tells the card's platform; no other program may use the card",
             [&] { calls_->Load(options.xclbin); });
}

absl::StatusOr<std::unique_ptr<XrtPort>> XrtPort::Create(const XrtPortOptions& options, const XrtHost& host) {
  MNEMO_ASSIGN_OR_RETURN(const XrtImage image, host.read_image(options.xclbin));
  if (image.clock_mhz < options.clock_mhz) {
    return InvalidArgument("xclbin {}: its clock is {} MHz; at least {} are asked for by clock_mhz",
                           options.xclbin, image.clock_mhz, options.clock_mhz);
  }
  if (options.driver_clock_mhz != 0 && image.clock_mhz != options.driver_clock_mhz) {
    return FailedPrecondition(
        "xclbin {}: its clock is {} MHz, and was {} when the service began; start the service anew, or put "
        "the image of before back",
        options.xclbin, image.clock_mhz, options.driver_clock_mhz);
  }
  MNEMO_RETURN_IF_ERROR(host.check(options.device));
  if (image.emulation != IsSoftwareEmulation()) {
    return InvalidArgument("xclbin {}: an image for {}; XCL_EMULATION_MODE asks for {}", options.xclbin,
                           image.emulation ? "emulation" : "a card",
                           IsSoftwareEmulation() ? "emulation" : "a card");
  }
  if (image.emulation && options.interrupts == Interrupts::kOn) {
    return FailedPrecondition("interrupts: XRT's emulation has none; allowed there: auto, off");
  }
  std::unique_ptr<XrtPort> port(new XrtPort);
  if (image.emulation) port->guard_ = std::make_unique<EmulationGuard>();
  port->calls_ = host.make_calls();
  MNEMO_RETURN_IF_ERROR(port->Open(options, image));
  if (image.emulation) MNEMO_RETURN_IF_ERROR(port->guard_->Watch());
  // A name is for people: a card that does not tell it is used all the same.
  Try(absl::StatusCode::kUnknown, "name", "", [&] {
    port->device_name_ = port->calls_->Name();
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
  std::vector<PortMemory> ports;
  MNEMO_RETURN_IF_ERROR(Try(absl::StatusCode::kInvalidArgument, "memories of " + options.xclbin,
                            "fpga/build makes an image", [&] { ports = calls_->Ports(); }));
  if (channels == 0 || ports.size() != channels + 1) {
    return InvalidArgument(
        "xclbin {}: the kernel has {} memory ports, its register tells {} channels; fpga/build makes an "
        "image",
        options.xclbin, ports.size(), channels);
  }
  const PortMemory host_port = ports.back();
  ports.pop_back();
  uint64_t least_bytes = UINT64_MAX;
  for (const PortMemory& port : ports) least_bytes = std::min(least_bytes, port.bytes);
  channel_bytes_ = options.hbm_bytes == 0 ? least_bytes : options.hbm_bytes / channels / 4096 * 4096;
  if (channel_bytes_ < kLeastChannelBytes || channel_bytes_ > least_bytes) {
    return InvalidArgument("hbm_bytes: {}; allowed: {} to {}", options.hbm_bytes,
                           kLeastChannelBytes * channels, least_bytes * channels);
  }
  for (uint32_t n = 0; n < channels; ++n) {
    MNEMO_RETURN_IF_ERROR(
        Try(absl::StatusCode::kResourceExhausted, fmt::format("channel {}, {} bytes", n, channel_bytes_),
            "hbm_bytes asks for less",
            [&] { channels_.push_back(calls_->TakeChannel(ports[n].group, channel_bytes_)); }));
    const uint32_t at = layout::kCardRegChannels + 8 * n;
    MNEMO_RETURN_IF_ERROR(WriteRegister(at, static_cast<uint32_t>(channels_[n] / layout::kCardBeatBytes)));
    MNEMO_RETURN_IF_ERROR(
        WriteRegister(at + 4, static_cast<uint32_t>(channel_bytes_ / layout::kCardBeatBytes)));
  }
  const bool host = options.memory == HostMemory::kHost;
  return Try(absl::StatusCode::kFailedPrecondition,
             fmt::format("{} bytes of {} memory", options.host_bytes, host ? "host" : "peer-to-peer"),
             host ? "`xbutil configure --host-mem` enables it" : "`xbutil configure --p2p` enables it", [&] {
               host_ = calls_->TakeHost(options.memory, host ? host_port.group : ports[0].group,
                                        options.host_bytes);
             });
}

absl::Status XrtPort::TakeInterrupts(const XrtPortOptions& options) {
  if (options.interrupts == Interrupts::kOff || IsSoftwareEmulation()) return absl::OkStatus();
  InterruptLine line;
  const auto clear = [this] {
    if (const absl::Status status = card::ClearInterrupts(this); !status.ok()) {
      throw std::runtime_error(std::string(status.message()));
    }
  };
  const absl::Status taken =
      Try(absl::StatusCode::kFailedPrecondition, "interrupts of device " + options.device,
          "interrupts=off polls the card", [&] { line = calls_->TakeInterrupts(clear); });
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
                            [&] { value = calls_->ReadRegister(offset); }));
  return value;
}

absl::Status XrtPort::WriteRegister(uint32_t offset, uint32_t value) {
  return Try(absl::StatusCode::kUnavailable, fmt::format("register {:#x}", offset), "",
             [&] { calls_->WriteRegister(offset, value); });
}

absl::StatusOr<std::pair<uint32_t, uint64_t>> XrtPort::Find(uint64_t address, uint64_t size) const {
  for (uint32_t n = 0; n < channels_.size(); ++n) {
    const uint64_t offset = address - channels_[n];
    if (address < channels_[n] || offset >= channel_bytes_ || size > channel_bytes_ - offset) continue;
    return std::pair(n, offset);
  }
  return InvalidArgument("card memory {:#x}, {} bytes: not within a channel", address, size);
}

absl::Status XrtPort::Write(uint64_t address, std::span<const uint8_t> bytes) {
  MNEMO_ASSIGN_OR_RETURN(const auto at, Find(address, bytes.size()));
  return Try(absl::StatusCode::kUnavailable,
             fmt::format("card memory {:#x}, {} bytes", address, bytes.size()), "",
             [&] { calls_->WriteChannel(at.first, at.second, bytes); });
}

absl::Status XrtPort::Read(uint64_t address, std::span<uint8_t> bytes) {
  MNEMO_ASSIGN_OR_RETURN(const auto at, Find(address, bytes.size()));
  return Try(absl::StatusCode::kUnavailable,
             fmt::format("card memory {:#x}, {} bytes", address, bytes.size()), "",
             [&] { calls_->ReadChannel(at.first, at.second, bytes); });
}

std::span<uint8_t> XrtPort::host_memory() { return host_.bytes; }
uint64_t XrtPort::host_address() const { return host_.address; }

std::optional<double> XrtPort::watts() {
  constexpr std::chrono::milliseconds kPeriod{100};
  const auto now = std::chrono::steady_clock::now();
  if (now < watts_until_) return watts_;
  watts_until_ = now + kPeriod;
  watts_.reset();
  Try(absl::StatusCode::kUnavailable, "power", "", [&] {
    watts_ = WattsOf(calls_->Electrical());
  }).IgnoreError();  // a card without sensors
  return watts_;
}

std::optional<double> XrtPort::degrees() {
  std::optional<double> degrees;
  Try(absl::StatusCode::kUnavailable, "temperature", "", [&] {
    degrees = DegreesOf(calls_->Thermal());
  }).IgnoreError();  // a card without sensors
  return degrees;
}

}  // namespace mnemo::xrt_card
