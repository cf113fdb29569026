// The Verilated card behind XRT's emulation: buffer objects are its memories, channels and host memory alike.
#pragma once

#include <cstdint>
#include <span>

#include "fpga/sim/memory.h"
#include "fpga/sim/rtl_card.h"
#include "fpga/xrt/device_process.h"

namespace mnemo::xrt_card {

class EmulatedRtl final : public EmulatedCard {
 public:
  explicit EmulatedRtl(const sim::RtlCardOptions& options);

  // All ones where the card answers nothing, as over PCIe.
  uint32_t ReadRegister(uint32_t offset) override;
  void WriteRegister(uint32_t offset, uint32_t value) override;
  // Memory that goes is not read or written afterwards: a card that does not come to rest is reset.
  void SetMemory(uint64_t address, std::span<uint8_t> memory) override;
  bool Run() override;

 private:
  void Settle();

  sim::MappedMemory memory_;
  sim::RtlCard card_;
};

}  // namespace mnemo::xrt_card
