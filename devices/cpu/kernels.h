// The kernels of one instruction set as a table of plain functions over plain data. One fixed sequence of
// roundings computes each output element, whatever else is in the call (see devices/device.h). Includes no
// standard library class, because kernel files are compiled for other instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "devices/cpu/packed_format.h"

namespace mnemo::devices::cpu {

inline constexpr int kKeysPerPage = 64;
inline constexpr int kKeysPerSplit = 512;

enum class Epilogue { kStore, kAccumulate, kSiluGate, kGeluGate };
enum class CacheFormat { kF16, kBF16, kQ8 };

struct MatMulPart {
  const uint8_t* weight = nullptr;
  PackedFormat format = PackedFormat::kVector;
  // Number of outputs.
  int64_t rows = 0;
  const float* bias = nullptr;
  float* out = nullptr;  // [x rows, rows]
  int64_t out_stride = 0;
};

// A range of output tiles over a range of x rows.
struct MatMulTask {
  const MatMulPart* parts = nullptr;
  int part_count = 0;
  Epilogue epilogue = Epilogue::kStore;
  int64_t cols = 0;
  int digits = 1;
  // Quantised formats: [row group][cols / 32][digits].
  const ActivationBlock* x = nullptr;
  // Float formats: [rows, cols].
  const float* x_float = nullptr;
  int64_t x_float_stride = 0;
  // A multiple of kGroupRows.
  int row_begin = 0;
  int row_end = 0;
  // Tiles, numbered through all parts; with a gate, the tiles of one part.
  int64_t tile_begin = 0;
  int64_t tile_end = 0;
};

struct RotaryTask {
  float* q = nullptr;
  float* k = nullptr;
  const float* v = nullptr;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_eps = 0;
  bool halves = false;
  int rotary_dims = 0;
  const float* cos_sin = nullptr;  // [rotary_dims / 2, 2]
};

// Layout of the cache. A page holds, for each layer and KV head, in this order:
//
//   keys    [head_dim / 2, rounded up][64][2] of 16-bit fixed point,
//   scales  [64] of float32: key = scale * stored,
//   values  [64][value_width] of F16 or BF16,
//   keys    [64][value_width] of the same fixed point, in some layers only: the second form.
//
// The second form is for reading single tokens: in the first form the elements of one key are spread over
// head_dim / 2 cache lines. Keys are scaled by their largest element, so that the dot product of a key and a
// query fits 32 bits and is exact. Stored to 13 bits for 64 dimensions, they are about as precise as F16. A
// product of two pairs is one instruction.
//
// With kQ8, in the same order:
//
//   keys    [head_dim / 4, rounded up][64][4] of bytes, offset by +128 from the fixed point in [-127, 127] of
//           the rotated key: each block of RotatedBlock elements after a Walsh-Hadamard transform,
//   scales  [64] of 32 bits: as float32, the key's scale; its low half is the value's scale as BF16,
//   values  [64][value_width] of fixed point in [-127, 127],
//   keys    [64][value_width] in the second form.
//
// Queries are rotated in the same way. Models have some key elements that are much larger than the others and
// would alone determine the scale. Without rotation, KL to float32 grew by a half, with it by a tenth
// (SmolLM2).
//
// The low half of the key's scale exceeds the precision that the scale needs, so one word gives both scales
// of a token. Storing pairs of a value and its key's second form would make reads of single tokens faster
// (0.87 of the time). However, processors fetch cache lines in pairs. Where all values are read, they would
// fetch those keys for nothing (1.3 times the time).
struct CacheView {
  // Layer and page 0, KV head 0.
  uint16_t* base = nullptr;
  // In elements.
  int64_t page_stride = 0;
  // Pages from this number on are at `staging`, staging_stride elements each.
  int32_t pages = INT32_MAX;
  uint16_t* staging = nullptr;
  int64_t staging_stride = 0;
  int64_t head_stride = 0;
  // Offset from keys to scales of a head, in elements of 16 bits.
  int64_t scale_offset = 0;
  // Offset from keys to values.
  int64_t value_offset = 0;
  // Offset from keys to their second form; 0: no second form.
  int64_t row_offset = 0;
  // head_dim rounded up; the rest is zero.
  int value_width = 0;
  // Distance between the values of adjacent slots; the same in the second form of keys.
  int row_stride = 0;
  CacheFormat format = CacheFormat::kF16;

  // Always inlined: an out-of-line copy could be one compiled for another instruction set.
  [[gnu::always_inline]] uint16_t* Page(int64_t page) const {
    return page < pages ? base + page * page_stride : staging + (page - pages) * staging_stride;
  }
};

// Elements per block of a key's rotation: the largest power of two that divides head_dim.
constexpr int RotatedBlock(int head_dim) { return head_dim & -head_dim; }

// Elements of 16 bits for a query as fixed point, in the form that the keys' format requires, plus padding.
constexpr int QueryStride(int head_dim) { return (head_dim + 15) / 16 * 16 + 16; }

// A state is the result of attention of one query row over part of the keys. With s the scores in units of
// log2: maximum = max s, sum = sum 2^(s - maximum), out = sum 2^(s - maximum) v. Laid out as {maximum, sum,
// ...14 unused..., out[value_width]}.
inline constexpr int kStateHeader = 16;

// The query rows of one KV head: `positions` consecutive positions times `group` heads, against one split.
struct AttendTask {
  // [positions * group, QueryStride], made by quantize_query.
  const int16_t* q = nullptr;
  // [positions * group]; with these scales, scores are in log2 units.
  const float* q_scales = nullptr;
  int positions = 0;
  int group = 0;
  int head_dim = 0;
  int position_begin = 0;
  int window = 0;
  // Keys [512 split, 512 split + 512).
  int split = 0;
  const int32_t* pages = nullptr;
  // `base` is that of this KV head.
  CacheView cache;
  // The next split follows directly.
  bool next_split_follows = false;
  // [positions * group] of state_stride.
  float* states = nullptr;
  int64_t state_stride = 0;
  // Scratch [kMaxQueryTile][512].
  float* scores = nullptr;
  // Scratch for the values of a split in float32, or nullptr to read the cache itself. Not used with kQ8.
  float* converted = nullptr;
};
inline constexpr int kMaxQueryTile = 6;
inline constexpr int kListPadding = 128;

// The query rows of one KV head at one position, against listed keys.
struct ListedTask {
  // [group, QueryStride], as in AttendTask.
  const int16_t* q = nullptr;
  const float* q_scales = nullptr;  // [group]
  int group = 0;
  int head_dim = 0;
  // Pointers to each key's row of values in the cache, and to its scales; the last pointer is repeated
  // kListPadding times.
  const uint16_t* const* values = nullptr;
  const float* const* scales = nullptr;
  // Most of the list is whole pages, each starting at a multiple of 64 in the list.
  bool pages = false;
  int count = 0;  // [1, kKeysPerSplit]
  CacheView cache;
  float* states = nullptr;  // [group] of state_stride
  int64_t state_stride = 0;
  // Scratch [group][kKeysPerSplit].
  float* scores = nullptr;
  // Scratch for the keys of a page, in the layout of a page.
  int16_t* keys = nullptr;
  // Scratch [kKeysPerPage].
  float* key_scales = nullptr;
};

struct Kernels {
  const char* isa = "";
  // Root-mean-square norm of one row of any length.
  void (*norm_row)(const float* x, const float* weight, float eps, int64_t cols, bool accumulate, float* out);
  // Writes row `slot` of a group; norm_weight may be nullptr.
  void (*quantize_row)(const float* x, const float* norm_weight, float eps, int64_t cols, int digits,
                       int slot, ActivationBlock* group);
  void (*matmul)(const MatMulTask& task);
  void (*rotary_row)(const RotaryTask& task);
  void (*store_row)(const float* k, const float* v, int kv_heads, int head_dim, const CacheView& cache,
                    int64_t slot);
  void (*scale_row)(const float* x, float factor, int64_t count, float* out);
  // out = factor * x as fixed point, [QueryStride]; returns its scale.
  float (*quantize_query)(const float* x, float factor, int head_dim, CacheFormat format, int16_t* out);
  void (*attend)(const AttendTask& task);
  void (*attend_listed)(const ListedTask& task);
  // state = state merged with `part`, which covers later keys.
  void (*merge_state)(const float* part, int head_dim, float* state);
  void (*finish_state)(const float* state, int head_dim, float* out);
};

// Each returns nullptr when this build has no such kernels or the machine cannot run them.
const Kernels* BaselineKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* Avx512VnniKernels();

}  // namespace mnemo::devices::cpu
