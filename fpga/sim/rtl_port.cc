#include "fpga/sim/rtl_port.h"

#include <utility>

#include "devices/base/mapping.h"
#include "fpga/sim/memory.h"
#include "proto/layout/card.h"

namespace mnemo::sim {
namespace {

constexpr uint64_t kHostAddress = uint64_t{1} << 40;
constexpr uint64_t kChannelGrain = SparseMemory::kPageBytes;
constexpr uint64_t kMostHbmBytes = uint64_t{16} << 30;

// The memory that the command processor reaches: host memory, and a part of card memory.
class CommandMemory final : public Memory {
 public:
  CommandMemory(SparseMemory* card, Range direct) : card_(card), direct_(direct) {}
  MappedMemory& host() { return host_; }

  const uint8_t* BeatForRead(uint64_t address) override {
    return direct_.Contains(address, kBeatBytes) ? card_->BeatForRead(address) : host_.BeatForRead(address);
  }
  uint8_t* BeatForWrite(uint64_t address) override {
    return direct_.Contains(address, kBeatBytes) ? card_->BeatForWrite(address) : host_.BeatForWrite(address);
  }

 private:
  MappedMemory host_;
  SparseMemory* const card_;
  const Range direct_;
};

Range RangeOf(const card::CardSpace& space) { return {space.address, space.bytes}; }

RtlCardOptions CardOptions(const RtlOptions& options) {
  RtlCardOptions card = options.card;
  card.near = {options.hbm_bytes, options.direct_bytes};
  return card;
}

}  // namespace

struct RtlPort::Parts {
  Parts(const RtlOptions& options, Mapping host)
      : memory(Range{0, options.hbm_bytes + options.direct_bytes}, options.card.seed),
        host_bytes(std::move(host)),
        host_memory(&memory, Range{options.hbm_bytes, options.direct_bytes}),
        card(
            CardOptions(options),
            [bytes = options.hbm_bytes / RtlCard::Channels()](uint32_t n) {
              return Range{n * bytes, bytes};
            },
            &memory, &host_memory) {
    host_memory.host().Map(kHostAddress, host_span());
  }
  std::span<uint8_t> host_span() const {
    const std::span<std::byte> bytes = host_bytes.mutable_bytes();
    return {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()};
  }

  SparseMemory memory;
  Mapping host_bytes;
  CommandMemory host_memory;
  RtlCard card;
};

absl::StatusOr<std::unique_ptr<RtlPort>> RtlPort::Make(const RtlOptions& options) {
  if (options.hbm_bytes == 0 || options.hbm_bytes > kMostHbmBytes ||
      options.hbm_bytes % (Channels() * kChannelGrain) != 0) {
    return InvalidArgument("hbm_bytes: {}; allowed: multiples of {} up to {}", options.hbm_bytes,
                           Channels() * kChannelGrain, kMostHbmBytes);
  }
  if (options.direct_bytes % kChannelGrain != 0 || options.direct_bytes > kMostHbmBytes) {
    return InvalidArgument("direct_bytes: {}; allowed: multiples of {} up to {}", options.direct_bytes,
                           kChannelGrain, kMostHbmBytes);
  }
  MNEMO_RETURN_IF_ERROR(RtlCard::Check(options.card));
  MNEMO_ASSIGN_OR_RETURN(Mapping host, Mapping::Anonymous(options.host_bytes));
  std::unique_ptr<RtlPort> port(new RtlPort(options, std::make_unique<Parts>(options, std::move(host))));
  MNEMO_RETURN_IF_ERROR(port->parts_->card.trace_status());
  const uint64_t beats = options.hbm_bytes / Channels() / layout::kCardBeatBytes;
  for (uint32_t i = 0; i < Channels(); ++i) {
    const uint32_t at = layout::kCardRegChannels + 8 * i;
    MNEMO_RETURN_IF_ERROR(port->WriteRegister(at, static_cast<uint32_t>(beats * i)));
    MNEMO_RETURN_IF_ERROR(port->WriteRegister(at + 4, static_cast<uint32_t>(beats)));
  }
  return port;
}

RtlPort::RtlPort(const RtlOptions& options, std::unique_ptr<Parts> parts)
    : options_(options), parts_(std::move(parts)) {}

RtlPort::~RtlPort() = default;

absl::StatusOr<uint32_t> RtlPort::ReadRegister(uint32_t offset) { return parts_->card.ReadRegister(offset); }

absl::Status RtlPort::WriteRegister(uint32_t offset, uint32_t value) {
  return parts_->card.WriteRegister(offset, value);
}

absl::Status RtlPort::Write(uint64_t address, std::span<const uint8_t> bytes) {
  if (!parts_->memory.range().Contains(address, bytes.size())) {
    return InvalidArgument("card memory {:#x}, {} bytes: the card has {}", address, bytes.size(),
                           options_.hbm_bytes);
  }
  parts_->memory.Write(address, bytes);
  return absl::OkStatus();
}

absl::Status RtlPort::Read(uint64_t address, std::span<uint8_t> bytes) {
  if (!parts_->memory.range().Contains(address, bytes.size())) {
    return InvalidArgument("card memory {:#x}, {} bytes: the card has {}", address, bytes.size(),
                           options_.hbm_bytes);
  }
  parts_->memory.Read(address, bytes);
  return absl::OkStatus();
}

std::span<uint8_t> RtlPort::host_memory() { return parts_->host_span(); }
uint64_t RtlPort::host_address() const { return kHostAddress; }
card::CardSpace RtlPort::direct_memory() const { return {options_.hbm_bytes, options_.direct_bytes}; }

void RtlPort::Run(uint32_t cycles) { parts_->card.Clock(cycles); }

void RtlPort::AllowHost(std::span<const card::CardSpace> reads_and_writes) {
  std::vector<Range> ranges;
  for (const card::CardSpace& space : reads_and_writes) ranges.push_back(RangeOf(space));
  parts_->card.AllowHost(ranges);
}

void RtlPort::AllowChannel(uint32_t number, card::CardSpace channel) {
  parts_->card.AllowChannel(number, RangeOf(channel));
}

void RtlPort::Advance() { (void)parts_->card.Run(options_.cycles); }
absl::StatusOr<bool> RtlPort::WaitInterrupt(std::chrono::milliseconds most) {
  const auto until = std::chrono::steady_clock::now() + most;
  bool runs = true;
  while (!parts_->card.interrupt()) {
    if (!runs || std::chrono::steady_clock::now() >= until) return false;
    runs = parts_->card.Run(options_.cycles);
  }
  MNEMO_RETURN_IF_ERROR(card::ClearInterrupts(this));
  return true;
}

uint64_t RtlPort::simulated_cycles() const { return parts_->card.cycles(); }
uint64_t RtlPort::violations() const { return parts_->card.violations(); }
std::string RtlPort::first_violation() const { return parts_->card.first_violation(); }

}  // namespace mnemo::sim
