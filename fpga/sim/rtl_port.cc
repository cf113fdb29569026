#include "fpga/sim/rtl_port.h"

#include <verilated.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "Vcard_top.h"
#include "devices/base/mapping.h"
#include "fpga/sim/channel_pins.h"
#include "fpga/sim/hbm_channel.h"
#include "fpga/sim/host_port.h"
#include "fpga/sim/memory.h"
#include "fpga/sim/waveform.h"
#include "proto/layout/card.h"

namespace mnemo::sim {
namespace {

constexpr uint32_t kChannels = MNEMO_CARD_CHANNELS;
constexpr uint64_t kHostAddress = uint64_t{1} << 40;
constexpr uint64_t kChannelGrain = SparseMemory::kPageBytes;
constexpr uint64_t kMostHbmBytes = uint64_t{16} << 30;
constexpr uint32_t kResetCycles = 16;
constexpr uint32_t kRegisterCycles = 10'000;

}  // namespace

struct RtlPort::Parts {
  Parts(const RtlOptions& options, Mapping host_mapping)
      : card(Range{0, options.hbm_bytes}, options.seed), host_bytes(std::move(host_mapping)) {
    const int64_t clock_ps = 1'000'000 / options.clock_mhz;
    for (uint32_t i = 0; i < kChannels; ++i) {
      HbmOptions hbm;
      hbm.clock_ps = clock_ps;
      hbm.seed = options.seed * 64 + i;
      if (options.fault == Fault::kChannelStops && i == 0) hbm.stop_at = options.fault_at;
      if (options.fault == Fault::kChannelError && i == 0) hbm.error_at = options.fault_at;
      const uint64_t bytes = options.hbm_bytes / kChannels;
      channels.emplace_back(hbm, Range{i * bytes, bytes}, &card);
    }
    HostPortOptions port;
    port.clock_ps = clock_ps;
    port.seed = options.seed;
    if (options.fault == Fault::kHostStops) port.stop_at = options.fault_at;
    if (options.fault == Fault::kHostError) port.read_error_at = options.fault_at;
    host_memory.Map(kHostAddress, host_span());
    host = std::make_unique<HostPort>(port, &host_memory);
    context.randReset(2);
    context.randSeed(static_cast<int>(options.seed % 0x7FFFFFFF + 1));
  }
  absl::Status MakeTop(const std::string& trace) {
    MNEMO_RETURN_IF_ERROR(Waveform::Prepare(trace, &context));
    top = std::make_unique<Vcard_top>(&context);
    return waveform.Open(trace, top.get());
  }
  std::span<uint8_t> host_span() const {
    const std::span<std::byte> bytes = host_bytes.mutable_bytes();
    return {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()};
  }

  SparseMemory card;
  Mapping host_bytes;
  MappedMemory host_memory;
  std::vector<HbmChannel> channels;
  std::unique_ptr<HostPort> host;
  VerilatedContext context;
  std::unique_ptr<Vcard_top> top;
  Waveform waveform;
  uint64_t host_writes = 0;  // addresses of writes that the card offered and host memory took
};

uint32_t RtlPort::Channels() { return kChannels; }

absl::StatusOr<std::unique_ptr<RtlPort>> RtlPort::Make(const RtlOptions& options) {
  if (options.hbm_bytes == 0 || options.hbm_bytes > kMostHbmBytes ||
      options.hbm_bytes % (kChannels * kChannelGrain) != 0) {
    return InvalidArgument("hbm_bytes: {}; allowed: multiples of {} up to {}", options.hbm_bytes,
                           kChannels * kChannelGrain, kMostHbmBytes);
  }
  if (options.clock_mhz < 50 || options.clock_mhz > 1000) {
    return InvalidArgument("clock_mhz: {}; allowed: 50 to 1000", options.clock_mhz);
  }
  MNEMO_ASSIGN_OR_RETURN(Mapping host, Mapping::Anonymous(options.host_bytes));
  auto parts = std::make_unique<Parts>(options, std::move(host));
  MNEMO_RETURN_IF_ERROR(parts->MakeTop(options.trace));
  std::unique_ptr<RtlPort> port(new RtlPort(options, std::move(parts)));
  Vcard_top& top = *port->parts_->top;
  // Registers hold anything until the reset; what assertions say of that means nothing.
  port->parts_->context.assertOn(false);
  top.rst = 1;
  for (uint32_t i = 0; i < kResetCycles; ++i) port->Tick();
  top.rst = 0;
  port->parts_->context.assertOn(true);
  const uint64_t beats = options.hbm_bytes / kChannels / layout::kCardBeatBytes;
  for (uint32_t i = 0; i < kChannels; ++i) {
    const uint32_t at = layout::kCardRegChannels + 8 * i;
    MNEMO_RETURN_IF_ERROR(port->WriteRegister(at, static_cast<uint32_t>(beats * i)));
    MNEMO_RETURN_IF_ERROR(port->WriteRegister(at + 4, static_cast<uint32_t>(beats)));
  }
  return port;
}

RtlPort::RtlPort(const RtlOptions& options, std::unique_ptr<Parts> parts)
    : options_(options), parts_(std::move(parts)) {
  Vcard_top& top = *parts_->top;
  top.clk = 0;
  top.s_awvalid = top.s_wvalid = top.s_arvalid = 0;
  top.s_bready = top.s_rready = 1;
}

RtlPort::~RtlPort() {
  Verilated::threadContextp(&parts_->context);  // scopes leave the thread's context, which may be another's
  parts_->top->final();
}

// One clock. Inputs from outside the memories were set before.
void RtlPort::Tick() {
  Parts& parts = *parts_;
  Vcard_top& top = *parts.top;
  HostPort& host = *parts.host;
  DriveChannels(top, std::span<const HbmChannel>(parts.channels));
  top.h_ar_ready = host.ar_ready();
  top.h_aw_ready = host.aw_ready();
  top.h_w_ready = host.w_ready();
  top.h_r_valid = host.r_valid();
  if (top.h_r_valid) {
    std::memcpy(&top.h_r_data, host.r_data(), kBeatBytes);
    top.h_r_resp = host.r_resp();
    top.h_r_last = host.r_last();
  }
  top.h_b_valid = host.b_valid();
  if (top.h_b_valid) top.h_b_resp = host.b_resp();
  top.clk = 0;
  top.eval();
  if (top.rst == 0) {
    StepChannels(top, std::span<HbmChannel>(parts.channels));
    if (top.h_aw_valid && top.h_aw_ready) ++parts.host_writes;
    host.Step({.ar_valid = top.h_ar_valid != 0,
               .ar_addr = top.h_ar_addr,
               .ar_len = top.h_ar_len,
               .r_ready = top.h_r_ready != 0,
               .aw_valid = top.h_aw_valid != 0,
               .aw_addr = top.h_aw_addr,
               .aw_len = top.h_aw_len,
               .w_valid = top.h_w_valid != 0,
               .w_data = reinterpret_cast<const uint8_t*>(&top.h_w_data),
               .w_strb = top.h_w_strb,
               .w_last = top.h_w_last != 0,
               .b_ready = top.h_b_ready != 0});
  }
  const uint64_t clock_ps = 1'000'000 / options_.clock_mhz;
  parts.waveform.Write(cycles_ * clock_ps);
  top.clk = 1;
  top.eval();
  parts.waveform.Write(cycles_ * clock_ps + clock_ps / 2);
  ++cycles_;
}

absl::StatusOr<uint32_t> RtlPort::ReadRegister(uint32_t offset) {
  Vcard_top& top = *parts_->top;
  top.s_arvalid = 1;
  top.s_araddr = static_cast<uint16_t>(offset);
  top.s_rready = 1;
  bool asked = false;
  for (uint32_t i = 0; i < kRegisterCycles; ++i) {
    top.clk = 0;
    top.eval();
    const bool takes = !asked && top.s_arready != 0;
    const bool answers = asked && top.s_rvalid != 0;
    const uint32_t value = top.s_rdata;
    Tick();
    if (takes) {
      asked = true;
      top.s_arvalid = 0;
    }
    if (answers) return value;
  }
  top.s_arvalid = 0;
  return Unavailable("register {:#x}: no answer for {} cycles", offset, kRegisterCycles);
}

absl::Status RtlPort::WriteRegister(uint32_t offset, uint32_t value) {
  Vcard_top& top = *parts_->top;
  top.s_awvalid = top.s_wvalid = 1;
  top.s_awaddr = static_cast<uint16_t>(offset);
  top.s_wdata = value;
  top.s_bready = 1;
  busy_ = true;
  for (uint32_t i = 0; i < kRegisterCycles; ++i) {
    top.clk = 0;
    top.eval();
    const bool address = top.s_awvalid != 0 && top.s_awready != 0;
    const bool data = top.s_wvalid != 0 && top.s_wready != 0;
    const bool answers = top.s_awvalid == 0 && top.s_wvalid == 0 && top.s_bvalid != 0;
    Tick();
    if (address) top.s_awvalid = 0;
    if (data) top.s_wvalid = 0;
    if (answers) return absl::OkStatus();
  }
  top.s_awvalid = top.s_wvalid = 0;
  return Unavailable("register {:#x}: no answer for {} cycles", offset, kRegisterCycles);
}

absl::Status RtlPort::Write(uint64_t address, std::span<const uint8_t> bytes) {
  if (!parts_->card.range().Contains(address, bytes.size())) {
    return InvalidArgument("card memory {:#x}, {} bytes: the card has {}", address, bytes.size(),
                           options_.hbm_bytes);
  }
  parts_->card.Write(address, bytes);
  return absl::OkStatus();
}

absl::Status RtlPort::Read(uint64_t address, std::span<uint8_t> bytes) {
  if (!parts_->card.range().Contains(address, bytes.size())) {
    return InvalidArgument("card memory {:#x}, {} bytes: the card has {}", address, bytes.size(),
                           options_.hbm_bytes);
  }
  parts_->card.Read(address, bytes);
  return absl::OkStatus();
}

std::span<uint8_t> RtlPort::host_memory() { return parts_->host_span(); }
uint64_t RtlPort::host_address() const { return kHostAddress; }

void RtlPort::Advance() {
  if (!busy_) return;
  const uint64_t writes = parts_->host_writes;
  for (uint32_t i = 0; i < options_.cycles; ++i) {
    Tick();
    if (parts_->host_writes != writes && parts_->host->idle()) return;
  }
  const absl::StatusOr<uint32_t> state = ReadRegister(layout::kCardRegState);
  busy_ = !state.ok() || (*state & layout::kCardStateIdle) == 0;
}

uint64_t RtlPort::violations() const {
  uint64_t count = parts_->host->rules().violations();
  for (const HbmChannel& channel : parts_->channels) count += channel.rules().violations();
  return count;
}

std::string RtlPort::first_violation() const {
  std::vector<Violation> all = parts_->host->rules().recorded();
  for (const HbmChannel& channel : parts_->channels) {
    all.insert(all.end(), channel.rules().recorded().begin(), channel.rules().recorded().end());
  }
  return all.empty() ? "" : Describe(all.front());
}

}  // namespace mnemo::sim
