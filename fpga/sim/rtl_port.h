#pragma once

// A simulated card (rtl_card.h) with memories of its own, behind the calls of a driver.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"
#include "fpga/sim/rtl_card.h"

namespace mnemo::sim {

struct RtlOptions {
  uint64_t hbm_bytes = uint64_t{1} << 30;  // of all channels; only what is written takes memory
  uint64_t host_bytes = uint64_t{64} << 20;
  uint64_t direct_bytes = 0;  // of card memory behind the channels, for direct queues
  RtlCardOptions card;        // its seed is also that of what is in memory at the start
  uint32_t cycles = 2000;     // at most in one Advance
};

class RtlPort final : public card::CardPort {
 public:
  static uint32_t Channels() { return RtlCard::Channels(); }
  // Resets the card and tells it where its channels lie. INVALID_ARGUMENT names the option and its bounds,
  // UNIMPLEMENTED and NOT_FOUND what hinders a trace.
  static absl::StatusOr<std::unique_ptr<RtlPort>> Make(const RtlOptions& options);
  ~RtlPort() override;
  RtlPort(const RtlPort&) = delete;
  RtlPort& operator=(const RtlPort&) = delete;

  // UNAVAILABLE: the card answers no access.
  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override;
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override;
  // INVALID_ARGUMENT: not within the card's memory.
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override;
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override;
  std::span<uint8_t> host_memory() override;
  uint64_t host_address() const override;
  card::CardSpace direct_memory() const override;
  // Returns early when the card has written to host memory.
  void Advance() override;
  bool interrupts() const override { return true; }
  absl::StatusOr<bool> WaitInterrupt(std::chrono::milliseconds most) override;
  uint64_t simulated_cycles() const override;

  // So many clocks, whatever the card does.
  void Run(uint32_t cycles);

  // From now on the command processor may address these spaces alone, and a lane `channel` alone.
  void AllowHost(std::span<const card::CardSpace> reads_and_writes);
  void AllowChannel(uint32_t number, card::CardSpace channel);
  // Requests of the card that its memories must not get: bursts that cross 4 KiB, addresses outside.
  uint64_t violations() const;
  std::string first_violation() const;

 private:
  struct Parts;
  RtlPort(const RtlOptions& options, std::unique_ptr<Parts> parts);

  const RtlOptions options_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace mnemo::sim
