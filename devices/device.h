// What a compute device does for the model: a small set of operations as plain data, run as a list. A list
// can be walked by a thread pool with a barrier between operations, or captured as a GPU graph; a new device
// is one folder that implements Device.
//
// The numeric invariant: an output element is computed by one fixed sequence of roundings that depends on its
// own row, the weights and absolute positions alone, never on how many rows are in the list, how rows are cut
// into chunks or how many threads run. In detail:
//   - activations are quantised per row and block of 32;
//   - a matrix product sums its K blocks in ascending order, in the one-row and the many-row kernel alike;
//   - attention works on KV splits at fixed absolute positions (kKvSplitTokens), pages ascending within a
//   split, and merges splits in
//     ascending order, in prefill and decode alike;
//   - a row that attends to listed positions alone (SparseSelection) works on splits of kKvSplitTokens listed
//     positions, counted from the first, and depends on the query and the keys and values listed and on
//     nothing else. A list of all positions gives the bits of the row without a list.
// All pointers named "device memory" were made by Allocate; all floats are float32, row-major, `stride` in
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

// Attention's unit of parallel work within a sequence, a multiple of kPageTokens.
inline constexpr int kKvSplitTokens = 512;

// The entries that one KV head of a sequence attends to between the ends that are always kept. It may be
// filled while the list runs, by a HostOp before the attention: it is read when the attention runs, and not
// earlier.
struct TokenSelection {
  // [count], ascending, distinct. Entry e covers positions [e * entry_tokens, (e + 1) * entry_tokens).
  const uint32_t* ids = nullptr;
  uint32_t count = 0;
  // [count], or nullptr: the entries stand in the sequence's pages. Where the first position of each entry
  // stands in the layer's cache instead: page id * kPageTokens + slot; the entry lies within that page.
  const int64_t* places = nullptr;
};

// A decode row that attends to positions [0, first_end), to the selected entries of each KV head, and to
// [tail_begin, position]. Host memory, all of it.
struct SparseSelection {
  int first_end = 0;
  int tail_begin = 0;                     // in [first_end, position]
  int entry_tokens = 1;                   // 1, 16 or 64
  const TokenSelection* heads = nullptr;  // [kv_heads]; every entry lies within [first_end, tail_begin)
  int max_entries = 0;                    // bound of each count, known when the list is made
};

// out[i] = table[ids[i]] * scale. ids: host memory, [rows], each in [0, table->rows).
struct EmbedOp {
  const PackedTensor* table = nullptr;
  const int32_t* ids = nullptr;
  int rows = 0;
  float scale = 1.0f;
  float* out = nullptr;  // [rows, table->cols]
};

// Root-mean-square norm of each row: y = x / sqrt(mean(x^2) + eps) * weight. out = y, or out += y.
struct NormOp {
  const float* x = nullptr;  // [rows, weight->cols]
  const PackedTensor* weight = nullptr;
  float eps = 0;
  int rows = 0;
  bool accumulate = false;
  float* out = nullptr;  // [rows, weight->cols]; may be x when not accumulating
};

enum class MatMulEpilogue {
  kStore,       // out = y + bias
  kAccumulate,  // out += y + bias
  kSiluGate,    // parts[0] = gate, parts[1] = up: parts[0].out = silu(gate) * up
  kGeluGate,    // the same with gelu, tanh form
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
  const int32_t* row_index = nullptr;  // host memory, [rows]: which rows of x are taken; nullptr = 0..rows-1
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

// Optional per-head RMS norm of q and k, rotary embedding of both, then K and V go into the cache.
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
  int rotary_dims = 0;             // leading dims that are rotated, even, <= head_dim
  const float* cos_sin = nullptr;  // device memory, [rows, rotary_dims / 2, 2]: cosine and sine
  KvCache* cache = nullptr;
  int layer = 0;
  const int64_t* slots = nullptr;  // host memory, [rows]: page id * kPageTokens + slot within the page
};

// The rows of one sequence in this list: consecutive rows at consecutive positions.
struct AttentionSequence {
  int row_begin = 0;
  int row_count = 0;
  int position_begin = 0;  // of row_begin; the row at position p attends to positions [max(0, p-window+1), p]
  const int32_t* pages =
      nullptr;  // host memory: page ids of positions 0..; a page of which nothing is attended to may be -1
  const SparseSelection* sparse = nullptr;  // nullptr: all positions; only with row_count 1 and window 0
};

struct AttentionOp {
  const float* q = nullptr;  // [rows, heads, head_dim]
  float* out = nullptr;      // [rows, heads, head_dim]
  KvCache* cache = nullptr;
  int layer = 0;
  int heads = 0;  // a multiple of kv_heads; query head h reads KV head h / (heads / kv_heads)
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;  // on q . k
  int window = 0;   // 0 = all positions
  std::span<const AttentionSequence> sequences;
};

// Work of the caller's own between other operations: run(context, item, thread) for each item of [0, count),
// in any order, on the threads that run the list, thread in [0, DeviceInfo::threads); all items are done
// before the next operation begins. It may change the host memory that later operations name. With count 0
// nothing happens and no barrier is paid. On a device that is not the CPU it is a callback on the host
// between two parts of the list.
struct HostOp {
  int count = 0;
  void (*run)(void* context, int item, int thread) = nullptr;
  void* context = nullptr;
};

using Op = std::variant<EmbedOp, NormOp, MatMulOp, RotaryStoreOp, AttentionOp, HostOp>;

struct DeviceInfo {
  std::string name;  // "cpu0", shown in Status and Final.memory_steps
  std::string kind;  // "cpu", "reference"
  std::string isa;   // "baseline", "avx2", "avx512", "avx512_vnni"; "" where it has no meaning
  int threads = 1;
  KvType kv_type = KvType::kF16;
  // Equal for two devices = bitwise equal results: build, device kind, instruction set, KV type. Printable
  // ASCII.
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
  // RESOURCE_EXHAUSTED when the memory is not there.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t bytes) = 0;
  // Sizes the device's scratch memory for later calls of Run, so that they do not allocate.
  virtual absl::Status Reserve(int max_rows, int max_cols, int max_heads) = 0;
  virtual absl::StatusOr<std::unique_ptr<KvCache>> CreateKvCache(const KvCacheShape& shape) = 0;
  // Runs the operations in order; each sees the results of those before it.
  virtual void Run(std::span<const Op> ops) = 0;
  // rows.size() == results.size(); all rows have logits of `vocabulary` entries. Not finite logits: NaN
  // counts as -inf.
  virtual void Sample(std::span<const SampleRow> rows, int vocabulary, std::span<SampleResult> results) = 0;
  // Between host and device memory; on a CPU a memcpy.
  virtual void Copy(void* destination, const void* source, size_t bytes) = 0;
};

struct DeviceOptions {
  std::string kind = "cpu";  // "cpu" or "reference" (plain float32, the same on any machine)
  std::string isa = "auto";  // cpu: "auto" = the best the machine has, or one of the names in DeviceInfo::isa
  int threads = 1;           // >= 1
  std::vector<int> cpus;     // cores to stay on; empty or threads >= cores: not pinned
  KvType kv_type = KvType::kF16;  // the reference device always uses kF32
  // Counted up at every operation, if given: a watchdog sees that the device is alive. Outlives the device.
  std::atomic<uint64_t>* progress = nullptr;
};

// INVALID_ARGUMENT for an unknown kind, an ISA that the machine lacks, or a thread count out of range, naming
// what there is.
absl::StatusOr<std::unique_ptr<Device>> CreateDevice(const DeviceOptions& options);
// The packer that CreateDevice(options) would have, without starting the device.
absl::StatusOr<std::unique_ptr<WeightPacker>> CreateWeightPacker(const DeviceOptions& options);
// ISA names this build has and this machine can run, best last.
std::vector<std::string> SupportedIsas();

}  // namespace mnemo::devices
