// Kernels of memory indexes: making records and query codes, scanning resident pages, and selecting by
// counting. There is one table per instruction set; all follow the arithmetic of proto/layout exactly.
// Includes no standard library class, because kernel files are compiled for other instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mnemo::devices::cpu {

// Layout of a head's block of a resident page: 64 tokens of one layer slot and KV head. Offsets are in bytes
// from the block, all multiples of 64.
//
// For code formats, `rows` holds the record's codes, four bytes of a token (a "quad") in each 32-bit lane:
// [quads][4 chunks][16 lanes]. Token t is in chunk t / 32 * 2 + t % 32 / 4 % 2, lane t % 32 / 8 * 4 + t % 4.
// Packing the lanes of two chunks to 16 bits then puts tokens in order in vectors of any width. Codes are
// unsigned: 4 bits + 8, 8 bits + 128. Codes of 2 bits are two planes. The second plane has 1 where sign and
// magnitude bit are equal, so that sign * 2 + second = (value + 3) / 2. Bounds: [2 * dim / 4][4 parts][4
// bytes], lowest then highest elements, + 128. Means: [dim / 4][4 parts][4 bytes], + 128; then the page's own
// row, int8[dim].
struct BlockLayout {
  // Codes: int8[dim] + 128, padded to 64.
  uint32_t base = 0;
  // Codes, bounds, means; for 2 bits the sign plane.
  uint32_t rows = 0;
  // 2 bits: the second plane.
  uint32_t second = 0;
  // Means.
  uint32_t page_row = 0;
  // Codes: u16[64], T8 of the scale and shift of dot * T8 << 8.
  uint32_t token_scales = 0;
  uint32_t bytes = 0;
};

// Header at the start of a block.
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

// Maximum number of heads that one task scores. Their blocks of a page are adjacent, so prefetches cover
// longer stretches than when pages are scored head by head.
inline constexpr uint32_t kMostScoreHeads = 4;

// Scores of whole pages against the queries of one group per head.
struct ScoreTask {
  // Extents; the first head's block is at block_offset.
  const uint8_t* const* pages = nullptr;
  size_t block_offset = 0;
  uint32_t page_count = 0;
  // 1 to kMostScoreHeads.
  uint32_t heads = 1;
  // layout::Format, a record format.
  uint32_t format = 0;
  uint32_t dim = 0;
  // 2-bit codes: score the sign plane only.
  bool sign_stage = false;
  // Bounds, means: an entry is a page, not one of its parts.
  bool whole_pages = false;
  uint32_t group = 0;
  // [group][dim] per head; heads are code_stride apart.
  const int8_t* codes = nullptr;
  size_t code_stride = 0;
  // [heads][group].
  const QueryParams* params = nullptr;
  // [group] rows of score_stride per head; heads are head_stride apart. A page has 64, 4 or 1 entries.
  int16_t* scores = nullptr;
  size_t head_stride = 0;
  // The second stage of a cascade, with all planes of 2-bit codes and one head: the tokens to score,
  // ascending, counted from the first token of pages[0]. Their scores are adjacent at the beginning of each
  // row. Nothing is written past them, and page_count is not read. nullptr: all tokens of all pages.
  const uint32_t* listed = nullptr;
  uint32_t listed_count = 0;
  size_t score_stride = 0;
};

// Ranks of group max: max over g of max(y_g - best_g, -4095). Count is a multiple of 64; rows are padded.
struct RankTask {
  const int16_t* scores = nullptr;
  size_t score_stride = 0;
  uint32_t group = 0;
  const int32_t* best = nullptr;
  size_t count = 0;
};

struct IndexKernels {
  const char* isa = "";
  // As layout::MakeRecord. `keys` are 64 rows, value_type a layout::Format. Writes the whole record,
  // record_bytes bytes.
  void (*make_record)(const void* keys, size_t row_stride_bytes, uint32_t value_type, uint32_t dim,
                      uint32_t format, uint8_t* record, size_t record_bytes);
  // As layout::MakeQuery. codes: int8[dim]; param: a layout::QueryParam.
  void (*make_query)(const float* query, uint32_t dim, bool rotated, float softmax_scale, int16_t weight,
                     int8_t* codes, void* param);
  void (*score)(const ScoreTask& task);
  // The functions from here on take counts that are multiples of 64 and scores that are 64-byte aligned.
  int32_t (*largest)(const int16_t* scores, size_t count);
  // Writes the largest of every 64 scores.
  void (*largest_of_each)(const int16_t* scores, size_t count, int16_t* largest);
  void (*ranks_max)(const RankTask& task, int16_t* ranks);
  // Ranks of group plain max: max over g of max(y_g, -32767); task.best is not read.
  void (*ranks_plain_max)(const RankTask& task, int16_t* ranks);
  void (*ranks_exp2)(const RankTask& task, int32_t* ranks);
  // Returns the k-th highest of the ranks; *above is the number of higher ranks. k >= 1, and at least k ranks
  // are valid. Valid ranks are in -4095..0 for group max and above -32768 for group plain max (`plain`).
  // Lower ranks are ignored.
  int32_t (*kth_rank)(const int16_t* ranks, size_t count, uint32_t k, bool plain, uint32_t* above);
  uint32_t (*count_at_least)(const int16_t* ranks, size_t count, int32_t bound);
  // Writes the positions of the ranks above `last`, and of the first `need` that equal it, ascending; returns
  // their number. May write 16 entries past the last.
  uint32_t (*collect)(const int16_t* ranks, size_t count, int32_t last, uint32_t need, uint32_t first_id,
                      uint32_t* ids);
};

const IndexKernels* BaselineIndexKernels();
const IndexKernels* Avx2IndexKernels();
const IndexKernels* Avx512IndexKernels();
const IndexKernels* Avx512VnniIndexKernels();

// Returns the kernels of one instruction set, by the names of devices/cpu/isa.h; "auto" is the best that the
// machine has. nullptr when this machine cannot run it.
const IndexKernels* FindIndexKernels(const char* isa);
// Writes at most `capacity` kernel tables that the machine can run, best last, and returns their number.
int AvailableIndexKernels(const IndexKernels** kernels, int capacity);

// Returns the layout of blocks, the same for every instruction set. format and dim must be valid for the wire
// layout.
BlockLayout BlockOf(uint32_t format, uint32_t dim);
// Converts a wire record to a block.
void StoreBlock(const uint8_t* record, uint32_t format, uint32_t dim, uint8_t* block);

}  // namespace mnemo::devices::cpu
