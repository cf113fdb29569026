#pragma once

// A port with one fault at a place that a test chooses: calls that fail, come late or bring back what cannot
// be. For tests of the driver.

#include <cstdint>
#include <memory>
#include <random>
#include <span>

#include "fpga/card/card_port.h"

namespace mnemo::card {

enum class PortFault {
  kNone,
  kGone,          // from the place on every call fails
  kOneFails,      // one call fails
  kStops,         // from the place on the card does nothing until it is reset
  kLate,          // the card does nothing for 20 turns
  kNeverResets,   // it stops, and a reset does not end
  kRegister,      // one register reads as its complement
  kCompletions,   // the head of the completions' ring runs away
  kSeq,           // the newest completion has another seq
  kIndex,         // another index
  kStatus,        // a status that no card gives
  kCount,         // another count
  kResultHeader,  // all result blocks under way have another count, number of candidates or flags
  kResultIds,     // ids that fall, or lie outside of the scan
  kNoInterrupt,   // from the place on no interrupt comes
};
inline constexpr PortFault kLastPortFault = PortFault::kResultIds;  // that polling meets

class FaultPort final : public CardPort {
 public:
  // place: kNoInterrupt: number of the wait; kGone, kOneFails: number of the call, from 0 on; kRegister:
  // number of the read; else number of the turn (Advance) after which a completion comes.
  FaultPort(std::unique_ptr<CardPort> inner, PortFault fault, uint64_t place, uint64_t seed)
      : inner_(std::move(inner)), fault_(fault), place_(place), random_(seed) {}

  // Whether the fault has been there.
  bool happened() const { return happened_; }

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override;
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override;
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override;
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override;
  std::span<uint8_t> host_memory() override { return inner_->host_memory(); }
  uint64_t host_address() const override { return inner_->host_address(); }
  void Advance() override;
  bool interrupts() const override { return inner_->interrupts(); }
  absl::StatusOr<bool> WaitInterrupt(std::chrono::milliseconds most) override;
  uint64_t simulated_cycles() const override { return inner_->simulated_cycles(); }

 private:
  // UNAVAILABLE when this call is to fail.
  absl::Status Call();
  // Host memory at the address in a pair of registers of queue 0; nullptr before they are written.
  uint8_t* Queue(uint32_t offset);
  void Spoil(uint8_t* completion);
  void SpoilResults(const uint8_t* completion);

  std::unique_ptr<CardPort> inner_;
  const PortFault fault_;
  const uint64_t place_;
  std::mt19937 random_;
  uint64_t calls_ = 0;
  uint64_t reads_ = 0;
  uint64_t waits_ = 0;
  uint64_t turns_ = 0;  // that brought a completion
  int late_ = 0;
  bool stopped_ = false;
  bool resetting_ = false;
  bool happened_ = false;
};

}  // namespace mnemo::card
