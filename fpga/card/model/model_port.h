#pragma once

// A CardPort to the card in software.

#include <cstdint>
#include <memory>
#include <span>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"
#include "fpga/card/model/card_model.h"
#include "fpga/card/model/memory.h"

namespace mnemo::card::model {

struct ModelOptions {
  Shape shape;
  uint64_t channel_bytes = uint64_t{512} << 20;  // of each; only what is written takes memory
  uint64_t host_bytes = uint64_t{64} << 20;
  uint64_t direct_bytes = 0;  // of card memory behind the channels, for direct queues
};

class ModelPort final : public CardPort {
 public:
  // Registers of the channels are set. INVALID_ARGUMENT names the option and its bounds.
  static absl::StatusOr<std::unique_ptr<ModelPort>> Make(const ModelOptions& options);
  ~ModelPort() override;
  ModelPort(const ModelPort&) = delete;
  ModelPort& operator=(const ModelPort&) = delete;

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override;
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override;
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override;
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override;
  std::span<uint8_t> host_memory() override { return host_bytes_; }
  uint64_t host_address() const override;
  CardSpace direct_memory() const override;
  // Takes one descriptor and answers it.
  void Advance() override { model_.Step(); }
  bool interrupts() const override { return true; }
  absl::StatusOr<bool> WaitInterrupt(std::chrono::milliseconds most) override;
  uint64_t simulated_cycles() const override { return model_.cycles(); }

 private:
  ModelPort(const ModelOptions& options, std::span<uint8_t> host_bytes);

  absl::Status CheckRange(uint64_t address, uint64_t size) const;

  // Bytes of all channels.
  uint64_t channel_bytes() const { return options_.channel_bytes * options_.shape.channels; }

  const ModelOptions options_;
  const std::span<uint8_t> host_bytes_;
  SparseMemory card_;
  HostMemory host_;
  CardModel model_;
};

}  // namespace mnemo::card::model
