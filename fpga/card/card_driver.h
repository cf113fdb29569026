#pragma once

// The memory device of a card, over any port: hardware, its simulation and its model share it.
//
// The card scores and selects (layout::kOpScoreSelect, kSelectTopK, kSelectThreshold), by queue 0. The driver
// does the rest: the latest entries, order by rank, gathers of K and V. An operation whose payload or results
// are larger than their areas in host memory becomes several descriptors, by positions and heads.
//
// Failures. A card that says so, a completion or a result that cannot be, or a port that fails: all
// operations under way are answered with kStatusDeviceFailed. The next Submit resets the card, whose indexes
// stay. When that does not help, nothing is taken until Reset.

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/memory/memory_device.h"
#include "fpga/card/card_memory.h"
#include "fpga/card/card_port.h"
#include "fpga/card/card_queue.h"
#include "fpga/card/card_registers.h"
#include "fpga/card/card_results.h"
#include "fpga/card/direct_queues.h"
#include "fpga/card/energy_model.h"
#include "fpga/card/space_allocator.h"

namespace mnemo::card {

inline constexpr uint32_t kMostEntries = 16384;  // of a selection

struct CardDriverOptions {
  std::string_view kind;  // a literal
  // Makes the port: at the start, and when Reset finds the card gone. The memories of a new port are empty,
  // and its registers of channels say where they lie.
  std::function<absl::StatusOr<std::unique_ptr<CardPort>>()> make_port;
  double clock_mhz = 250;
  uint32_t watchdog_cycles = 1 << 30;  // of a job, above the longest weighted sum; 0: no bound
  bool simulated_time = false;
  std::optional<EnergyFigures> energy;     // where no counter is; none: completions have no energy
  uint32_t max_group = layout::kMaxGroup;  // offered at most, as are the entries of a selection
  uint32_t max_k = kMostEntries;
  uint32_t first_index = 0;                  // of the rings
  uint64_t direct_bytes = 0;                 // of host memory, for direct queues; 0: there are none
  std::chrono::milliseconds patience{2000};  // with a reset, and with a card that finishes nothing
};

class CardDriver final : public memory_device::MemoryDevice {
 public:
  // FAILED_PRECONDITION: the card is none that this program knows. INVALID_ARGUMENT: the options ask for more
  // than it has.
  static absl::StatusOr<std::unique_ptr<CardDriver>> Create(const memory_device::MemoryDeviceOptions& options,
                                                            CardDriverOptions card);
  // The card is reset, so that it touches no host memory any more.
  ~CardDriver() override;

  const std::string& name() const override { return options_.name; }
  std::string_view kind() const override { return card_.kind; }
  const layout::AttachHello& caps() const override { return caps_; }
  CardMemory& memory() override { return memory_; }
  bool simulated_time() const override { return card_.simulated_time; }
  // A counter of the card, where it has one, else the model.
  std::string_view energy_source() const override {
    return has_power_ ? card_.kind : card_.energy.has_value() ? "model" : "";
  }
  std::vector<memory_device::DeviceCounter> Counters() override;
  size_t Submit(std::span<const memory_device::Operation> operations) override;
  size_t Poll(std::span<layout::Completion> completions) override;
  // Asks the card for an interrupt.
  int event_fd() override;
  absl::Status Quiesce() override;
  absl::Status Reset() override;

  // Direct queues (direct_queues.h). Areas of them are within these spaces; an empty one is left out.
  std::vector<CardSpace> direct_spaces() const { return direct_.spaces(); }
  // Makes the rings empty and begins to serve queue `number`, 1 to 7. Returns what is granted. An error names
  // the field and its bounds.
  absl::StatusOr<layout::AttachHello> AttachQueue(uint32_t number, const DirectQueue& queue);
  // Returns when nothing of the queue is under way; its memory is touched no more. The card takes nothing of
  // other queues meanwhile. INTERNAL: the card has failed, and the queue ends with the next reset.
  absl::Status DetachQueue(uint32_t number);
  // False from a reset of the card on, whoever asked for it.
  bool attached(uint32_t number) const { return direct_.attached(number); }
  // Writes the doorbell for a peer that cannot.
  absl::Status RingQueue(uint32_t number, uint32_t head);
  // The queue's head was out of bounds, so it is served no more until it is attached anew.
  absl::StatusOr<bool> QueueStopped(uint32_t number);

  // Why the card failed last; OK: it did not.
  const absl::Status& failure() const { return failure_; }
  const CardShape& shape() const { return shape_; }

 private:
  // An operation that was taken and not yet polled. Blocks: positions times heads, in this order.
  struct Taken {
    memory_device::Operation operation;
    layout::Completion answer{};
    bool on_card = false;  // else software's, when it is the oldest
    bool ready = false;
    uint32_t blocks = 0;
    uint32_t pushed = 0;    // blocks that the card has been given
    uint32_t answered = 0;  // blocks that it has answered
  };
  // A descriptor that the card has.
  struct Part {
    Taken* of = nullptr;
    layout::Descriptor descriptor{};
    uint64_t payload_bytes = 0;
    uint64_t results = 0;  // offset in the area
    uint64_t result_bytes = 0;
    uint32_t block_bytes = 0;  // of results
  };

  CardDriver(const memory_device::MemoryDeviceOptions& options, CardDriverOptions card);
  // Makes a port and begins empty on it.
  absl::Status Begin();
  // Resets the card and begins with empty rings; memory stays.
  absl::Status Restart();
  void FillCaps();
  HostNeeds Needs() const;
  layout::AttachHello GrantedToQueue() const;

  void Take(const memory_device::Operation& operation);
  layout::Completion AnswerOf(const layout::Descriptor& descriptor, uint16_t status, uint16_t detail) const;
  // Refuses what does not fit its index, as the card would.
  bool Check(Taken* taken, const CardIndexState* index) const;
  // Gives the card as much of the newest operation as there is room for.
  void Push();
  bool PushPart(Taken* taken, const CardIndexState& index);
  layout::Descriptor DescriptorOf(const Taken& taken, const CardIndexState& index, uint32_t positions,
                                  uint32_t heads) const;
  // Takes what the card has finished. Returns whether there was anything.
  bool Collect();
  absl::Status FinishPart(const Part& part, const layout::Completion& completion);
  absl::Status CopyResults(const Part& part, const layout::Completion& completion);
  void AddUp(const Part& part, const layout::Completion& completion);
  // Microjoules; none: they are not known.
  std::optional<uint32_t> EnergyOf(const Part& part, const layout::Completion& completion) const;
  // Waits for a card with nothing new since `since`: at first it spins, for latency.
  void Wait(std::chrono::steady_clock::time_point since, std::chrono::milliseconds most);
  // Asks the card for an interrupt when it has a completion that was not taken, or has failed.
  absl::Status AskInterrupt();
  // The card's own word of a failure; asked now, or when it has been silent for a while.
  void CheckState(bool now = false);
  void Fail(const absl::Status& why);
  void RunInSoftware(Taken* taken);
  void Gather(Taken* taken, const CardIndexState& index);
  void GatherBlock(Taken* taken, const CardIndexState& index, uint32_t block);
  // Finishes the oldest operations as far as they can be.
  bool FinishOldest();
  void Drop();

  const memory_device::MemoryDeviceOptions options_;
  const CardDriverOptions card_;
  std::unique_ptr<CardPort> port_;
  CardShape shape_;
  layout::AttachHello caps_{};
  HostParts parts_;
  CardMemory memory_;
  CardQueue queue_;
  DirectQueues direct_;
  FifoSpace payloads_{0};
  FifoSpace results_{0};
  std::deque<Taken> taken_;  // oldest first; only the newest may have blocks that are not pushed
  std::deque<Part> under_way_;
  absl::Status failure_;
  bool failed_ = false;     // takes nothing more until it is reset
  bool gave_up_ = false;    // a reset by itself did not help
  bool has_power_ = false;  // the port had a counter of power at the start
  uint32_t silent_polls_ = 0;
  std::optional<uint32_t> asked_;  // completions taken when an interrupt was asked for that has not come
  CheckedBlock block_;
  std::vector<uint32_t> ids_;  // of a gather
};

}  // namespace mnemo::card
