#include "devices/cpu/cpu_device.h"

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
    info_.numerics_id =
        fmt::format("cpu;isa={};kv={};layout={};build={}", kernels.isa,
                    options.kv_type == KvType::kF16 ? "f16" : "bf16", packer_.layout(), BuildId());
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
    struct Job {
      CpuDevice* device;
      std::span<const SampleRow> rows;
      int vocabulary;
      std::span<SampleResult> results;
    } job{this, rows, vocabulary, results};
    auto work = [](void* context, int thread) {
      const Job& j = *static_cast<const Job*>(context);
      const size_t threads = static_cast<size_t>(j.device->pool_.threads());
      for (size_t i = static_cast<size_t>(thread); i < j.rows.size(); i += threads) {
        j.results[i] =
            SampleOneRow(j.rows[i], j.vocabulary, &j.device->sample_scratch_[static_cast<size_t>(thread)]);
      }
    };
    if (rows.size() == 1) {
      results[0] = SampleOneRow(rows[0], vocabulary, &sample_scratch_[0]);
    } else {
      pool_.Run(work, &job);
    }
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
    return InvalidArgument("kv_type f32: the cpu device has f16 and bf16");
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
