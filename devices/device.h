// The interface of a compute device: a small set of operations as plain data, run as a list. A thread pool
// can walk a list with a barrier between operations, or a GPU can capture it as a graph. A new device is one
// folder that implements Device.
//
// The numeric invariant: one fixed sequence of roundings computes each output element. It depends only on the
// element's own row, the weights and absolute positions. It never depends on how many rows are in the list,
// how rows are cut into chunks or how many threads run. In detail:
//   - Activations are quantised per row and block of 32.
//   - A matrix product sums its K blocks in ascending order, in the one-row and the many-row kernel alike.
//   - Attention works on KV splits at fixed absolute positions (kKvSplitTokens), with pages ascending within
//     a split. It merges splits in ascending order, in prefill and decode alike.
//   - A row that attends only to listed positions (SparseSelection) works on splits of kKvSplitTokens listed
//     positions, counted from the first. Its result depends only on the query and on the listed keys and
//     values. A list of all positions gives the same bits as a row without a list.
//
// "Device memory" is memory that Allocate returned. All floats are float32, row-major, with `stride` in
// elements.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "devices/base/status.h"
#include "devices/kv_cache.h"
#include "devices/sampling.h"
#include "devices/weights.h"

namespace mnemo::devices {

// Unit of parallel work of attention within a sequence, in tokens; a multiple of kPageTokens.
inline constexpr int kKvSplitTokens = 512;

// Entries that one KV head of a sequence attends to, between the first and last positions that are always
// attended to. Attention reads it when it runs and not earlier, so a preceding HostOp may fill it while the
// list runs.
struct TokenSelection {
  // [count], ascending, distinct. Entry e covers positions [e * entry_tokens, (e + 1) * entry_tokens).
  const uint32_t* ids = nullptr;
  uint32_t count = 0;
  // [count]: the place of each entry's first position in the layer's cache, page id * kPageTokens + slot. An
  // entry lies within one page. nullptr: the entries are in the sequence's own pages.
  const int64_t* places = nullptr;
};

// A decode row that attends to positions [0, first_end), to the selected entries of each KV head, and to
// [tail_begin, position]. All of it is host memory.
struct SparseSelection {
  int first_end = 0;
  // In [first_end, position].
  int tail_begin = 0;
  // 1, 16 or 64.
  int entry_tokens = 1;
  // [kv_heads]; every entry lies within [first_end, tail_begin).
  const TokenSelection* heads = nullptr;
  // Upper bound of every count, known when the list is made.
  int max_entries = 0;
};

// out[i] = table[ids[i]] * scale. ids: host memory, [rows], each in [0, table->rows).
struct EmbedOp {
  const PackedTensor* table = nullptr;
  const int32_t* ids = nullptr;
  int rows = 0;
  float scale = 1.0f;
  float* out = nullptr;  // [rows, table->cols]
};

// Root-mean-square norm of each row: y = x / sqrt(mean(x^2) + eps) * weight. out = y, or out += y with
// `accumulate`.
struct NormOp {
  const float* x = nullptr;  // [rows, weight->cols]
  const PackedTensor* weight = nullptr;
  float eps = 0;
  int rows = 0;
  bool accumulate = false;
  // [rows, weight->cols]; may be x when not accumulating.
  float* out = nullptr;
};

enum class MatMulEpilogue {
  kStore,       // out = y + bias
  kAccumulate,  // out += y + bias
  kSiluGate,    // parts[0] = gate, parts[1] = up: parts[0].out = silu(gate) * up
  kGeluGate,    // as kSiluGate with gelu, tanh form
};

// y[part] = x . weight[part]^T for up to three weights that share x. With norm_weight, x is first RMS-normed
// row by row.
struct MatMulOp {
  struct Part {
    const PackedTensor* weight = nullptr;  // [n, k]
    const PackedTensor* bias = nullptr;    // [n] or nullptr
    float* out = nullptr;                  // [rows, n]
    int64_t out_stride = 0;
  };
  const float* x = nullptr;  // [*, k]
  int64_t x_stride = 0;
  // Host memory, [rows]: indices of the rows of x to use; nullptr: 0..rows-1.
  const int32_t* row_index = nullptr;
  int rows = 0;
  const PackedTensor* norm_weight = nullptr;
  float norm_eps = 0;
  std::array<Part, 3> parts = {};
  int part_count = 0;
  MatMulEpilogue epilogue = MatMulEpilogue::kStore;
};

enum class RotaryStyle {
  kInterleaved,  // pairs (2i, 2i+1): llama as GGUF stores it
  kHalves,       // pairs (i, i + n/2): qwen2, qwen3, gemma3 ("NeoX")
};

// Optional RMS norm of q and k per head, rotary embedding of both, then the store of K and V into the cache.
struct RotaryStoreOp {
  float* q = nullptr;        // [rows, heads, head_dim], changed in place
  float* k = nullptr;        // [rows, kv_heads, head_dim], may be changed
  const float* v = nullptr;  // [rows, kv_heads, head_dim]
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  const PackedTensor* q_norm = nullptr;  // [head_dim] or nullptr
  const PackedTensor* k_norm = nullptr;
  float norm_eps = 0;
  RotaryStyle style = RotaryStyle::kInterleaved;
  // Number of leading dimensions that are rotated; even, <= head_dim.
  int rotary_dims = 0;
  // Device memory, [rows, rotary_dims / 2, 2]: cosine and sine.
  const float* cos_sin = nullptr;
  KvCache* cache = nullptr;
  int layer = 0;
  // Host memory, [rows]: page id * kPageTokens + slot within the page.
  const int64_t* slots = nullptr;
};

// The rows of one sequence in this list: consecutive rows at consecutive positions.
struct AttentionSequence {
  int row_begin = 0;
  int row_count = 0;
  // Position of row_begin. The row at position p attends to positions [max(0, p - window + 1), p].
  int position_begin = 0;
  // Host memory: page ids from position 0 on. A page that no row attends to may be -1.
  const int32_t* pages = nullptr;
  // nullptr: all positions. Allowed only with row_count 1 and window 0.
  const SparseSelection* sparse = nullptr;
};

struct AttentionOp {
  const float* q = nullptr;  // [rows, heads, head_dim]
  float* out = nullptr;      // [rows, heads, head_dim]
  KvCache* cache = nullptr;
  int layer = 0;
  // A multiple of kv_heads; query head h reads KV head h / (heads / kv_heads).
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  // Factor applied to q . k.
  float scale = 0;
  // 0: all positions.
  int window = 0;
  std::span<const AttentionSequence> sequences;
};

// A callback of the caller between other operations. Calls run(context, item, thread) for each item of [0,
// count), in any order, on the threads that run the list; thread is in [0, DeviceInfo::threads). All items
// finish before the next operation begins. The callback may change the host memory that later operations
// name. With count 0 nothing runs and there is no barrier. On a device other than the CPU, the callback runs
// on the host between two parts of the list.
struct HostOp {
  int count = 0;
  void (*run)(void* context, int item, int thread) = nullptr;
  void* context = nullptr;
};

using Op = std::variant<EmbedOp, NormOp, MatMulOp, RotaryStoreOp, AttentionOp, HostOp>;

struct DeviceInfo {
  // Shown in Status and Final.memory_steps: "cpu0".
  std::string name;
  // "cpu", "reference".
  std::string kind;
  // "baseline", "avx2", "avx512", "avx512_vnni"; "" when not applicable.
  std::string isa;
  int threads = 1;
  KvType kv_type = KvType::kF16;
  // Covers build, device kind, instruction set and KV type: two devices with equal ids give bitwise equal
  // results. Printable ASCII.
  std::string numerics_id;
};

// Zeroed device memory, 64-byte aligned. Freed when destroyed; the device must outlive it.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual void* data() const = 0;
  virtual size_t bytes() const = 0;
};

// Not thread-safe: one engine thread owns a device. Run and Sample block until done and do not allocate.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual const WeightPacker& packer() const = 0;
  // RESOURCE_EXHAUSTED when there is not enough memory.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t bytes) = 0;
  // Sizes the device's scratch memory, so that later calls of Run do not allocate.
  virtual absl::Status Reserve(int max_rows, int max_cols, int max_heads) = 0;
  // The device must outlive the cache. INVALID_ARGUMENT: a figure of `shape` is out of range, or its type is
  // not the device's. RESOURCE_EXHAUSTED when there is not enough memory.
  virtual absl::StatusOr<std::unique_ptr<KvCache>> CreateKvCache(const KvCacheShape& shape) = 0;
  // Runs the operations in order; each sees the results of the preceding ones.
  virtual void Run(std::span<const Op> ops) = 0;
  // Requires rows.size() == results.size(); every row has logits of `vocabulary` entries. NaN logits count as
  // -inf.
  virtual void Sample(std::span<const SampleRow> rows, int vocabulary, std::span<SampleResult> results) = 0;
  // Copies between host and device memory; on a CPU a memcpy.
  virtual void Copy(void* destination, const void* source, size_t bytes) = 0;
};

struct DeviceOptions {
  // "cpu" or "reference" (plain float32, the same on any machine).
  std::string kind = "cpu";
  // cpu only: "auto" for the best that the machine supports, or a name as in DeviceInfo::isa.
  std::string isa = "auto";
  // Number of threads, >= 1.
  int threads = 1;
  // Cores to pin threads to. Not pinned when empty or when threads >= number of cores.
  std::vector<int> cpus;
  // Ignored by the reference device, which always uses kF32.
  KvType kv_type = KvType::kF16;
  // Incremented at every operation when given, so that a watchdog sees progress. Must outlive the device.
  std::atomic<uint64_t>* progress = nullptr;
};

// INVALID_ARGUMENT for an unknown kind, an ISA that the machine lacks, or a thread count out of range; the
// message lists the valid values.
absl::StatusOr<std::unique_ptr<Device>> CreateDevice(const DeviceOptions& options);
// Returns the packer that CreateDevice(options) would have, without starting the device.
absl::StatusOr<std::unique_ptr<WeightPacker>> CreateWeightPacker(const DeviceOptions& options);
// Names of the ISAs that this build has and this machine can run, best last.
std::vector<std::string> SupportedIsas();

}  // namespace mnemo::devices
