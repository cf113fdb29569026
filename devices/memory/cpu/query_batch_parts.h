#pragma once

// Declarations that query_batch.cc and query_select.cc share.

#include <stdint.h>

#include <vector>

#include "devices/memory/cpu/query_batch.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::memory_device::cpu {

// Score and rank of entries that are excluded from a selection; below all valid ones.
inline constexpr int16_t kNoScore = -32768;
inline constexpr int32_t kNoRank = INT32_MIN;

struct QueryBatch::Taken {
  layout::Descriptor descriptor;
  const uint8_t* payload = nullptr;
  uint8_t* result = nullptr;
  const ResidentIndex* index = nullptr;
  uint16_t status = layout::kStatusOk;
  uint16_t detail = layout::kNoDetail;
  uint32_t first_block = 0;
  uint32_t blocks = 0;
};

struct QueryBatch::Block {
  uint32_t operation = 0;
  uint32_t head = 0;      // head of the index
  uint32_t position = 0;  // block of the payload and the result: position * heads + head of the descriptor
  // The scan covers whole pages; only its entries [skip, skip + entries) count.
  uint32_t first_page = 0;
  uint32_t page_count = 0;
  uint32_t entries_per_page = 0;
  uint32_t skip = 0;
  uint32_t entries = 0;
  uint32_t padded = 0;  // entries of all pages, rounded up to a multiple of 64 for whole vectors
  // Scores and ranks are in the batch's scratch. Ranks of 16 bits replace the first query's scores.
  int16_t* scores = nullptr;  // [group][padded]
  int32_t* ranks = nullptr;   // [padded]
  // Cascades only: ids that passed the first stage, ascending. The capacity is a multiple of 16.
  uint32_t* passed = nullptr;
  // With IsFewOfMany only: the best score of every 64 entries. The capacity is a multiple of 64.
  int16_t* best_of_64 = nullptr;
  // Results.
  uint32_t passed_count = 0;
  uint32_t count = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  uint16_t status = layout::kStatusOk;
  uint16_t detail = layout::kNoDetail;

  uint32_t first_id() const { return first_page * entries_per_page; }
};

struct QueryBatch::Scratch {
  std::vector<uint32_t> ids;
  std::vector<int32_t> ranks;
  std::vector<uint32_t> parts;      // parts of 64 entries that are searched
  std::vector<uint32_t> other_ids;  // with other_ranks, the second buffer of sorting
  std::vector<int32_t> other_ranks;
  std::vector<uint32_t> bins;
  // 16-bit ranks of candidates, from the first address within that is a multiple of 64.
  std::vector<int16_t> short_ranks;
  std::vector<int64_t> sums;
};

inline bool IsScored(const layout::Descriptor& d) {
  return d.op != layout::kOpGather && d.select_op != layout::kSelectLatest;
}

// Whether ranks fit 16 bits, as those of both maxima do.
inline bool HasShortRanks(const layout::Descriptor& d) {
  return d.group_op == layout::kGroupMax || d.group_op == layout::kGroupPlainMax;
}
inline bool IsPlain(const layout::Descriptor& d) { return d.group_op == layout::kGroupPlainMax; }

// Whether one query selects its k best from so many entries that the k-th best of the best scores of each 64
// leaves few candidates.
inline bool IsFewOfMany(const layout::Descriptor& d, uint64_t padded) {
  return IsScored(d) && d.group == 1 && HasShortRanks(d) && d.select_op == layout::kSelectTopK && d.k1 == 0 &&
         uint64_t{d.k} * 4 <= padded / 64;
}

}  // namespace mnemo::memory_device::cpu
