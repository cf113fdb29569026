#include "fpga/card/model/model_port.h"

#include <sys/mman.h>

#include <bit>

#include "proto/layout/card.h"

namespace mnemo::card::model {
namespace {

// Neither memory begins at 0, so that a forgotten base shows.
constexpr uint64_t kCardAddress = uint64_t{1} << 30;
constexpr uint64_t kHostAddress = uint64_t{1} << 42;
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kMaxCardBytes = uint64_t{16} << 30;
constexpr uint64_t kMaxHostBytes = uint64_t{16} << 30;

absl::Status CheckPowerOfTwo(const char* name, uint32_t value, uint32_t largest) {
  if (!std::has_single_bit(value) || value > largest) {
    return InvalidArgument("{}: {}; allowed: powers of two from 1 to {}", name, value, largest);
  }
  return absl::OkStatus();
}

absl::Status CheckBytes(const char* name, uint64_t value, uint64_t largest) {
  if (value < kPageBytes || value > largest || value % kPageBytes != 0) {
    return InvalidArgument("{}: {}; allowed: multiples of {} up to {}", name, value, kPageBytes, largest);
  }
  return absl::OkStatus();
}

absl::Status Check(const ModelOptions& options) {
  const Shape& shape = options.shape;
  for (const absl::Status& status : {CheckPowerOfTwo("channels", shape.channels, layout::kCardMaxChannels),
                                     CheckPowerOfTwo("queries of a pass", shape.queries, 16),
                                     CheckPowerOfTwo("scores a cycle", shape.scores, 64),
                                     CheckPowerOfTwo("bank words", shape.bank_words, 1U << 20),
                                     CheckBytes("host bytes", options.host_bytes, kMaxHostBytes)}) {
    if (!status.ok()) {
      return status;
    }
  }
  if (shape.scores < shape.queries) {
    return InvalidArgument("scores a cycle: {}; allowed: at least the {} queries of a pass", shape.scores,
                           shape.queries);
  }
  if (options.direct_bytes != 0) {
    MNEMO_RETURN_IF_ERROR(CheckBytes("direct bytes", options.direct_bytes, kMaxCardBytes));
  }
  return CheckBytes("channel bytes", options.channel_bytes, kMaxCardBytes / shape.channels);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelPort>> ModelPort::Make(const ModelOptions& options) {
  const absl::Status status = Check(options);
  if (!status.ok()) {
    return status;
  }
  void* host = mmap(nullptr, options.host_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (host == MAP_FAILED) {
    return ResourceExhausted("host bytes: {} bytes of memory are not to be had", options.host_bytes);
  }
  return std::unique_ptr<ModelPort>(
      new ModelPort(options, {static_cast<uint8_t*>(host), options.host_bytes}));
}

ModelPort::ModelPort(const ModelOptions& options, std::span<uint8_t> host_bytes)
    : options_(options),
      host_bytes_(host_bytes),
      host_(host_bytes, kHostAddress, &card_, kCardAddress + channel_bytes(), options.direct_bytes),
      model_(options.shape, &card_, &host_) {
  for (uint32_t n = 0; n < options.shape.channels; ++n) {
    const uint64_t base = kCardAddress + n * options.channel_bytes;
    const uint32_t at = layout::kCardRegChannels + 8 * n;
    model_.WriteRegister(at, static_cast<uint32_t>(base / layout::kCardBeatBytes));
    model_.WriteRegister(at + 4, static_cast<uint32_t>(options.channel_bytes / layout::kCardBeatBytes));
  }
}

ModelPort::~ModelPort() { munmap(host_bytes_.data(), host_bytes_.size()); }

absl::StatusOr<uint32_t> ModelPort::ReadRegister(uint32_t offset) { return model_.ReadRegister(offset); }

absl::Status ModelPort::WriteRegister(uint32_t offset, uint32_t value) {
  model_.WriteRegister(offset, value);
  return absl::OkStatus();
}

absl::Status ModelPort::CheckRange(uint64_t address, uint64_t size) const {
  const uint64_t bytes = channel_bytes() + options_.direct_bytes;
  if (address < kCardAddress || size > bytes || address - kCardAddress > bytes - size) {
    return InvalidArgument("card memory {:#x}, {} bytes: outside of {:#x} to {:#x}", address, size,
                           kCardAddress, kCardAddress + bytes);
  }
  return absl::OkStatus();
}

absl::Status ModelPort::Write(uint64_t address, std::span<const uint8_t> bytes) {
  absl::Status status = CheckRange(address, bytes.size());
  if (status.ok()) {
    card_.Write(address, bytes);
  }
  return status;
}

absl::Status ModelPort::Read(uint64_t address, std::span<uint8_t> bytes) {
  absl::Status status = CheckRange(address, bytes.size());
  if (status.ok()) {
    card_.Read(address, bytes);
  }
  return status;
}

absl::StatusOr<bool> ModelPort::WaitInterrupt(std::chrono::milliseconds most) {
  const auto until = std::chrono::steady_clock::now() + most;
  while (!model_.interrupt()) {
    if (std::chrono::steady_clock::now() >= until || !model_.Step()) return false;
  }
  MNEMO_RETURN_IF_ERROR(ClearInterrupts(this));
  return true;
}

uint64_t ModelPort::host_address() const { return kHostAddress; }
CardSpace ModelPort::direct_memory() const { return {kCardAddress + channel_bytes(), options_.direct_bytes}; }

}  // namespace mnemo::card::model
