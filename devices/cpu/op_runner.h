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
  struct Job;
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

  void Reserve(const Op& op);
  void RunThread(const Job& job, int thread);
  void RunOp(const EmbedOp& op, int thread);
  void RunOp(const NormOp& op, int thread);
  void RunOp(const MatMulOp& op, int thread);
  void RunOp(const RotaryStoreOp& op, int thread);
  void RunOp(const AttentionOp& op, int thread);
  void RunOp(const HostOp& op, int thread);
  void PrepareRows(const MatMulOp& op, bool quantized, bool floats, int begin, int end,
                   ActivationBlock* activations, float* float_rows);
  void MatMulFew(const MatMulOp& op, MatMulTask task, int thread);
  void MatMulMany(const MatMulOp& op, MatMulTask task, int thread);
  AttentionPlan PlanAttention(const AttentionOp& op) const;
  void AttendItem(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item, int thread);
  void MergePartials(const AttentionOp& op, const AttentionPlan& plan, int thread);

  // Barrier, and a fresh counter for the next phase.
  void EndPhase(int thread);
  // Next piece of work of this phase, from 0 upwards.
  int64_t NextItem(int thread);

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
  // A phase takes work from one counter while the other is made ready for the next phase.
  struct alignas(64) Counter {
    std::atomic<int64_t> next = 0;
  };
  std::array<Counter, 2> counters_;
  struct alignas(64) Phase {
    uint32_t index = 0;
  };
  std::vector<Phase> phases_;  // [threads]
};

}  // namespace mnemo::devices::cpu
