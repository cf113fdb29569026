#include "devices/memory/cpu/cpu_memory_device.h"

#include <algorithm>

#include "devices/cpu/thread_pool.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::memory_device::cpu {
namespace {

using devices::cpu::ThreadPool;

class BatchJob final : public ThreadPool::Job {
 public:
  explicit BatchJob(QueryBatch* batch) : batch_(batch) {}
  bool NextStep(ThreadPool::Step* step) override {
    if (++phase_ >= batch_->phases()) {
      return false;
    }
    step->items = batch_->items(phase_);
    step->alone = step->items == 1;
    return true;
  }
  void Work(int thread, ThreadPool::Items& items) override {
    for (int64_t item = items.Next(); item != ThreadPool::Items::kNone; item = items.Next()) {
      batch_->RunItem(phase_, static_cast<uint32_t>(item), thread);
    }
  }

 private:
  QueryBatch* const batch_;
  int phase_ = -1;
};

class AppendItems final : public ThreadPool::Job {
 public:
  explicit AppendItems(AppendJob* job) : job_(job) {}
  bool NextStep(ThreadPool::Step* step) override {
    step->items = job_->items();
    return !std::exchange(begun_, true);
  }
  void Work(int thread, ThreadPool::Items& items) override {
    for (int64_t item = items.Next(); item != ThreadPool::Items::kNone; item = items.Next()) {
      job_->RunItem(static_cast<uint32_t>(item), thread);
    }
  }

 private:
  AppendJob* const job_;
  bool begun_ = false;
};

constexpr uint32_t Bit(uint32_t n) { return 1U << n; }

layout::AttachHello CapsOf(const MemoryDeviceOptions& options) {
  using namespace layout;  // NOLINT(google-build-using-namespace)
  AttachHello caps = NewHello();
  caps.ops = Bit(kOpCreate) | Bit(kOpAppend) | Bit(kOpFork) | Bit(kOpTruncate) | Bit(kOpFree) |
             Bit(kOpKvStore) | Bit(kOpScoreSelect) | Bit(kOpGather) | Bit(kOpScoreGather);
  caps.formats = Bit(kFormatCodes2) | Bit(kFormatCodes4) | Bit(kFormatCodes8) | Bit(kFormatBounds) |
                 Bit(kFormatMeans) | Bit(kFormatF16) | Bit(kFormatBf16) | Bit(kFormatF32) |
                 Bit(kFormatScaledKeys) | Bit(kFormatScaledBytes);
  caps.score_ops =
      static_cast<uint8_t>(Bit(kScoreDot) | Bit(kScoreReluDot) | Bit(kScorePageBound) | Bit(kScoreBlockMean));
  caps.group_ops =
      static_cast<uint8_t>(Bit(kGroupNone) | Bit(kGroupMax) | Bit(kGroupExp2Sum) | Bit(kGroupPlainMax));
  caps.select_ops = static_cast<uint8_t>(Bit(kSelectTopK) | Bit(kSelectThreshold) | Bit(kSelectWeightedSum) |
                                         Bit(kSelectLatest));
  caps.cascade = 1;
  for (uint32_t n = 0; n < 16; ++n) {
    caps.dims = static_cast<uint16_t>(caps.dims | (IsIndexDim(Bit(n)) ? Bit(n) : 0));
  }
  caps.max_group = static_cast<uint16_t>(std::min<uint32_t>(options.max_group, kMaxGroup));
  caps.max_k = options.max_k;
  caps.max_tokens = options.max_tokens;
  caps.max_queries = static_cast<uint16_t>(options.max_queries);
  caps.max_heads = static_cast<uint16_t>(options.max_heads);
  return caps;
}

}  // namespace

MemoryDeviceKind Kind() { return {.name = "cpu", .option_keys = {}, .create = CpuMemoryDevice::Create}; }

absl::StatusOr<std::unique_ptr<MemoryDevice>> CpuMemoryDevice::Create(const MemoryDeviceOptions& options,
                                                                      IndexStore* store) {
  if (options.threads < 1 || options.max_operations < 1) {
    return InvalidArgument("threads {} and max_operations {} must be at least 1", options.threads,
                           options.max_operations);
  }
  QueryBatchLimits limits;
  limits.max_operations = options.max_operations;
  limits.max_blocks = std::max(options.max_operations * 4, options.max_heads * options.max_queries);
  limits.max_tokens = options.max_tokens;
  limits.max_group = options.max_group;
  limits.max_k = options.max_k;
  limits.threads = options.threads;
  limits.isa = options.isa;
  constexpr uint64_t kOrdinaryScores = uint64_t{8192} * 3 * 3 * sizeof(int16_t);
  limits.scratch_bytes =
      options.scratch_bytes != 0 ? options.scratch_bytes : options.max_operations * kOrdinaryScores;
  MNEMO_ASSIGN_OR_RETURN(auto batch, QueryBatch::Create(limits));
  return std::unique_ptr<MemoryDevice>(new CpuMemoryDevice(options, store, std::move(batch)));
}

CpuMemoryDevice::CpuMemoryDevice(const MemoryDeviceOptions& options, IndexStore* store,
                                 std::unique_ptr<QueryBatch> batch)
    : options_(options),
      store_(store),
      batch_(std::move(batch)),
      pool_(std::make_unique<ThreadPool>(options.threads, std::vector<int>())),
      caps_(CapsOf(options)) {
  submitted_.reserve(options.max_operations);
  done_.reserve(options.max_operations);
}

CpuMemoryDevice::~CpuMemoryDevice() = default;

size_t CpuMemoryDevice::Submit(std::span<const Operation> operations) {
  const size_t room = options_.max_operations - submitted_.size() - (done_.size() - polled_);
  const size_t count = std::min(room, operations.size());
  submitted_.insert(submitted_.end(), operations.begin(), operations.begin() + static_cast<ptrdiff_t>(count));
  return count;
}

void CpuMemoryDevice::RunSubmitted() {
  done_.erase(done_.begin(), done_.begin() + static_cast<ptrdiff_t>(polled_));
  polled_ = 0;
  const std::span<const Operation> all(submitted_);
  for (size_t at = 0; at < all.size();) {
    const size_t taken = batch_->Begin(all.subspan(at), *store_);
    BatchJob job(batch_.get());
    pool_->Run(&job);
    const size_t first = done_.size();
    done_.resize(first + taken);
    batch_->Finish(std::span(done_).subspan(first));
    at += taken;
  }
  submitted_.clear();
}

size_t CpuMemoryDevice::Poll(std::span<layout::Completion> completions) {
  if (polled_ == done_.size() && !submitted_.empty()) {
    RunSubmitted();
  }
  const size_t count = std::min(completions.size(), done_.size() - polled_);
  std::copy_n(done_.begin() + static_cast<ptrdiff_t>(polled_), count, completions.begin());
  polled_ += count;
  return count;
}

absl::Status CpuMemoryDevice::Quiesce() {
  if (!submitted_.empty()) {
    RunSubmitted();
  }
  return absl::OkStatus();
}

absl::Status CpuMemoryDevice::Reset() {
  submitted_.clear();
  done_.clear();
  polled_ = 0;
  return absl::OkStatus();
}

void CpuMemoryDevice::RunAppend(AppendJob* job) {
  AppendItems items(job);
  pool_->Run(&items);
}

}  // namespace mnemo::memory_device::cpu
