#pragma once

// A batch of query operations over the CPU's record memory, divided into items that any thread may run. The
// worker runs them between the operations of a model; a memory device runs them on its own threads. Results
// are bitwise equal to those of layout::ScoreSelect for any items and threads.

#include <stdint.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/cpu/index_kernels.h"
#include "devices/memory/cpu/cpu_record_memory.h"
#include "devices/memory/gather.h"
#include "devices/memory/memory_device.h"
#include "proto/layout/completion.h"

namespace mnemo::memory_device::cpu {

struct QueryBatchLimits {
  uint32_t max_operations = 64;   // operations of one batch
  uint32_t max_blocks = 1024;     // query positions times heads, over all operations of a batch
  uint32_t max_tokens = 1 << 17;  // tokens of one scan
  uint32_t max_group = 16;
  uint32_t max_k = 1 << 14;
  int threads = 1;
  // Bytes of scores at a time; a batch that needs more is run in several rounds. Raised to the size of one
  // block of max_tokens and max_group.
  uint64_t scratch_bytes = 4 << 20;
  std::string isa = "auto";
};

class QueryBatch {
 public:
  // Allocates all memory that the batch ever uses. INVALID_ARGUMENT when the machine lacks the instruction
  // set.
  static absl::StatusOr<std::unique_ptr<QueryBatch>> Create(const QueryBatchLimits& limits);
  ~QueryBatch();
  QueryBatch(const QueryBatch&) = delete;
  QueryBatch& operator=(const QueryBatch&) = delete;

  // Takes the first of `operations`, as many as fit, and returns their number: at least 1 unless `operations`
  // is empty. An operation that no longer fits its index, or exceeds the limits, is taken and answered with a
  // status. Reads no payload. `operations` and the memory's indexes stay unchanged until Finish.
  size_t Begin(std::span<const Operation> operations, const CpuRecordMemory& memory);

  // The items of phase p may run when all of phase p - 1 are done. Both counts depend only on the shapes of
  // the operations: length of the indexes, ranges, heads, formats. A caller that repeats a batch over layers
  // may use the counts of the first layer.
  int phases() const { return static_cast<int>(phases_.size()); }
  uint32_t items(int phase) const { return phases_[static_cast<size_t>(phase)].count; }
  // Runs one item. Threads may run distinct items of a phase at once, each item once. `thread` is less than
  // the limits' threads and differs between concurrent calls. A phase or an item past the last does nothing.
  void RunItem(int phase, uint32_t item, int thread);

  // Called after the last phase. Writes one completion for each operation taken. Times are sums over the
  // items: score_ns up to and including the last score, select_ns after it; queue_ns is 0.
  void Finish(std::span<layout::Completion> completions);

  // Runs all operations on this thread: Begin, all items and Finish, repeated until all are done.
  void RunAll(std::span<const Operation> operations, const CpuRecordMemory& memory,
              std::span<layout::Completion> completions);

 private:
  enum class Kind : uint8_t { kScore, kSelect };
  struct Phase {
    Kind kind;
    bool second;  // second stage of a cascade
    uint32_t first_item;
    uint32_t count;
  };
  struct Item {
    uint32_t block;
    uint32_t blocks;  // scores: number of blocks from `block` on, neighbouring heads of one position
    uint32_t page;    // first page, counted from the scan's first
    uint32_t page_count;
    uint32_t score_ns;
    uint32_t select_ns;
    uint32_t gather_ns;
  };
  struct Taken;    // an operation that Begin took
  struct Block;    // one query position and head of an operation
  struct Scratch;  // buffers of one thread

  explicit QueryBatch(const QueryBatchLimits& limits);
  bool Take(const Operation& operation, const CpuRecordMemory& memory);
  void AddBlocks(uint32_t operation);
  void Plan();
  void PlanRound(uint32_t first, uint32_t end);
  void AddPhase(Kind kind, bool second, uint32_t first, uint32_t end);
  uint32_t HeadsTogether(uint32_t first, uint32_t end) const;

  void RunScore(bool second, const Item& item);
  void RunSelect(Block& block, bool second, Item& item, Scratch& scratch);
  void SelectOfBlock(Block& block, bool second, Scratch& scratch);
  void RankEntries(const Block& block, uint32_t skip, uint32_t end, uint32_t padded);
  bool SelectFewOfMany(Block& block, Scratch& scratch);
  void CountBytesRead(Block& block, bool first_of_two, bool second);
  void SelectLatest(Block& block, Scratch& scratch);
  void MakeRanks(const Block& block, uint32_t count, const int32_t* best);
  void SumWeighted(Block& block);
  void Emit(Block& block, uint32_t count, int32_t last_rank, uint32_t candidates, uint32_t flags,
            Scratch& scratch);
  void SortByRank(const Block& block, uint32_t count, Scratch& scratch);
  void GatherListed(Block& block, Scratch& scratch);
  // K and V that the block gathers from, and where its rows go.
  HeadValues ValuesOf(const Block& block) const;
  uint8_t* RowsOf(const Block& block) const;

  const QueryBatchLimits limits_;
  const uint32_t parts_;  // number of parts that a round's scores are divided into
  const devices::cpu::IndexKernels* kernels_;
  std::vector<Taken> taken_;
  std::vector<Block> blocks_;
  std::vector<Phase> phases_;
  std::vector<Item> items_;
  uint8_t* scores_ = nullptr;  // scratch_bytes, 64-byte aligned
  uint64_t scores_bytes_ = 0;
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

}  // namespace mnemo::memory_device::cpu
