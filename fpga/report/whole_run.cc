#include "fpga/report/whole_run.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "fpga/card/card_driver.h"
#include "fpga/report/device_run.h"
#include "fpga/sim/rtl_port.h"
#include "proto/layout/completion.h"
#include "proto/layout/payload.h"
#include "proto/layout/ring.h"

namespace mnemo::card::report {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kUnitBytes;
using layout::RingHeader;

constexpr uint64_t kDirectBytes = 4 << 20;
constexpr uint64_t kMostCycles = 1 << 24;  // of a descriptor
constexpr uint32_t kSlots = 4;
constexpr uint32_t kPeer = 1;  // the queue of it
// Cycles before a descriptor: the card has written the head that counts the one before.
constexpr uint32_t kBetween = 1000;

uint64_t RingBytes() { return sizeof(RingHeader) + uint64_t{kSlots} * kUnitBytes; }

// The simulated card's port with a stopwatch, which starts with the write of a doorbell and stops with the
// last bytes of a completion. Time passes a cycle at a time.
class StopwatchPort final : public CardPort {
 public:
  explicit StopwatchPort(std::unique_ptr<sim::RtlPort> port) : port_(std::move(port)) {}

  // The completion number `seq` of a ring of so many slots, in host or card memory.
  void Watch(uint64_t ring, uint32_t slots, uint32_t seq) {
    at_ = ring + sizeof(RingHeader) + uint64_t{seq % slots} * kUnitBytes + offsetof(Completion, seq);
    seq_ = seq;
    cycles_.reset();
    port_->Run(kBetween);
  }
  // From the doorbell to the completion; none: it did not come.
  std::optional<uint64_t> cycles() const { return cycles_; }

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override { return port_->ReadRegister(offset); }
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override {
    if (offset >= layout::kCardRegQueues &&
        (offset - layout::kCardRegQueues) % layout::kCardQueueBytes == layout::kCardQueueHead) {
      rung_ = port_->simulated_cycles();
    }
    return port_->WriteRegister(offset, value);
  }
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override {
    return port_->Write(address, bytes);
  }
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override {
    return port_->Read(address, bytes);
  }
  std::span<uint8_t> host_memory() override { return port_->host_memory(); }
  uint64_t host_address() const override { return port_->host_address(); }
  CardSpace direct_memory() const override { return port_->direct_memory(); }
  void Advance() override {
    if (at_ == 0) return port_->Advance();
    for (uint64_t n = 0; n < kMostCycles && !cycles_.has_value(); ++n) {
      port_->Run(1);
      if (Word(at_) == seq_) cycles_ = port_->simulated_cycles() - rung_;
    }
  }
  uint64_t simulated_cycles() const override { return port_->simulated_cycles(); }
  // In host or card memory.
  uint32_t Word(uint64_t address) {
    uint32_t word = 0;
    if (address >= host_address()) {
      std::memcpy(&word, host_memory().data() + (address - host_address()), sizeof(word));
    } else {
      MNEMO_CHECK(port_->Read(address, {reinterpret_cast<uint8_t*>(&word), sizeof(word)}).ok());
    }
    return word;
  }

 private:
  const std::unique_ptr<sim::RtlPort> port_;
  uint64_t at_ = 0;  // of the seq; 0: nothing is watched yet
  uint32_t seq_ = 0;
  uint64_t rung_ = 0;
  std::optional<uint64_t> cycles_;
};

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
}

// A card of its own, and a peer with a queue in its memory.
class WholeRun {
 public:
  static absl::StatusOr<std::unique_ptr<WholeRun>> Make(const Workload& workload, double clock_mhz) {
    std::unique_ptr<WholeRun> run(new WholeRun);
    CardDriverOptions card;
    card.kind = "rtl";
    card.clock_mhz = clock_mhz;
    card.simulated_time = true;
    card.direct_bytes = kDirectBytes;
    card.make_port = [self = run.get(), clock_mhz]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
      MNEMO_ASSIGN_OR_RETURN(auto port,
                             sim::RtlPort::Make({.direct_bytes = kDirectBytes,
                                                 .card = {.clock_mhz = static_cast<uint32_t>(clock_mhz)}}));
      auto stopwatch = std::make_unique<StopwatchPort>(std::move(port));
      self->port_ = stopwatch.get();
      return stopwatch;
    };
    memory_device::MemoryDeviceOptions options{.kind = "rtl", .name = "report"};
    options.max_tokens = std::max<uint32_t>(options.max_tokens, workload.tokens);
    MNEMO_ASSIGN_OR_RETURN(auto driver, CardDriver::Create(options, std::move(card)));
    run->driver_ = driver.get();
    MNEMO_ASSIGN_OR_RETURN(run->device_, DeviceRun::Over(std::move(driver)));
    MNEMO_ASSIGN_OR_RETURN(run->d_, run->device_->Begin(workload));
    return run;
  }

  absl::StatusOr<DeviceTimes> ByDriver(uint64_t* cycles) {
    MNEMO_ASSIGN_OR_RETURN(const uint64_t completions, CompletionsOf(0));
    // The driver has taken all, and its rings and seqs go together.
    port_->Watch(completions, port_->Word(completions + offsetof(RingHeader, slots)),
                 port_->Word(completions + offsetof(RingHeader, tail)));
    MNEMO_ASSIGN_OR_RETURN(const DeviceTimes times, device_->RunOnce(d_));
    MNEMO_RETURN_IF_ERROR(TakeCycles(cycles));
    return times;
  }

  // Rings, queries and results one after the other in card memory.
  absl::Status AttachPeer() {
    uint64_t at = driver_->direct_spaces().back().address;
    const auto take = [&at](uint64_t bytes) { return std::exchange(at, at + bytes); };
    queue_.slots = kSlots;
    queue_.ring = take(RingBytes());
    queue_.completions = take(RingBytes());
    for (const uint64_t bytes : {device_->payload().size(), device_->result().size()}) {
      queue_.regions.push_back({take(bytes), bytes});
    }
    queue_.indexes = {device_->index()};
    queue_.epoch = 1;
    return driver_->AttachQueue(kPeer, queue_).status();
  }

  // The peer's descriptor number `number`.
  absl::Status ByPeer(uint32_t number, uint64_t* cycles) {
    Descriptor d = d_;
    d.epoch = queue_.epoch;
    d.seq = number;
    d.result_region = 1;
    MNEMO_RETURN_IF_ERROR(port_->Write(queue_.regions[0].address, device_->payload()));
    MNEMO_RETURN_IF_ERROR(
        port_->Write(queue_.ring + sizeof(RingHeader) + uint64_t{number % kSlots} * kUnitBytes, BytesOf(d)));
    // The results of the descriptor before are gone.
    const std::vector<uint8_t> nothing(device_->result().size(), 0xFF);
    MNEMO_RETURN_IF_ERROR(port_->Write(queue_.regions[1].address, nothing));
    port_->Watch(queue_.completions, kSlots, number);
    MNEMO_RETURN_IF_ERROR(driver_->RingQueue(kPeer, number + 1));
    port_->Advance();
    MNEMO_RETURN_IF_ERROR(TakeCycles(cycles));
    return CheckPeer(number);
  }

 private:
  absl::StatusOr<uint64_t> CompletionsOf(uint32_t queue) {
    const uint32_t at =
        layout::kCardRegQueues + queue * layout::kCardQueueBytes + layout::kCardQueueCompletions;
    MNEMO_ASSIGN_OR_RETURN(const uint32_t low, port_->ReadRegister(at));
    MNEMO_ASSIGN_OR_RETURN(const uint32_t high, port_->ReadRegister(at + 4));
    return uint64_t{high} << 32 | low;
  }

  absl::Status TakeCycles(uint64_t* cycles) const {
    if (!port_->cycles().has_value()) return absl::InternalError("the card has completed nothing");
    *cycles = *port_->cycles();
    return absl::OkStatus();
  }

  // Status, and the results beside those that the driver has got.
  absl::Status CheckPeer(uint32_t number) {
    Completion completion{};
    std::vector<uint8_t> result(device_->result().size());
    MNEMO_RETURN_IF_ERROR(
        port_->Read(queue_.completions + sizeof(RingHeader) + uint64_t{number % kSlots} * kUnitBytes,
                    {reinterpret_cast<uint8_t*>(&completion), sizeof(completion)}));
    MNEMO_RETURN_IF_ERROR(port_->Read(queue_.regions[1].address, result));
    if (completion.status != layout::kStatusOk || completion.seq != number) {
      return absl::InternalError(fmt::format("the peer's completion: status {}, detail {}, seq {}",
                                             completion.status, completion.detail, completion.seq));
    }
    const size_t block = result.size() / d_.heads;
    for (size_t head = 0; head < d_.heads; ++head) {
      layout::ResultHeader header;
      std::memcpy(&header, &device_->result()[head * block], sizeof(header));
      const size_t bytes = sizeof(header) + header.count * sizeof(uint32_t);
      if (std::memcmp(&result[head * block], &device_->result()[head * block], bytes) != 0) {
        return absl::InternalError(fmt::format("head {}: the peer's results are not the driver's", head));
      }
    }
    return absl::OkStatus();
  }

  StopwatchPort* port_ = nullptr;
  CardDriver* driver_ = nullptr;
  std::unique_ptr<DeviceRun> device_;
  Descriptor d_{};
  DirectQueue queue_;
};

}  // namespace

absl::StatusOr<WholeTimes> RunWhole(const Workload& workload, double clock_mhz) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<WholeRun> run, WholeRun::Make(workload, clock_mhz));
  WholeTimes times{.channels = sim::RtlPort::Channels()};
  MNEMO_RETURN_IF_ERROR(run->ByDriver(&times.host.first).status());
  MNEMO_ASSIGN_OR_RETURN(const DeviceTimes again, run->ByDriver(&times.host.again));
  times.jobs_us = again.score_us + again.select_us;
  MNEMO_RETURN_IF_ERROR(run->AttachPeer());
  MNEMO_RETURN_IF_ERROR(run->ByPeer(0, &times.card.first));
  MNEMO_RETURN_IF_ERROR(run->ByPeer(1, &times.card.again));
  return times;
}

}  // namespace mnemo::card::report
