#include "fpga/sim/rtl_card.h"

#include <verilated.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "Vcard_top.h"
#include "fpga/sim/channel_pins.h"
#include "fpga/sim/hbm_channel.h"
#include "fpga/sim/host_port.h"
#include "fpga/sim/waveform.h"
#include "proto/layout/card.h"

namespace mnemo::sim {
namespace {

constexpr uint32_t kChannels = MNEMO_CARD_CHANNELS;
constexpr uint32_t kResetCycles = 16;
constexpr uint32_t kRegisterCycles = 10'000;
constexpr uint32_t kIdleCycles = 64;  // between looks at a card whose memories stand still

HbmOptions ChannelOptions(const RtlCardOptions& options, uint32_t channel) {
  HbmOptions hbm;
  hbm.clock_ps = 1'000'000 / options.clock_mhz;
  hbm.seed = options.seed * 64 + channel;
  hbm.stall_percent = options.stall_percent;
  const bool faulty = channel == options.fault_channel;
  if (options.fault == Fault::kChannelStops && faulty) hbm.stop_at = options.fault_at;
  if (options.fault == Fault::kChannelError && faulty) hbm.error_at = options.fault_at;
  return hbm;
}

HostPortOptions PortOptions(const RtlCardOptions& options) {
  HostPortOptions port;
  port.clock_ps = 1'000'000 / options.clock_mhz;
  port.seed = options.seed;
  port.ready_percent = 100 - options.stall_percent;
  port.near = options.near;
  if (options.fault == Fault::kHostStops) port.stop_at = options.fault_at;
  if (options.fault == Fault::kHostError) port.read_error_at = options.fault_at;
  if (options.fault == Fault::kWriteError) port.write_error_at = options.fault_at;
  return port;
}

}  // namespace

struct RtlCard::Parts {
  Parts(const RtlCardOptions& options, const std::function<Range(uint32_t)>& channel_range, Memory* card,
        Memory* host_memory)
      : host(PortOptions(options), host_memory) {
    for (uint32_t i = 0; i < kChannels; ++i) {
      channels.emplace_back(ChannelOptions(options, i), channel_range(i), card);
    }
    context.threads(1);  // the model is compiled for one: others would wait for nothing
    context.randReset(2);
    context.randSeed(static_cast<int>(options.seed % 0x7FFFFFFF + 1));
    Waveform::Prepare(options.trace, &context);
    top = std::make_unique<Vcard_top>(&context);
  }

  std::vector<HbmChannel> channels;
  HostPort host;
  VerilatedContext context;
  std::unique_ptr<Vcard_top> top;
  Waveform waveform;
  uint64_t host_writes = 0;  // addresses of writes that the card offered and host memory took
};

uint32_t RtlCard::Channels() { return kChannels; }

absl::Status RtlCard::Check(const RtlCardOptions& options) {
  if (options.clock_mhz < 50 || options.clock_mhz > 1000) {
    return InvalidArgument("clock_mhz: {}; allowed: 50 to 1000", options.clock_mhz);
  }
  if (options.stall_percent > 99) {
    return InvalidArgument("stall_percent: {}; allowed: 0 to 99", options.stall_percent);
  }
  return Waveform::Check(options.trace);
}

RtlCard::RtlCard(const RtlCardOptions& options, const std::function<Range(uint32_t)>& channel_range,
                 Memory* card, Memory* host)
    : parts_(std::make_unique<Parts>(options, channel_range, card, host)),
      clock_ps_(1'000'000 / options.clock_mhz) {
  trace_status_ = parts_->waveform.Open(options.trace, parts_->top.get());
  Vcard_top& top = *parts_->top;
  top.clk = 0;
  top.s_awvalid = top.s_wvalid = top.s_arvalid = 0;
  top.s_bready = top.s_rready = 1;
  // Registers hold anything until the reset; what assertions say of that means nothing.
  parts_->context.assertOn(false);
  top.rst = 1;
  for (uint32_t i = 0; i < kResetCycles; ++i) Tick();
  top.rst = 0;
  parts_->context.assertOn(true);
}

RtlCard::~RtlCard() {
  Verilated::threadContextp(&parts_->context);  // scopes leave the thread's context, which may be another's
  parts_->top->final();
}

// One clock. Inputs from outside the memories were set before.
void RtlCard::Tick() {
  Parts& parts = *parts_;
  Vcard_top& top = *parts.top;
  HostPort& host = parts.host;
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
  parts.waveform.Write(cycles_ * clock_ps_);
  top.clk = 1;
  top.eval();
  parts.waveform.Write(cycles_ * clock_ps_ + clock_ps_ / 2);
  ++cycles_;
}

absl::StatusOr<uint32_t> RtlCard::ReadRegister(uint32_t offset) {
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

absl::Status RtlCard::WriteRegister(uint32_t offset, uint32_t value) {
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
    if (answers) {
      NotePolls(offset, value);
      return absl::OkStatus();
    }
  }
  top.s_awvalid = top.s_wvalid = 0;
  return Unavailable("register {:#x}: no answer for {} cycles", offset, kRegisterCycles);
}

void RtlCard::NotePolls(uint32_t offset, uint32_t value) {
  if (offset == layout::kCardRegControl && (value & layout::kCardControlReset) != 0) polled_ = 0;
  if (offset < layout::kCardRegQueues) return;
  const uint32_t queue = (offset - layout::kCardRegQueues) / layout::kCardQueueBytes;
  if (queue >= layout::kCardQueues) return;
  const uint32_t word = (offset - layout::kCardRegQueues) % layout::kCardQueueBytes;
  if (word == layout::kCardQueuePoll) polled_ = (polled_ & ~(1U << queue)) | (value & 1) << queue;
  if (word == layout::kCardQueueEnable && value == 0) polled_ &= ~(1U << queue);
}

void RtlCard::Clock(uint32_t cycles) {
  for (uint32_t i = 0; i < cycles; ++i) Tick();
}

void RtlCard::AllowHost(const std::vector<Range>& reads_and_writes) {
  parts_->host.rules().Allow(reads_and_writes);
}

void RtlCard::AllowChannel(uint32_t number, Range range) { parts_->channels[number].rules().Allow({range}); }

bool RtlCard::Run(uint32_t cycles) {
  if (!busy_ && polled_ == 0) return false;
  const uint64_t writes = parts_->host_writes;
  for (uint32_t i = 1; i <= cycles; ++i) {
    Tick();
    if (parts_->host_writes != writes && parts_->host.idle()) return true;
    if (i == cycles || (polled_ == 0 && i % kIdleCycles == 0 && MemoriesIdle())) {
      const absl::StatusOr<uint32_t> state = ReadRegister(layout::kCardRegState);
      busy_ = !state.ok() || (*state & layout::kCardStateIdle) == 0;
      if (!busy_ && polled_ == 0) break;
    }
  }
  return busy_ || polled_ != 0;
}

bool RtlCard::MemoriesIdle() const {
  return parts_->host.idle() && std::all_of(parts_->channels.begin(), parts_->channels.end(),
                                            [](const HbmChannel& channel) { return channel.idle(); });
}

bool RtlCard::interrupt() const { return parts_->top->irq != 0; }

bool RtlCard::Settle(uint32_t cycles) {
  for (uint32_t i = 0; i < cycles && !MemoriesIdle(); ++i) Tick();
  return MemoriesIdle();
}

uint64_t RtlCard::violations() const {
  uint64_t count = parts_->host.rules().violations();
  for (const HbmChannel& channel : parts_->channels) count += channel.rules().violations();
  return count;
}

std::string RtlCard::first_violation() const {
  std::vector<Violation> all = parts_->host.rules().recorded();
  for (const HbmChannel& channel : parts_->channels) {
    all.insert(all.end(), channel.rules().recorded().begin(), channel.rules().recorded().end());
  }
  return all.empty() ? "" : Describe(all.front());
}

}  // namespace mnemo::sim
