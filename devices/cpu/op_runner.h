// Runs lists of operations on a team of threads.
#pragma once

#include <atomic>
#include <span>

#include "devices/cpu/cpu_memory.h"
#include "devices/cpu/kernels.h"
#include "devices/cpu/thread_pool.h"
#include "devices/device.h"

namespace mnemo::devices::cpu {

// Not thread-safe: one caller at a time.
class OpRunner {
 public:
  // `pool` outlives the object; `progress` may be nullptr.
  OpRunner(const Kernels& kernels, ThreadPool* pool, std::atomic<uint64_t>* progress);

  // Scratch memory for matrix products over so many rows and columns, and for so many query heads.
  absl::Status ReserveRows(int max_rows, int max_cols);
  absl::Status ReserveAttention(int max_heads, const KvCacheShape& shape);
  void Run(std::span<const Op> ops);

 private:
  using Items = ThreadPool::Items;
  // Below so many bytes of reading, or work that takes as long, one thread is faster than two: with another
  // core's cache in between, handing a step out and in takes about half a microsecond.
  static constexpr int64_t kAloneBytes = 24 << 10;
  struct ThreadScratch {
    CpuMemory activations;  // ActivationBlock, of kSmallRows rows
    CpuMemory floats;       // the same rows as float32
    CpuMemory attention;
  };
  // Query rows of one sequence that one thread takes at a time, and the keys it reads.
  struct AttentionItem {
    const AttentionSequence* sequence = nullptr;
    int kv_head = 0;
    int row = 0;  // within the sequence
    int rows = 0;
    int split_begin = 0;
    int split_end = 0;
    int64_t partial = 0;  // index of the first state in partials_
  };
  struct AttentionPlan;
  struct AttentionScratch;
  // An operation as steps of the pool. A function of the operation alone, and of the number of threads.
  struct OpSteps {
    int parts = 1;  // 2: the first part prepares what the second needs
    std::array<int64_t, 2> items = {};
    bool alone = false;
  };
  class List;

  void Reserve(const Op& op);
  OpSteps StepsOf(const EmbedOp& op) const;
  OpSteps StepsOf(const NormOp& op) const;
  OpSteps StepsOf(const MatMulOp& op) const;
  OpSteps StepsOf(const RotaryStoreOp& op) const;
  OpSteps StepsOf(const AttentionOp& op) const;
  OpSteps StepsOf(const HostOp& op) const;
  // Each does the items it is given of one part.
  void RunOp(const EmbedOp& op, int part, int thread, Items& items);
  void RunOp(const NormOp& op, int part, int thread, Items& items);
  void RunOp(const MatMulOp& op, int part, int thread, Items& items);
  void RunOp(const RotaryStoreOp& op, int part, int thread, Items& items);
  void RunOp(const AttentionOp& op, int part, int thread, Items& items);
  void RunOp(const HostOp& op, int part, int thread, Items& items);
  void PrepareRows(const MatMulOp& op, bool quantized, bool floats, int begin, int end,
                   ActivationBlock* activations, float* float_rows);
  void MatMulFew(const MatMulOp& op, MatMulTask task, int thread, Items& items);
  void MatMulMany(const MatMulOp& op, MatMulTask task, Items& items);
  AttentionPlan PlanAttention(const AttentionOp& op) const;
  // Returns the floats needed; lays the parts out from `base` when it is given.
  static size_t LayOut(int heads, int head_dim, float* base, AttentionScratch* scratch);
  void AttendItem(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item, int thread);
  void AttendSplits(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item,
                    const AttentionScratch& scratch, float* states, float* merged);
  bool AttendListedSplit(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item,
                         int split, const CacheView& cache, const AttentionScratch& scratch, float* states);
  void MergePartials(const AttentionOp& op, const AttentionPlan& plan, int thread, Items& items);

  const Kernels& kernels_;
  ThreadPool* pool_;
  std::atomic<uint64_t>* progress_;
  int max_rows_ = 0;
  int max_cols_ = 0;
  int attention_heads_ = 0;
  int attention_head_dim_ = 0;
  int64_t partial_capacity_ = 0;  // states
  std::vector<ThreadScratch> scratch_;
  CpuMemory activations_;  // ActivationBlock of max_rows_ rows, shared by all threads
  CpuMemory float_rows_;   // [max_rows_, max_cols_]
  CpuMemory partials_;     // states of attention splits
};

}  // namespace mnemo::devices::cpu
