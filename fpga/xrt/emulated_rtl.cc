#include "fpga/xrt/emulated_rtl.h"

#include "proto/layout/card.h"

namespace mnemo::xrt_card {
namespace {

// A call of XRT waits for at most so many, some milliseconds.
constexpr uint32_t kCyclesOfRun = 500;
constexpr uint32_t kSettleCycles = 20'000;
constexpr uint32_t kNoAnswer = UINT32_MAX;
// Addresses that a memory port of the card can name. Which of them are there, MappedMemory knows.
constexpr sim::Range kAddresses{0, uint64_t{1} << 40};

}  // namespace

EmulatedRtl::EmulatedRtl(const sim::RtlCardOptions& options)
    : card_(
          options, [](uint32_t) { return kAddresses; }, &memory_, &memory_) {}

uint32_t EmulatedRtl::ReadRegister(uint32_t offset) { return card_.ReadRegister(offset).value_or(kNoAnswer); }

void EmulatedRtl::WriteRegister(uint32_t offset, uint32_t value) {
  // As over PCIe, nobody learns that a write had no answer.
  card_.WriteRegister(offset, value).IgnoreError();
}

void EmulatedRtl::SetMemory(uint64_t address, std::span<uint8_t> memory) {
  if (!memory.empty()) {
    memory_.Map(address, memory);
    return;
  }
  Settle();
  memory_.Unmap(address);
}

void EmulatedRtl::Settle() {
  if (card_.Settle(kSettleCycles)) return;
  WriteRegister(layout::kCardRegControl, layout::kCardControlReset);
  MNEMO_CHECK(card_.Settle(kSettleCycles));  // a reset lets nothing new begin
}

bool EmulatedRtl::Run() { return card_.Run(kCyclesOfRun); }

}  // namespace mnemo::xrt_card
