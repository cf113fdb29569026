#include "devices/cpu/op_runner.h"

#include <algorithm>
#include <cstring>

#include "devices/cpu/cpu_kv_cache.h"
#include "devices/cpu/packed_weights.h"

namespace mnemo::devices::cpu {
namespace {

// Up to this number of rows, every thread quantises all rows for itself, which costs less than a separate
// step.
constexpr int kSmallRows = 16;
// A piece of a large product: this number of rows, by about the following number of tiles.
constexpr int kChunkRows = 64;
constexpr int64_t kChunkTiles = 12;
// Items per thread of a product with few rows. More items balance the load when one thread arrives late.
constexpr int64_t kFewItemsPerThread = 2;
// Rows to quantise per item.
constexpr int kPrepareRows = 2 * kGroupRows;
// Rows that a matrix product computes in the time that one read of its weights takes.
constexpr int64_t kRowsPerRead = 4;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t Tiles(const PackedTensor& weight) { return CeilDiv(weight.rows, kTileRows); }

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

// Walks a list of operations as steps of the pool.
class OpRunner::List final : public ThreadPool::Job {
 public:
  List(OpRunner* runner, std::span<const Op> ops) : runner_(runner), ops_(ops) {}

  // Earlier operations may write data that determines an operation's work, so an operation is divided only
  // when it is next.
  bool NextStep(ThreadPool::Step* step) override {
    if (++part_ == steps_.parts) {
      if (next_ == ops_.size()) return false;
      op_ = &ops_[next_++];
      part_ = 0;
      steps_ = std::visit([this](const auto& op) { return runner_->StepsOf(op); }, *op_);
    }
    *step = {.items = steps_.items[static_cast<size_t>(part_)], .alone = steps_.alone};
    return true;
  }

  void Work(int thread, Items& items) override {
    std::visit([&](const auto& op) { runner_->RunOp(op, part_, thread, items); }, *op_);
    if (runner_->progress_ != nullptr) runner_->progress_->fetch_add(1, std::memory_order_relaxed);
  }

 private:
  OpRunner* runner_;
  std::span<const Op> ops_;
  size_t next_ = 0;
  const Op* op_ = nullptr;
  OpSteps steps_;
  // Index into steps_; the first call of NextStep ends an operation that does not exist.
  int part_ = 0;
};

OpRunner::OpRunner(const Kernels& kernels, ThreadPool* pool, std::atomic<uint64_t>* progress)
    : kernels_(kernels), pool_(pool), progress_(progress), scratch_(static_cast<size_t>(pool->threads())) {}

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

// Allocates only for a list that is larger than reserved.
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
  List list(this, ops);
  pool_->Run(&list);
}

OpRunner::OpSteps OpRunner::StepsOf(const EmbedOp& op) const {
  return {.items = {op.rows}, .alone = op.rows * op.table->cols * int64_t{sizeof(float)} < kAloneBytes};
}

OpRunner::OpSteps OpRunner::StepsOf(const NormOp& op) const {
  return {.items = {op.rows}, .alone = op.rows * op.weight->cols * int64_t{sizeof(float)} < kAloneBytes};
}

OpRunner::OpSteps OpRunner::StepsOf(const RotaryStoreOp& op) const {
  const int64_t floats = int64_t{op.rows} * (op.heads + 2 * op.kv_heads) * op.head_dim;
  return {.items = {op.rows}, .alone = floats * int64_t{sizeof(float)} < kAloneBytes};
}

OpRunner::OpSteps OpRunner::StepsOf(const HostOp& op) const { return {.items = {op.count}}; }

OpRunner::OpSteps OpRunner::StepsOf(const MatMulOp& op) const {
  int64_t tiles = 0;
  int64_t bytes = 0;
  for (int i = 0; i < op.part_count; ++i) {
    const PackedTensor& weight = *op.parts[static_cast<size_t>(i)].weight;
    if (i == 0 || !IsGate(op.epilogue)) tiles += Tiles(weight);
    bytes += static_cast<int64_t>(weight.data.size());
  }
  OpSteps steps;
  steps.alone = bytes * std::max<int64_t>(1, op.rows / kRowsPerRead) < kAloneBytes;
  if (op.rows <= kSmallRows) {
    steps.items = {std::min(tiles, kFewItemsPerThread * pool_->threads())};
  } else {
    steps.parts = 2;
    steps.items = {CeilDiv(op.rows, kPrepareRows),
                   CeilDiv(op.rows, kChunkRows) * CeilDiv(tiles, kChunkTiles)};
  }
  return steps;
}

void OpRunner::RunOp(const EmbedOp& op, int, int, Items& items) {
  const int64_t cols = op.table->cols;
  for (int64_t row; (row = items.Next()) < op.rows;) {
    float* out = op.out + row * cols;
    UnpackRow(*op.table, op.ids[row], out);
    if (op.scale != 1.0f) kernels_.scale_row(out, op.scale, cols, out);
  }
}

void OpRunner::RunOp(const NormOp& op, int, int, Items& items) {
  const int64_t cols = op.weight->cols;
  for (int64_t row; (row = items.Next()) < op.rows;) {
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

void OpRunner::RunOp(const MatMulOp& op, int part, int thread, Items& items) {
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
    MatMulFew(op, task, thread, items);
  } else if (part == 0) {
    const Needs needs = NeedsOf(task);
    for (int64_t item; (item = items.Next()) != Items::kNone;) {
      const int begin = static_cast<int>(item) * kPrepareRows;
      PrepareRows(op, needs.quantized, needs.floats, begin, std::min(begin + kPrepareRows, op.rows),
                  activations_.as<ActivationBlock>(), float_rows_.as<float>());
    }
  } else {
    MatMulMany(op, task, items);
  }
}

void OpRunner::MatMulFew(const MatMulOp& op, MatMulTask task, int thread, Items& items) {
  const ThreadScratch& scratch = scratch_[static_cast<size_t>(thread)];
  const Needs needs = NeedsOf(task);
  PrepareRows(op, needs.quantized, needs.floats, 0, op.rows, scratch.activations.as<ActivationBlock>(),
              scratch.floats.as<float>());
  task.x = scratch.activations.as<ActivationBlock>();
  task.x_float = scratch.floats.as<float>();
  task.x_float_stride = task.cols;
  task.row_end = op.rows;
  const int64_t tiles = task.tile_end;
  const int64_t count = StepsOf(op).items[0];
  for (int64_t item; (item = items.Next()) < count;) {
    task.tile_begin = tiles * item / count;
    task.tile_end = tiles * (item + 1) / count;
    kernels_.matmul(task);
  }
}

void OpRunner::MatMulMany(const MatMulOp& op, MatMulTask task, Items& items) {
  task.x = activations_.as<ActivationBlock>();
  task.x_float = float_rows_.as<float>();
  task.x_float_stride = task.cols;
  const int64_t tiles = task.tile_end;
  const int64_t tile_chunks = CeilDiv(tiles, kChunkTiles);
  for (int64_t item; (item = items.Next()) != Items::kNone;) {
    task.row_begin = static_cast<int>(item / tile_chunks) * kChunkRows;
    task.row_end = std::min(task.row_begin + kChunkRows, op.rows);
    task.tile_begin = item % tile_chunks * kChunkTiles;
    task.tile_end = std::min(task.tile_begin + kChunkTiles, tiles);
    kernels_.matmul(task);
  }
}

void OpRunner::RunOp(const HostOp& op, int, int thread, Items& items) {
  for (int64_t item; (item = items.Next()) < op.count;) {
    op.run(op.context, static_cast<int>(item), thread);
  }
}

void OpRunner::RunOp(const RotaryStoreOp& op, int, int, Items& items) {
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
  for (int64_t row; (row = items.Next()) < op.rows;) {
    task.q = op.q + row * op.heads * op.head_dim;
    task.k = op.k + row * op.kv_heads * op.head_dim;
    task.cos_sin = op.cos_sin + row * op.rotary_dims;
    kernels_.rotary_row(task);
    kernels_.store_row(task.k, op.v + row * op.kv_heads * op.head_dim, op.kv_heads, op.head_dim, cache,
                       op.slots[row]);
  }
}

}  // namespace mnemo::devices::cpu
