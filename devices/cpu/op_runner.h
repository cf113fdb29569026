// Runs lists of operations on a thread pool.
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

  // Reserve scratch memory, for matrix products over this number of rows and columns, and for this number of
  // query heads.
  absl::Status ReserveRows(int max_rows, int max_cols);
  absl::Status ReserveAttention(int max_heads, const KvCacheShape& shape);
  void Run(std::span<const Op> ops);

 private:
  using Items = ThreadPool::Items;
  // Below this number of bytes read, or work of the same duration, one thread is faster than two. Handing a
  // step to another core and back through its cache takes about half a microsecond.
  static constexpr int64_t kAloneBytes = 24 << 10;
  struct ThreadScratch {
    // ActivationBlock, kSmallRows rows.
    CpuMemory activations;
    // The same rows as float32.
    CpuMemory floats;
    CpuMemory attention;
  };
  // Query rows of one sequence that one thread processes as a unit, and the keys they read.
  struct AttentionItem {
    const AttentionSequence* sequence = nullptr;
    int kv_head = 0;
    // Index within the sequence.
    int row = 0;
    int rows = 0;
    int split_begin = 0;
    int split_end = 0;
    // Index of the first state in partials_.
    int64_t partial = 0;
  };
  struct AttentionPlan;
  struct AttentionScratch;
  // An operation as steps of the pool. Depends only on the operation and the number of threads.
  struct OpSteps {
    // 2: the first part prepares the input of the second.
    int parts = 1;
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
  // Each processes the items it receives, for one part.
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
  // Returns the number of floats needed; lays the parts out from `base` unless that is nullptr.
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
  // In states.
  int64_t partial_capacity_ = 0;
  std::vector<ThreadScratch> scratch_;
  // ActivationBlock of max_rows_ rows, shared by all threads.
  CpuMemory activations_;
  // [max_rows_, max_cols_].
  CpuMemory float_rows_;
  // States of attention splits.
  CpuMemory partials_;
};

}  // namespace mnemo::devices::cpu
