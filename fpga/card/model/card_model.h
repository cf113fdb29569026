#pragma once

// The card in software: registers, queues and jobs as proto/layout/card.h describes them. It takes one
// descriptor a step, computes as the RTL does, and estimates cycles.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fpga/card/model/command_model.h"
#include "fpga/card/model/jobs.h"
#include "fpga/card/model/lane_model.h"
#include "fpga/card/model/memory.h"
#include "fpga/card/model/recall_model.h"
#include "fpga/card/model/timing.h"
#include "proto/layout/card.h"
#include "proto/layout/completion.h"

namespace mnemo::card::model {

class CardModel {
 public:
  // Both memories outlive the model.
  CardModel(const Shape& shape, const SparseMemory* card, HostMemory* host);

  // Accesses outside of the registers read 0 and change nothing.
  uint32_t ReadRegister(uint32_t offset) const;
  void WriteRegister(uint32_t offset, uint32_t value);

  // Takes one descriptor and answers it. Returns false when there is none to take.
  bool Step();

  // Whether the line of interrupts is up.
  bool interrupt() const { return interrupts_used_ && interrupt_status_ != 0; }

  uint64_t cycles() const { return counters_[layout::kCardCyclesTotal]; }

 private:
  struct Queue {
    QueueRegisters registers;
    bool stopped = false;  // its head is further from its tail than it has slots
    uint32_t tail = 0;
    uint32_t completion_head = 0;
    uint32_t next_seq = 0;
  };
  // A descriptor under way.
  struct Work {
    layout::Descriptor descriptor;
    layout::CardIndex index;
    uint64_t result_address = 0;
    uint64_t payload_address = 0;
    layout::Completion completion{};
    Timeline timeline;
  };

  uint32_t ReadOnly(uint32_t offset) const;
  uint32_t State() const;
  // Writes a register other than those of channels and queues.
  void WriteControl(uint32_t offset, uint32_t value);
  // interrupt_unit: raises an interrupt when the host asked for one and there is news.
  void RaiseInterrupt();
  bool StepQueues();
  void WriteQueue(uint32_t queue, uint32_t offset, uint32_t value);
  void Reset();

  bool Takes() const;
  // Descriptors that a queue holds; 0 when it is not in use.
  uint32_t Depth(const Queue& queue) const;
  // Refreshes the head of a polled queue, stops one with a head that cannot be.
  void Look(Queue* queue);
  void Take(Queue* queue);
  // index_fetch: the entry, and the tokens of the descriptor's slot.
  bool FetchIndex(const Queue& queue, const layout::Descriptor& descriptor, layout::CardIndex* index,
                  uint32_t* tokens);
  bool Execute(Work* work);
  // One position and head; `number` is that of its blocks.
  bool ExecuteBlock(Work* work, uint32_t number);
  // recall_unit: the same of a weighted sum.
  bool SumBlock(Work* work, uint32_t number, std::span<const Query> queries);
  std::optional<std::vector<Query>> LoadQueries(const Work& work, uint32_t number);
  // A scan and its selection.
  std::optional<Hits> RunJob(Work* work, const ScanJob& scan, const SelectJob& select,
                             std::span<const Query> queries, std::span<const ListEntry> list, Kept* kept);
  // A scan of values, of which recall_unit takes a page at a time. Adds its cycles to `cycles`.
  bool RunValues(Work* work, const ScanJob& scan, std::span<const Query> queries, ScoreStore* store,
                 uint64_t* cycles);
  // The reads of a scan's pages, by lane.
  std::vector<LaneWork> WorkOf(const ScanJob& scan, const ScoreStore& store) const;
  // Returns false, and fails, when a job took too long.
  bool Watch(uint64_t cycles);
  bool ScanPages(const ScanJob& job, std::span<const Query> queries, std::span<const ListEntry> list,
                 ScoreStore* store);
  // channel_reader: the beats of a page that the job reads.
  bool ReadPage(const ScanJob& job, uint32_t page, std::vector<uint8_t>* read);
  bool ReadBeats(uint32_t lane, uint64_t beat, std::span<uint8_t> to);
  // result_writer, completion_writer.
  bool WriteResult(Work* work, uint32_t number, const Hits& hits);
  bool WriteSum(Work* work, uint32_t number, const WeightedSum& sum);
  bool WriteCompletion(Queue* queue, const layout::Completion& completion);
  void CountJob(const ScanJob& scan, uint64_t select, const std::vector<LaneWork>& lanes);

  bool ReadHost(uint64_t address, std::span<uint8_t> to);
  bool WriteHost(uint64_t address, std::span<const uint8_t> from);
  // Remembers the first failure. Returns false.
  bool Fail(uint32_t failure);

  const Shape shape_;
  const SparseMemory* card_;
  HostMemory* host_;
  uint32_t control_ = 0;
  uint32_t watchdog_ = 0;
  uint32_t period_ = 0;
  uint32_t failure_ = layout::kCardFailureNone;
  bool interrupts_used_ = false;
  uint32_t interrupt_enable_ = 0;
  uint32_t interrupt_status_ = 0;
  std::optional<uint32_t> awaited_;                                // the question that has no answer
  std::array<uint32_t, 2 * layout::kCardMaxChannels> channels_{};  // base, length of each
  std::array<Queue, layout::kCardQueues> queues_{};
  uint32_t turn_ = 0;  // the queue that is asked first
  // The memory of index_fetch and query_loader.
  struct Place {
    uint32_t queue = 0;
    uint32_t index_id = 0;
    uint16_t generation = 0;
    bool operator==(const Place&) const = default;
  };
  static constexpr uint32_t kPlaces = 16;
  static constexpr uint64_t kMostEarlyBeats = 32;
  std::array<std::optional<Place>, kPlaces> places_{};
  uint64_t latest_beats_ = 0;  // of a block of queries
  bool prepared_ = false;      // the next descriptor was known while the last one ran, which hides its start
  std::array<uint64_t, layout::kCardCounters> counters_{};
  std::array<std::array<uint64_t, layout::kCardLaneCounters>, layout::kCardMaxChannels> lanes_{};
};

}  // namespace mnemo::card::model
