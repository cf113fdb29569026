#include "devices/cpu/op_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/cpu/cpu_kv_cache.h"
#include "devices/cpu/packed_weights.h"

namespace mnemo::devices::cpu {
namespace {

// Up to so many rows every thread quantises all of them for itself, which costs less than a barrier.
constexpr int kSmallRows = 16;
// A piece of a large product: so many rows by about so many tiles.
constexpr int kChunkRows = 64;
constexpr int64_t kChunkTiles = 12;

template <typename T>
std::pair<T, T> Share(T count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

int64_t Tiles(const PackedTensor& weight) { return (weight.rows + kTileRows - 1) / kTileRows; }

const float* FloatsOf(const PackedTensor* vector) {
  return vector == nullptr ? nullptr : reinterpret_cast<const float*>(vector->data.data());
}

bool IsGate(MatMulEpilogue epilogue) {
  return epilogue == MatMulEpilogue::kSiluGate || epilogue == MatMulEpilogue::kGeluGate;
}

Epilogue EpilogueOf(MatMulEpilogue epilogue) {
  switch (epilogue) {
    case MatMulEpilogue::kStore:
      return Epilogue::kStore;
    case MatMulEpilogue::kAccumulate:
      return Epilogue::kAccumulate;
    case MatMulEpilogue::kSiluGate:
      return Epilogue::kSiluGate;
    case MatMulEpilogue::kGeluGate:
      return Epilogue::kGeluGate;
  }
  MNEMO_CHECK(false);
}

MatMulPart PartOf(const MatMulOp::Part& part) {
  return {.weight = reinterpret_cast<const uint8_t*>(part.weight->data.data()),
          .format = static_cast<PackedFormat>(part.weight->format),
          .rows = part.weight->rows,
          .bias = FloatsOf(part.bias),
          .out = part.out,
          .out_stride = part.out_stride};
}

size_t ActivationBytes(int rows, int cols) {
  return static_cast<size_t>((rows + kGroupRows - 1) / kGroupRows) *
         static_cast<size_t>((cols + kBlockCols - 1) / kBlockCols) * kMaxDigits * sizeof(ActivationBlock);
}

}  // namespace

struct OpRunner::Job {
  OpRunner* runner;
  std::span<const Op> ops;
};

OpRunner::OpRunner(const Kernels& kernels, ThreadPool* pool, std::atomic<uint64_t>* progress)
    : kernels_(kernels),
      pool_(pool),
      progress_(progress),
      scratch_(static_cast<size_t>(pool->threads())),
      phases_(static_cast<size_t>(pool->threads())) {}

absl::Status OpRunner::ReserveRows(int max_rows, int max_cols) {
  if (max_rows <= max_rows_ && max_cols <= max_cols_) return absl::OkStatus();
  max_rows = std::max(max_rows, max_rows_);
  max_cols = std::max(max_cols, max_cols_);
  MNEMO_ASSIGN_OR_RETURN(activations_, CpuMemory::Create(ActivationBytes(max_rows, max_cols)));
  const size_t row_bytes = static_cast<size_t>(max_cols) * sizeof(float);
  MNEMO_ASSIGN_OR_RETURN(float_rows_, CpuMemory::Create(static_cast<size_t>(max_rows) * row_bytes));
  for (ThreadScratch& scratch : scratch_) {
    MNEMO_ASSIGN_OR_RETURN(scratch.activations, CpuMemory::Create(ActivationBytes(kSmallRows, max_cols)));
    MNEMO_ASSIGN_OR_RETURN(scratch.floats, CpuMemory::Create(kSmallRows * row_bytes));
  }
  max_rows_ = max_rows;
  max_cols_ = max_cols;
  return absl::OkStatus();
}

// Only a list that is larger than what was reserved allocates here.
void OpRunner::Reserve(const Op& op) {
  absl::Status status;
  if (const auto* matmul = std::get_if<MatMulOp>(&op)) {
    status = ReserveRows(matmul->rows, static_cast<int>(matmul->parts[0].weight->cols));
  } else if (const auto* attention = std::get_if<AttentionOp>(&op)) {
    status = ReserveAttention(attention->heads, attention->cache->shape());
  }
  MNEMO_CHECK(status.ok());
}

void OpRunner::Run(std::span<const Op> ops) {
  for (const Op& op : ops) Reserve(op);
  Job job{this, ops};
  pool_->Run(
      [](void* context, int thread) {
        const Job& j = *static_cast<const Job*>(context);
        j.runner->RunThread(j, thread);
      },
      &job);
}

void OpRunner::RunThread(const Job& job, int thread) {
  for (const Op& op : job.ops) {
    if (const auto* host = std::get_if<HostOp>(&op); host != nullptr && host->count == 0) continue;
    std::visit([&](const auto& o) { RunOp(o, thread); }, op);
    EndPhase(thread);
    if (thread == 0 && progress_ != nullptr) progress_->fetch_add(1, std::memory_order_relaxed);
  }
}

void OpRunner::EndPhase(int thread) {
  uint32_t& phase = phases_[static_cast<size_t>(thread)].index;
  // The other counter was last used in the phase before this one, which every thread has left.
  if (thread == 0) counters_[(phase + 1) % 2].next.store(0, std::memory_order_relaxed);
  pool_->Barrier();
  ++phase;
}

int64_t OpRunner::NextItem(int thread) {
  return counters_[phases_[static_cast<size_t>(thread)].index % 2].next.fetch_add(1,
                                                                                  std::memory_order_relaxed);
}

void OpRunner::RunOp(const EmbedOp& op, int thread) {
  const auto [begin, end] = Share(op.rows, thread, pool_->threads());
  const int64_t cols = op.table->cols;
  for (int row = begin; row < end; ++row) {
    float* out = op.out + row * cols;
    UnpackRow(*op.table, op.ids[row], out);
    if (op.scale != 1.0f) kernels_.scale_row(out, op.scale, cols, out);
  }
}

void OpRunner::RunOp(const NormOp& op, int thread) {
  const auto [begin, end] = Share(op.rows, thread, pool_->threads());
  const int64_t cols = op.weight->cols;
  for (int row = begin; row < end; ++row) {
    kernels_.norm_row(op.x + row * cols, FloatsOf(op.weight), op.eps, cols, op.accumulate,
                      op.out + row * cols);
  }
}

void OpRunner::PrepareRows(const MatMulOp& op, bool quantized, bool floats, int begin, int end,
                           ActivationBlock* activations, float* float_rows) {
  const int64_t cols = op.parts[0].weight->cols;
  const int digits = DigitsOf(op.parts[0].weight->rows, cols);
  const float* norm = FloatsOf(op.norm_weight);
  for (int row = begin; row < end; ++row) {
    const float* x = op.x + (op.row_index == nullptr ? row : op.row_index[row]) * op.x_stride;
    if (quantized) {
      ActivationBlock* group = activations + row / kGroupRows * (cols / kBlockCols) * digits;
      kernels_.quantize_row(x, norm, op.norm_eps, cols, digits, row % kGroupRows, group);
    }
    if (floats && norm != nullptr) {
      kernels_.norm_row(x, norm, op.norm_eps, cols, false, float_rows + row * cols);
    } else if (floats) {
      std::memcpy(float_rows + row * cols, x, static_cast<size_t>(cols) * sizeof(float));
    }
  }
}

void OpRunner::RunOp(const MatMulOp& op, int thread) {
  MatMulPart parts[3];
  MatMulTask task;
  task.parts = parts;
  task.part_count = op.part_count;
  task.epilogue = EpilogueOf(op.epilogue);
  task.cols = op.parts[0].weight->cols;
  task.digits = DigitsOf(op.parts[0].weight->rows, task.cols);
  for (int i = 0; i < op.part_count; ++i) {
    parts[i] = PartOf(op.parts[static_cast<size_t>(i)]);
    if (i == 0 || !IsGate(op.epilogue)) task.tile_end += Tiles(*op.parts[static_cast<size_t>(i)].weight);
  }
  if (op.rows <= kSmallRows) {
    MatMulFew(op, task, thread);
  } else {
    MatMulMany(op, task, thread);
  }
}

namespace {

struct Needs {
  bool quantized = false;
  bool floats = false;
};

Needs NeedsOf(const MatMulTask& task) {
  Needs needs;
  for (int i = 0; i < task.part_count; ++i) {
    (IsFloatFormat(task.parts[i].format) ? needs.floats : needs.quantized) = true;
  }
  return needs;
}

}  // namespace

void OpRunner::MatMulFew(const MatMulOp& op, MatMulTask task, int thread) {
  const ThreadScratch& scratch = scratch_[static_cast<size_t>(thread)];
  const Needs needs = NeedsOf(task);
  const auto [begin, end] = Share(task.tile_end, thread, pool_->threads());
  if (begin == end) return;
  PrepareRows(op, needs.quantized, needs.floats, 0, op.rows, scratch.activations.as<ActivationBlock>(),
              scratch.floats.as<float>());
  task.x = scratch.activations.as<ActivationBlock>();
  task.x_float = scratch.floats.as<float>();
  task.x_float_stride = task.cols;
  task.row_end = op.rows;
  task.tile_begin = begin;
  task.tile_end = end;
  kernels_.matmul(task);
}

void OpRunner::MatMulMany(const MatMulOp& op, MatMulTask task, int thread) {
  const Needs needs = NeedsOf(task);
  const auto [group_begin, group_end] =
      Share((op.rows + kGroupRows - 1) / kGroupRows, thread, pool_->threads());
  PrepareRows(op, needs.quantized, needs.floats, group_begin * kGroupRows,
              std::min(group_end * kGroupRows, op.rows), activations_.as<ActivationBlock>(),
              float_rows_.as<float>());
  EndPhase(thread);
  task.x = activations_.as<ActivationBlock>();
  task.x_float = float_rows_.as<float>();
  task.x_float_stride = task.cols;
  const int64_t tiles = task.tile_end;
  const int64_t tile_chunks = (tiles + kChunkTiles - 1) / kChunkTiles;
  const int64_t row_chunks = (op.rows + kChunkRows - 1) / kChunkRows;
  for (int64_t item; (item = NextItem(thread)) < tile_chunks * row_chunks;) {
    task.row_begin = static_cast<int>(item / tile_chunks) * kChunkRows;
    task.row_end = std::min(task.row_begin + kChunkRows, op.rows);
    task.tile_begin = item % tile_chunks * kChunkTiles;
    task.tile_end = std::min(task.tile_begin + kChunkTiles, tiles);
    kernels_.matmul(task);
  }
}

void OpRunner::RunOp(const HostOp& op, int thread) {
  for (int64_t item; (item = NextItem(thread)) < op.count;) {
    op.run(op.context, static_cast<int>(item), thread);
  }
}

void OpRunner::RunOp(const RotaryStoreOp& op, int thread) {
  const auto [begin, end] = Share(op.rows, thread, pool_->threads());
  const CacheView cache = static_cast<const CpuKvCache*>(op.cache)->View(op.layer);
  RotaryTask task;
  task.heads = op.heads;
  task.kv_heads = op.kv_heads;
  task.head_dim = op.head_dim;
  task.q_norm = FloatsOf(op.q_norm);
  task.k_norm = FloatsOf(op.k_norm);
  task.norm_eps = op.norm_eps;
  task.halves = op.style == RotaryStyle::kHalves;
  task.rotary_dims = op.rotary_dims;
  for (int row = begin; row < end; ++row) {
    task.q = op.q + static_cast<int64_t>(row) * op.heads * op.head_dim;
    task.k = op.k + static_cast<int64_t>(row) * op.kv_heads * op.head_dim;
    task.cos_sin = op.cos_sin + static_cast<int64_t>(row) * op.rotary_dims;
    kernels_.rotary_row(task);
    kernels_.store_row(task.k, op.v + static_cast<int64_t>(row) * op.kv_heads * op.head_dim, op.kv_heads,
                       op.head_dim, cache, op.slots[row]);
  }
}

}  // namespace mnemo::devices::cpu
