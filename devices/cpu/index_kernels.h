// Kernels of memory indexes: making records and query codes, scanning resident pages, and selecting by
// counting. One table for each instruction set, all of them exactly the arithmetic of proto/layout. No
// include of a standard library class: kernel files are compiled for other instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mnemo::devices::cpu {

// Where things lie in a head's block of a resident page: 64 tokens of one layer slot and KV head. Offsets
// from the block, all multiples of 64.
//
// `rows` of code formats are the record's codes, four bytes of a token (a "quad") in each 32-bit lane:
// [quads][4 chunks][16 lanes]. Token t stands in chunk t / 32 * 2 + t % 32 / 4 % 2, lane t % 32 / 8 * 4 + t %
// 4, so that packing the lanes of two chunks to 16 bits puts tokens in order in vectors of any width. Codes
// are unsigned: 4 bits + 8, 8 bits + 128; of 2 bits, which are two planes, the second one has 1 where sign
// and magnitude bit are equal, so that sign * 2 + second = (value + 3) / 2.
// Bounds: [2 * dim / 4][4 parts][4 bytes], lowest then highest elements, + 128. Means: [dim / 4][4
// parts][4 bytes], + 128; then the page's own row, int8[dim].
struct BlockLayout {
  uint32_t base = 0;          // codes: int8[dim] + 128, to 64
  uint32_t rows = 0;          // codes, bounds, means; 2 bits: the sign plane
  uint32_t second = 0;        // 2 bits: the other plane
  uint32_t page_row = 0;      // means
  uint32_t token_scales = 0;  // codes: u16[64]: T8 of the scale, shift of dot * T8 << 8
  uint32_t bytes = 0;
};

// At the block's start.
struct BlockHeader {
  uint8_t base_scale;
  uint8_t top_octave;
  uint8_t sign_scale;
  uint8_t row_scales[5];
};

struct QueryParams {
  int32_t multiplier = 0;
  int32_t shift = 0;
};

// Heads that one task scores: their blocks of a page lie one behind the other, so that memory is asked for
// longer stretches than if the pages were scored head by head.
inline constexpr uint32_t kMostScoreHeads = 4;

// Scores of whole pages against the queries of one group a head.
struct ScoreTask {
  const uint8_t* const* pages = nullptr;  // extents; the first head's block lies block_offset behind
  size_t block_offset = 0;
  uint32_t page_count = 0;
  uint32_t heads = 1;   // 1 to kMostScoreHeads
  uint32_t format = 0;  // layout::Format, a record format
  uint32_t dim = 0;
  bool sign_stage = false;   // 2-bit codes: the sign plane alone
  bool whole_pages = false;  // bounds, means: an entry is a page, not one of its parts
  uint32_t group = 0;
  const int8_t* codes = nullptr;  // [group][dim], a head's code_stride behind the last one's
  size_t code_stride = 0;
  const QueryParams* params = nullptr;  // [heads][group]
  // [group] rows of score_stride; 64, 4 or 1 entries a page. A head's head_stride behind the last one's.
  int16_t* scores = nullptr;
  size_t head_stride = 0;
  // The second stage of a cascade, all planes of 2-bit codes and one head: the tokens to score, rising,
  // counted from the first of pages[0]. Their scores stand one behind the other at the beginning of each row;
  // nothing past them is written, and page_count is not read. nullptr: all tokens of all pages.
  const uint32_t* listed = nullptr;
  uint32_t listed_count = 0;
  size_t score_stride = 0;
};

// Ranks of group max: max over g of max(y_g - best_g, -4095). Count is a multiple of 64, rows are padded.
struct RankTask {
  const int16_t* scores = nullptr;
  size_t score_stride = 0;
  uint32_t group = 0;
  const int32_t* best = nullptr;
  size_t count = 0;
};

struct IndexKernels {
  const char* isa = "";
  // As layout::MakeRecord; `keys` are 64 rows, value_type a layout::Format. The record, whose size is
  // record_bytes, is written whole.
  void (*make_record)(const void* keys, size_t row_stride_bytes, uint32_t value_type, uint32_t dim,
                      uint32_t format, uint8_t* record, size_t record_bytes);
  // As layout::MakeQuery; codes: int8[dim]; param: a layout::QueryParam.
  void (*make_query)(const float* query, uint32_t dim, bool rotated, float softmax_scale, int16_t weight,
                     int8_t* codes, void* param);
  void (*score)(const ScoreTask& task);
  // Counts are multiples of 64 and scores 64-byte aligned in these.
  int32_t (*largest)(const int16_t* scores, size_t count);
  // The largest of every 64 scores.
  void (*largest_of_each)(const int16_t* scores, size_t count, int16_t* largest);
  void (*ranks_max)(const RankTask& task, int16_t* ranks);
  // Ranks of group plain max: max over g of max(y_g, -32767); task.best is not read.
  void (*ranks_plain_max)(const RankTask& task, int16_t* ranks);
  void (*ranks_exp2)(const RankTask& task, int32_t* ranks);
  // The k-th highest of the ranks; *above: how many are higher. At least k ranks count, k >= 1. Of group max
  // all of those that count are in -4095..0; of group plain max (`plain`) none is -32768. Anything below does
  // not count.
  int32_t (*kth_rank)(const int16_t* ranks, size_t count, uint32_t k, bool plain, uint32_t* above);
  uint32_t (*count_at_least)(const int16_t* ranks, size_t count, int32_t bound);
  // Positions of the ranks over `last`, and of the first `need` that equal it, rising; returns how many.
  // May write 16 entries past the last.
  uint32_t (*collect)(const int16_t* ranks, size_t count, int32_t last, uint32_t need, uint32_t first_id,
                      uint32_t* ids);
};

const IndexKernels* BaselineIndexKernels();
const IndexKernels* Avx2IndexKernels();
const IndexKernels* Avx512IndexKernels();
const IndexKernels* Avx512VnniIndexKernels();

// The kernels of one instruction set, by the names of devices/cpu/isa.h; "auto": the best one that the
// machine has. nullptr when this machine cannot run it.
const IndexKernels* FindIndexKernels(const char* isa);
// Those that the machine can run, best last; at most `capacity` of them. Returns how many.
int AvailableIndexKernels(const IndexKernels** kernels, int capacity);

// The layout of blocks, the same for every instruction set. format and dim as the wire layout allows them.
BlockLayout BlockOf(uint32_t format, uint32_t dim);
// A wire record into a block.
void StoreBlock(const uint8_t* record, uint32_t format, uint32_t dim, uint8_t* block);

}  // namespace mnemo::devices::cpu
