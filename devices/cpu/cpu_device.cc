#include "devices/cpu/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/base/build_id.h"
#include "devices/cpu/cpu_kv_cache.h"
#include "devices/cpu/isa.h"
#include "devices/cpu/op_runner.h"
#include "devices/cpu/packed_weights.h"
#include "devices/cpu/thread_pool.h"
#include "devices/sample_row.h"

namespace mnemo::devices::cpu {
namespace {

class CpuBuffer final : public DeviceBuffer {
 public:
  CpuBuffer(CpuMemory memory, size_t bytes) : memory_(std::move(memory)), bytes_(bytes) {}
  void* data() const override { return memory_.data(); }
  size_t bytes() const override { return bytes_; }

 private:
  CpuMemory memory_;
  size_t bytes_;
};

// Below this number of logits, one thread is faster than handing out work.
constexpr int64_t kAloneLogits = 4096;

// One sampling step. An item is the rows that share a scratch, so a scratch grows only with its own rows,
// whichever thread runs the item.
class SampleJob final : public ThreadPool::Job {
 public:
  SampleJob(std::span<const SampleRow> rows, int vocabulary, std::span<SampleResult> results,
            std::span<SampleScratch> scratch)
      : rows_(rows), vocabulary_(vocabulary), results_(results), scratch_(scratch) {}

  bool NextStep(ThreadPool::Step* step) override {
    const auto rows = static_cast<int64_t>(rows_.size());
    step->items = std::min(rows, static_cast<int64_t>(scratch_.size()));
    step->alone = rows * vocabulary_ < kAloneLogits;
    return !std::exchange(begun_, true);
  }

  void Work(int, ThreadPool::Items& items) override {
    for (int64_t item; (item = items.Next()) != ThreadPool::Items::kNone;) {
      const auto share = static_cast<size_t>(item);
      for (size_t row = share; row < rows_.size(); row += scratch_.size()) {
        results_[row] = SampleOneRow(rows_[row], vocabulary_, &scratch_[share]);
      }
    }
  }

 private:
  std::span<const SampleRow> rows_;
  int vocabulary_;
  std::span<SampleResult> results_;
  std::span<SampleScratch> scratch_;
  bool begun_ = false;
};

class CpuDevice final : public Device {
 public:
  CpuDevice(const DeviceOptions& options, const Kernels& kernels)
      : pool_(options.threads, options.cpus),
        runner_(kernels, &pool_, options.progress),
        sample_scratch_(static_cast<size_t>(options.threads)) {
    info_.name = "cpu0";
    info_.kind = "cpu";
    info_.isa = kernels.isa;
    info_.threads = options.threads;
    info_.kv_type = options.kv_type;
    info_.numerics_id = fmt::format("cpu;isa={};kv={};layout={};build={}", kernels.isa,
                                    KvTypeName(options.kv_type), packer_.layout(), BuildId());
  }

  const DeviceInfo& info() const override { return info_; }
  const WeightPacker& packer() const override { return packer_; }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t bytes) override {
    MNEMO_ASSIGN_OR_RETURN(CpuMemory memory, CpuMemory::Create(bytes));
    return std::make_unique<CpuBuffer>(std::move(memory), bytes);
  }

  absl::Status Reserve(int max_rows, int max_cols, int max_heads) override {
    max_heads_ = max_heads;
    MNEMO_RETURN_IF_ERROR(runner_.ReserveRows(max_rows, max_cols));
    return cache_shape_.head_dim > 0 ? runner_.ReserveAttention(max_heads_, cache_shape_) : absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<KvCache>> CreateKvCache(const KvCacheShape& shape) override {
    if (shape.type != info_.kv_type) {
      return InvalidArgument("KV cache: another type than that of the device");
    }
    MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<CpuKvCache> cache, CpuKvCache::Create(shape));
    cache_shape_ = shape;
    if (max_heads_ > 0) MNEMO_RETURN_IF_ERROR(runner_.ReserveAttention(max_heads_, shape));
    return cache;
  }

  void Run(std::span<const Op> ops) override { runner_.Run(ops); }

  void Sample(std::span<const SampleRow> rows, int vocabulary, std::span<SampleResult> results) override {
    SampleJob job(rows, vocabulary, results, sample_scratch_);
    pool_.Run(&job);
  }

  void Copy(void* destination, const void* source, size_t bytes) override {
    std::memcpy(destination, source, bytes);
  }

 private:
  DeviceInfo info_;
  CpuWeightPacker packer_;
  ThreadPool pool_;
  OpRunner runner_;
  std::vector<SampleScratch> sample_scratch_;  // [threads]
  int max_heads_ = 0;
  KvCacheShape cache_shape_;
};

absl::StatusOr<std::unique_ptr<Device>> Create(const DeviceOptions& options) {
  if (options.kv_type == KvType::kF32) {
    return InvalidArgument("kv_type f32: the cpu device has f16, bf16 and q8");
  }
  const Kernels* kernels = FindKernels(options.isa);
  MNEMO_CHECK(kernels != nullptr);
  return std::make_unique<CpuDevice>(options, *kernels);
}

absl::StatusOr<std::unique_ptr<WeightPacker>> CreatePacker(const DeviceOptions&) {
  return std::make_unique<CpuWeightPacker>();
}

}  // namespace

DeviceKind Kind() { return {.name = "cpu", .isas = Isas(), .create = Create, .create_packer = CreatePacker}; }

}  // namespace mnemo::devices::cpu
