#include "devices/reference/reference_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "devices/base/build_id.h"
#include "devices/base/mapping.h"
#include "devices/listed_keys.h"
#include "devices/reference/crew.h"
#include "devices/reference/reference_kernels.h"
#include "devices/reference/reference_packer.h"
#include "devices/sample_row.h"

namespace mnemo::devices::reference {
namespace {

class Buffer : public DeviceBuffer {
 public:
  static absl::StatusOr<std::unique_ptr<Buffer>> Create(size_t bytes) {
    const size_t mapped = std::max<size_t>(bytes, 1);
    void* data = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return ResourceExhausted("device memory: {} bytes: {}", bytes, std::strerror(errno));
    }
    KeepOutOfCores(data, mapped);
    return std::unique_ptr<Buffer>(new Buffer(data, bytes, mapped));
  }
  ~Buffer() override { ::munmap(data_, mapped_); }
  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  Buffer(void* data, size_t bytes, size_t mapped) : data_(data), bytes_(bytes), mapped_(mapped) {}
  void* data_;
  size_t bytes_;
  size_t mapped_;
};

// Pages of all layers, then extra pages of the plain layers, then staging pages. A page is [its layers][K,
// V][kv_heads][kPageTokens][head_dim] float32.
class Cache : public KvCache {
 public:
  Cache(const KvCacheShape& shape, std::unique_ptr<Buffer> buffer)
      : shape_(shape), buffer_(std::move(buffer)) {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      plain_slot_.push_back(plain_layers_);
      plain_layers_ += shape_.IsGather(layer) ? 0 : 1;
    }
  }
  const KvCacheShape& shape() const override { return shape_; }

  float* Key(int64_t page, int layer, int head, int64_t slot) const { return At(page, layer, 0, head, slot); }
  float* Value(int64_t page, int layer, int head, int64_t slot) const {
    return At(page, layer, 1, head, slot);
  }

  void ReadKeys(int layer, int kv_head, int page, float* out) const override {
    MNEMO_CHECK(page >= 0 && page < shape_.pages);
    const float* keys = Key(page, layer, kv_head, 0);
    std::copy(keys, keys + int64_t{kPageTokens} * shape_.head_dim, out);
  }
  void ReadKv(int layer, int kv_head, int page, int slot, float* key, float* value) const override {
    MNEMO_CHECK(Has(layer, page) && slot >= 0 && slot < kPageTokens);
    const float* k = Key(page, layer, kv_head, slot);
    const float* v = Value(page, layer, kv_head, slot);
    if (key != nullptr) std::copy(k, k + shape_.head_dim, key);
    if (value != nullptr) std::copy(v, v + shape_.head_dim, value);
  }
  // Returns whether attention may read the page in this layer.
  bool Has(int layer, int64_t page) const { return page >= 0 && page < shape_.PagesEnd(layer); }

  void CopyOut(int layer, int kv_head, int page, int slot, int count, uint8_t* out) const override {
    std::vector<float> both(2 * static_cast<size_t>(shape_.head_dim));
    for (int i = 0; i < count; ++i, out += both.size() * sizeof(float)) {
      ReadKv(layer, kv_head, page, slot + i, both.data(), both.data() + shape_.head_dim);
      std::memcpy(out, both.data(), both.size() * sizeof(float));
    }
  }
  void CopyIn(int layer, int kv_head, int page, int slot, int count, const uint8_t* in) override {
    MNEMO_CHECK(Has(layer, page) && slot >= 0 && slot + count <= kPageTokens);
    const size_t bytes = static_cast<size_t>(shape_.head_dim) * sizeof(float);
    for (int i = 0; i < count; ++i, in += 2 * bytes) {
      std::memcpy(Key(page, layer, kv_head, slot + i), in, bytes);
      std::memcpy(Value(page, layer, kv_head, slot + i), in + bytes, bytes);
    }
  }

 private:
  float* At(int64_t page, int layer, int which, int head, int64_t slot) const {
    int64_t layer_of_all = page * shape_.layers + layer;
    if (page >= shape_.pages) {
      const int64_t beyond = page - shape_.pages;
      layer_of_all =
          int64_t{shape_.pages} * shape_.layers +
          (shape_.IsGather(layer) ? int64_t{shape_.extra_pages} * plain_layers_ + beyond
                                  : beyond * plain_layers_ + plain_slot_[static_cast<size_t>(layer)]);
    }
    const int64_t plane = layer_of_all * 2 + which;
    const int64_t row = (plane * shape_.kv_heads + head) * kPageTokens + slot;
    return static_cast<float*>(buffer_->data()) + row * shape_.head_dim;
  }
  KvCacheShape shape_;
  std::unique_ptr<Buffer> buffer_;
  int plain_layers_ = 0;
  // [layers]: index of a layer among those that are not gather layers.
  std::vector<int> plain_slot_;
};

size_t MoreBytes(const KvCacheShape& shape) {
  return static_cast<size_t>(KvExtraPageBytes(shape)) * static_cast<size_t>(shape.extra_pages) +
         static_cast<size_t>(KvStagingPageBytes(shape)) * static_cast<size_t>(shape.staging_pages);
}

// Threads take the columns of a product in multiples of this: the width of several tiles.
constexpr int64_t kColumnUnit = 12;

// Working memory of one thread.
struct Scratch {
  std::vector<float> scores;    // [kKvSplitTokens]
  std::vector<const float*> v;  // [kKvSplitTokens]
  std::vector<float> part;      // [head_dim]
  std::vector<float> values;    // [head_dim]
  // [rows, columns of a share]: products to be combined with others.
  std::vector<float> second;
  SampleScratch sample;
};

class ReferenceDevice : public Device {
 public:
  explicit ReferenceDevice(const DeviceOptions& options)
      : crew_(options.threads), scratch_(static_cast<size_t>(options.threads)), progress_(options.progress) {
    info_.name = "reference0";
    info_.kind = "reference";
    info_.threads = options.threads;
    info_.kv_type = KvType::kF32;
    info_.numerics_id = fmt::format("reference;kv=f32;build={}", BuildId());
    for (Scratch& scratch : scratch_) {
      scratch.scores.resize(kKvSplitTokens);
      scratch.v.resize(kKvSplitTokens);
    }
  }

  const DeviceInfo& info() const override { return info_; }
  const WeightPacker& packer() const override { return packer_; }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t bytes) override {
    return Buffer::Create(bytes);
  }

  absl::Status Reserve(int max_rows, int max_cols, int max_heads) override {
    if (max_rows < 1 || max_cols < 1 || max_heads < 1) {
      return InvalidArgument("Reserve of {} rows, {} columns, {} heads; each must be 1 or more", max_rows,
                             max_cols, max_heads);
    }
    GrowRows(max_rows, max_cols);
    for (Scratch& scratch : scratch_) GrowHead(max_cols, &scratch);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<KvCache>> CreateKvCache(const KvCacheShape& shape) override {
    if (shape.layers < 1 || shape.kv_heads < 1 || shape.head_dim < 1 || shape.pages < 1) {
      return InvalidArgument("KV cache of {} layers, {} heads of {}, {} pages; each must be 1 or more",
                             shape.layers, shape.kv_heads, shape.head_dim, shape.pages);
    }
    if (shape.type != KvType::kF32) {
      return InvalidArgument("KV cache type {}; the reference device has float32 only",
                             static_cast<uint32_t>(shape.type));
    }
    size_t bytes = 0;
    if (shape.extra_pages < 0 || shape.staging_pages < 0) {
      return InvalidArgument("KV cache of {} extra and {} staging pages; at least 0 are allowed",
                             shape.extra_pages, shape.staging_pages);
    }
    if (__builtin_mul_overflow(static_cast<size_t>(KvPageBytes(shape)), static_cast<size_t>(shape.pages),
                               &bytes) ||
        __builtin_add_overflow(bytes, MoreBytes(shape), &bytes)) {
      return ResourceExhausted("KV cache of {} pages of {} bytes", shape.pages, KvPageBytes(shape));
    }
    MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer, Buffer::Create(bytes));
    return std::make_unique<Cache>(shape, std::move(buffer));
  }

  void Run(std::span<const Op> ops) override {
    for (const Op& op : ops) {
      std::visit([this](const auto& o) { Do(o); }, op);
      if (progress_ != nullptr) progress_->fetch_add(1, std::memory_order_relaxed);
    }
  }

  void Sample(std::span<const SampleRow> rows, int vocabulary, std::span<SampleResult> results) override {
    MNEMO_CHECK(rows.size() == results.size());
    crew_.Run([&](int member, int size) {
      SampleScratch* scratch = &scratch_[static_cast<size_t>(member)].sample;
      for (size_t i = static_cast<size_t>(member); i < rows.size(); i += static_cast<size_t>(size)) {
        results[i] = SampleOneRow(rows[i], vocabulary, scratch);
      }
    });
    if (progress_ != nullptr) progress_->fetch_add(1, std::memory_order_relaxed);
  }

  void Copy(void* destination, const void* source, size_t bytes) override {
    std::memcpy(destination, source, bytes);
  }

 private:
  void GrowRows(int rows, int64_t cols) {
    const auto count = static_cast<size_t>(rows);
    if (x_rows_.size() < count) x_rows_.resize(count);
    if (matrix_.size() < count * static_cast<size_t>(cols)) {
      matrix_.resize(count * static_cast<size_t>(cols));
    }
    const size_t share = static_cast<size_t>(cols) / scratch_.size() + 2 * kColumnUnit;
    for (Scratch& scratch : scratch_) {
      if (scratch.second.size() < count * share) scratch.second.resize(count * share);
    }
  }

  static void GrowHead(int head_dim, Scratch* scratch) {
    if (scratch->part.size() >= static_cast<size_t>(head_dim)) return;
    scratch->part.resize(static_cast<size_t>(head_dim));
    scratch->values.resize(static_cast<size_t>(head_dim));
  }

  void Do(const EmbedOp& op);
  void Do(const NormOp& op);
  void Do(const MatMulOp& op);
  void Do(const RotaryStoreOp& op);
  void Do(const AttentionOp& op);
  void Do(const HostOp& op);
  void MatMulShare(const MatMulOp& op, int member, int size);
  void AttendHead(const AttentionOp& op, const AttentionSequence& sequence, int row, int head,
                  Scratch* scratch);

  DeviceInfo info_;
  ReferencePacker packer_;
  Crew crew_;
  std::vector<Scratch> scratch_;  // [threads]
  // [rows] of the current matrix product.
  std::vector<const float*> x_rows_;
  // [rows, cols]: normed rows.
  std::vector<float> matrix_;
  std::atomic<uint64_t>* progress_;
};

void ReferenceDevice::Do(const EmbedOp& op) {
  const float* table = Floats(*op.table);
  const int64_t cols = op.table->cols;
  for (int r = 0; r < op.rows; ++r) {
    MNEMO_CHECK(op.ids[r] >= 0 && op.ids[r] < op.table->rows);
    const float* row = table + op.ids[r] * cols;
    float* out = op.out + r * cols;
    for (int64_t i = 0; i < cols; ++i) out[i] = row[i] * op.scale;
  }
}

void ReferenceDevice::Do(const NormOp& op) {
  const float* weight = Floats(*op.weight);
  const int64_t n = op.weight->cols;
  GrowRows(op.rows, n);
  crew_.Run([&](int member, int size) {
    const Share rows = ShareOf(op.rows, 1, member, size);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* out = op.out + r * n;
      if (!op.accumulate) {
        RmsNorm(op.x + r * n, weight, n, op.eps, out);
        continue;
      }
      float* y = matrix_.data() + r * n;
      RmsNorm(op.x + r * n, weight, n, op.eps, y);
      for (int64_t i = 0; i < n; ++i) out[i] += y[i];
    }
  });
}

void ReferenceDevice::Do(const MatMulOp& op) {
  MNEMO_CHECK(op.part_count >= 1 && op.part_count <= static_cast<int>(op.parts.size()));
  const int64_t k = op.parts[0].weight->cols;
  int64_t widest = k;
  for (int p = 0; p < op.part_count; ++p)
    widest = std::max(widest, op.parts[static_cast<size_t>(p)].weight->rows);
  GrowRows(op.rows, widest);
  for (int r = 0; r < op.rows; ++r) {
    const int64_t row = op.row_index == nullptr ? r : op.row_index[r];
    x_rows_[static_cast<size_t>(r)] = op.x + row * op.x_stride;
  }
  if (op.norm_weight != nullptr) {
    const float* weight = Floats(*op.norm_weight);
    MNEMO_CHECK(op.norm_weight->cols == k);
    crew_.Run([&](int member, int size) {
      const Share rows = ShareOf(op.rows, 1, member, size);
      for (int64_t r = rows.begin; r < rows.end; ++r) {
        float* normed = matrix_.data() + r * k;
        RmsNorm(x_rows_[static_cast<size_t>(r)], weight, k, op.norm_eps, normed);
        x_rows_[static_cast<size_t>(r)] = normed;
      }
    });
  }
  crew_.Run([&](int member, int size) { MatMulShare(op, member, size); });
}

// Every member has its own columns of every part, so the two halves of a gate combine without
// synchronisation.
void ReferenceDevice::MatMulShare(const MatMulOp& op, int member, int size) {
  const bool gate = op.epilogue == MatMulEpilogue::kSiluGate || op.epilogue == MatMulEpilogue::kGeluGate;
  for (int p = 0; p < op.part_count; ++p) {
    const MatMulOp::Part& part = op.parts[static_cast<size_t>(p)];
    const int64_t k = part.weight->cols;
    const int64_t n = part.weight->rows;
    MNEMO_CHECK(k == op.parts[0].weight->cols);
    const float* bias = part.bias == nullptr ? nullptr : Floats(*part.bias);
    const Share columns = ShareOf(n, kColumnUnit, member, size);
    const int64_t count = columns.end - columns.begin;
    if (count == 0) continue;
    const bool direct = op.epilogue == MatMulEpilogue::kStore || (gate && p == 0);
    float* y = direct ? part.out + columns.begin : scratch_[static_cast<size_t>(member)].second.data();
    const int64_t stride = direct ? part.out_stride : count;
    MatMul(x_rows_.data(), op.rows, Floats(*part.weight), k, columns.begin, columns.end, y, stride);
    for (int r = 0; r < op.rows; ++r) {
      float* row = y + r * stride;
      if (bias != nullptr) {
        for (int64_t i = 0; i < count; ++i) row[i] += bias[columns.begin + i];
      }
      if (op.epilogue == MatMulEpilogue::kAccumulate) {
        float* out = part.out + r * part.out_stride + columns.begin;
        for (int64_t i = 0; i < count; ++i) out[i] += row[i];
      }
      if (gate && p == 1) {
        float* out = op.parts[0].out + r * op.parts[0].out_stride + columns.begin;
        if (op.epilogue == MatMulEpilogue::kSiluGate) {
          SiluGate(out, row, count);
        } else {
          GeluGate(out, row, count);
        }
      }
    }
  }
}

void ReferenceDevice::Do(const RotaryStoreOp& op) {
  const Cache& cache = *static_cast<const Cache*>(op.cache);
  MNEMO_CHECK(cache.shape().kv_heads == op.kv_heads && cache.shape().head_dim == op.head_dim);
  const float* q_norm = op.q_norm == nullptr ? nullptr : Floats(*op.q_norm);
  const float* k_norm = op.k_norm == nullptr ? nullptr : Floats(*op.k_norm);
  const bool halves = op.style == RotaryStyle::kHalves;
  crew_.Run([&](int member, int size) {
    const Share rows = ShareOf(op.rows, 1, member, size);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float* cos_sin = op.cos_sin + r * op.rotary_dims;
      auto prepare = [&](float* x, const float* norm) {
        if (norm != nullptr) RmsNorm(x, norm, op.head_dim, op.norm_eps, x);
        Rotate(x, op.rotary_dims, halves, cos_sin);
      };
      for (int h = 0; h < op.heads; ++h) prepare(op.q + (r * op.heads + h) * op.head_dim, q_norm);
      const int64_t page = op.slots[r] / kPageTokens;
      const int64_t slot = op.slots[r] % kPageTokens;
      MNEMO_CHECK(op.slots[r] >= 0 && cache.Has(op.layer, page));
      for (int h = 0; h < op.kv_heads; ++h) {
        float* k = op.k + (r * op.kv_heads + h) * op.head_dim;
        prepare(k, k_norm);
        std::copy(k, k + op.head_dim, cache.Key(page, op.layer, h, slot));
        const float* v = op.v + (r * op.kv_heads + h) * op.head_dim;
        std::copy(v, v + op.head_dim, cache.Value(page, op.layer, h, slot));
      }
    }
  });
}

void ReferenceDevice::Do(const AttentionOp& op) {
  MNEMO_CHECK(op.cache->shape().kv_heads == op.kv_heads && op.cache->shape().head_dim == op.head_dim);
  MNEMO_CHECK(op.heads % op.kv_heads == 0);
  crew_.Run([&](int member, int size) {
    Scratch* scratch = &scratch_[static_cast<size_t>(member)];
    GrowHead(op.head_dim, scratch);
    for (const AttentionSequence& sequence : op.sequences) {
      const int64_t count = int64_t{sequence.row_count} * op.heads;
      for (int64_t i = member; i < count; i += size) {
        AttendHead(op, sequence, static_cast<int>(i / op.heads), static_cast<int>(i % op.heads), scratch);
      }
    }
  });
}

void ReferenceDevice::Do(const HostOp& op) {
  for (int item = 0; item < op.count; ++item) op.run(op.context, item, 0);
}

void ReferenceDevice::AttendHead(const AttentionOp& op, const AttentionSequence& sequence, int row, int head,
                                 Scratch* scratch) {
  const Cache& cache = *static_cast<const Cache*>(op.cache);
  const int64_t offset = (int64_t{sequence.row_begin + row} * op.heads + head) * op.head_dim;
  const float* q = op.q + offset;
  const int kv_head = head / (op.heads / op.kv_heads);
  const int position = sequence.position_begin + row;
  SoftmaxState state;
  state.values = scratch->values.data();
  auto take_at = [&](int64_t page, int64_t slot, int64_t i) {
    MNEMO_CHECK(cache.Has(op.layer, page));
    const auto at = static_cast<size_t>(i);
    scratch->scores[at] = Dot(q, cache.Key(page, op.layer, kv_head, slot), op.head_dim) * op.scale;
    scratch->v[at] = cache.Value(page, op.layer, kv_head, slot);
  };
  auto take = [&](int p, int64_t i) { take_at(sequence.pages[p / kPageTokens], p % kPageTokens, i); };
  auto add = [&](int64_t count) {
    AddPositions(scratch->scores.data(), scratch->v.data(), static_cast<int>(count), op.head_dim,
                 scratch->part.data(), &state);
  };
  if (sequence.sparse != nullptr) {
    MNEMO_CHECK(sequence.row_count == 1 && op.window == 0);
    const ListedKeys list(*sequence.sparse, kv_head, position);
    for (int64_t begin = 0; begin < list.count(); begin += kKvSplitTokens) {
      const int64_t end = std::min<int64_t>(list.count(), begin + kKvSplitTokens);
      int64_t i = 0;
      list.EachRun(begin, end, [&](int first, int count, int64_t place) {
        for (int n = 0; n < count; ++n) {
          if (place == ListedKeys::kInPages) {
            take(first + n, i++);
          } else {
            take_at((place + n) / kPageTokens, (place + n) % kPageTokens, i++);
          }
        }
      });
      add(end - begin);
    }
  } else {
    for (int begin = op.window > 0 ? std::max(0, position - op.window + 1) : 0; begin <= position;) {
      const int end = std::min(position + 1, (begin / kKvSplitTokens + 1) * kKvSplitTokens);
      for (int p = begin; p < end; ++p) take(p, p - begin);
      add(end - begin);
      begin = end;
    }
  }
  FinishSoftmax(state, op.head_dim, op.out + offset);
}

}  // namespace

DeviceKind Kind() {
  DeviceKind kind;
  kind.name = "reference";
  kind.create = [](const DeviceOptions& options) -> absl::StatusOr<std::unique_ptr<Device>> {
    return std::make_unique<ReferenceDevice>(options);
  };
  kind.create_packer = [](const DeviceOptions&) -> absl::StatusOr<std::unique_ptr<WeightPacker>> {
    return std::make_unique<ReferencePacker>();
  };
  return kind;
}

}  // namespace mnemo::devices::reference
