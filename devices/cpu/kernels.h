// The kernels of one instruction set as a table of plain functions over plain data. Each output element comes
// from one fixed sequence of roundings, whatever else is in the call (see devices/device.h). No include of a
// standard library class: kernel files are compiled for other instruction sets.
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
  int64_t rows = 0;  // outputs
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
  const ActivationBlock* x = nullptr;  // quantised formats: [row group][cols / 32][digits]
  const float* x_float = nullptr;      // float formats: [rows, cols]
  int64_t x_float_stride = 0;
  int row_begin = 0;  // a multiple of kGroupRows
  int row_end = 0;
  // Tiles of all parts counted through; with a gate, of one part.
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

// A page holds, for each layer and KV head:
//   keys    [head_dim / 2, rounded up][64][2] of 16-bit fixed point,
//   scales  [64] of float32: key = scale * stored,
//   values  [64][value_width] of F16 or BF16,
//   in some layers the keys once more, [64][value_width] of the same fixed point, for reading single tokens:
//   in the first form the elements of one key are spread over head_dim / 2 cache lines.
// Keys are scaled by their largest element, so that the dot product of a key and a query fits 32 bits and is
// exact; stored to 13 bits for 64 dimensions, they are about as precise as F16, and a product of two pairs is
// one instruction.
//
// With kQ8, in the same order:
//   keys    [head_dim / 4, rounded up][64][4] of bytes, 128 more than the fixed point in [-127, 127] of the
//           rotated key: each block of RotatedBlock elements after a Walsh-Hadamard transform,
//   scales  [64] of 32 bits: as float32, the key's scale; its low half is the value's scale as BF16,
//   values  [64][value_width] of fixed point in [-127, 127],
//   keys    [64][value_width] in the second form.
// Queries are rotated alike. Models have some elements of keys that are much larger than the others and would
// set the scale alone: without rotation KL to float32 grew by a half, with it by a tenth (SmolLM2). The low
// half of the key's scale is less than its precision needs, and one word leads to all of a token. Pairs of a
// key in the second form and its value would be quicker to read one by one (0.87 of the time), but where all
// values are read, processors, which bring lines in pairs, would bring those keys for nothing (1.3 times the
// time).
struct CacheView {
  uint16_t* base = nullptr;  // of layer and page 0, KV head 0
  int64_t page_stride = 0;   // elements
  // Pages from this number on stand at `staging`, staging_stride elements each.
  int32_t pages = INT32_MAX;
  uint16_t* staging = nullptr;
  int64_t staging_stride = 0;
  int64_t head_stride = 0;
  int64_t scale_offset = 0;  // from keys to scales of a head, elements of 16 bits
  int64_t value_offset = 0;  // from keys to values
  int64_t row_offset = 0;    // from keys to their second form; 0: not there
  int value_width = 0;       // head_dim rounded up; the rest is zero
  int row_stride = 0;        // from values to those of the next slot, and likewise in the second form of keys
  CacheFormat format = CacheFormat::kF16;

  // Inlined everywhere: no copy of it may be one that was made for another instruction set.
  [[gnu::always_inline]] uint16_t* Page(int64_t page) const {
    return page < pages ? base + page * page_stride : staging + (page - pages) * staging_stride;
  }
};

// Elements of a block of a key that is rotated: the largest power of two that divides head_dim.
constexpr int RotatedBlock(int head_dim) { return head_dim & -head_dim; }

// A query as fixed point, as the keys of a format want it, and room behind it; elements of 16 bits.
constexpr int QueryStride(int head_dim) { return (head_dim + 15) / 16 * 16 + 16; }

// What attention of one query row over part of the keys amounts to: with s the scores in units of log2,
// maximum = max s, sum = sum 2^(s - maximum), out = sum 2^(s - maximum) v. Laid out as {maximum, sum, ...14
// unused..., out[value_width]}.
inline constexpr int kStateHeader = 16;

// The query rows of one KV head: `positions` consecutive positions times `group` heads, against one split.
struct AttendTask {
  const int16_t* q = nullptr;       // [positions * group, QueryStride]: what quantize_query makes
  const float* q_scales = nullptr;  // [positions * group]; scores then are in log2 units
  int positions = 0;
  int group = 0;
  int head_dim = 0;
  int position_begin = 0;
  int window = 0;
  int split = 0;  // keys [512 split, 512 split + 512)
  const int32_t* pages = nullptr;
  CacheView cache;          // base: of this KV head
  bool goes_on = false;     // the split after it is next
  float* states = nullptr;  // [positions * group] of state_stride
  int64_t state_stride = 0;
  float* scores = nullptr;  // scratch [kMaxQueryTile][512]
  // Scratch for the values of a split in float32, or nullptr: read the cache itself. Not used with kQ8.
  float* converted = nullptr;
};
inline constexpr int kMaxQueryTile = 6;
inline constexpr int kListPadding = 128;

// The query rows of one KV head at one position, against listed keys.
struct ListedTask {
  const int16_t* q = nullptr;       // as above, [group, QueryStride]
  const float* q_scales = nullptr;  // [group]
  int group = 0;
  int head_dim = 0;
  // Of each key its row of values in the cache, and its scales; then the last one kListPadding times more.
  const uint16_t* const* values = nullptr;
  const float* const* scales = nullptr;
  bool pages = false;  // most of the list is whole pages, each from a multiple of 64 on in the list
  int count = 0;       // [1, kKeysPerSplit]
  CacheView cache;
  float* states = nullptr;  // [group] of state_stride
  int64_t state_stride = 0;
  float* scores = nullptr;      // scratch [group][kKeysPerSplit]
  int16_t* keys = nullptr;      // scratch for the keys of a page, laid out as there
  float* key_scales = nullptr;  // scratch [kKeysPerPage]
};

struct Kernels {
  const char* isa = "";
  // Sum of squares, norm and so on of one row of any length.
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
  // state = state merged with `part`, the later keys.
  void (*merge_state)(const float* part, int head_dim, float* state);
  void (*finish_state)(const float* state, int head_dim, float* out);
};

// nullptr when this build has no such kernels or the machine cannot run them.
const Kernels* BaselineKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* Avx512VnniKernels();

}  // namespace mnemo::devices::cpu
