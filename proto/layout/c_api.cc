#include "proto/layout/c_api.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "proto/layout/layout_hash.h"
#include "proto/layout/quantise.h"
#include "proto/layout/reference.h"

namespace layout = mnemo::layout;

namespace {

std::vector<const uint8_t*> Pages(const uint8_t* records, uint32_t pages, size_t record_bytes) {
  std::vector<const uint8_t*> at(pages);
  for (uint32_t p = 0; p < pages; ++p) {
    at[p] = records + p * record_bytes;
  }
  return at;
}

}  // namespace

uint32_t mnemo_record_bytes(uint32_t format, uint32_t dim) { return layout::RecordBytes(format, dim); }

uint64_t mnemo_query_block_bytes(uint32_t group, uint32_t dim) { return layout::QueryBlockBytes(group, dim); }

uint64_t mnemo_result_block_bytes(uint32_t select_op, uint32_t flags, uint32_t k, uint32_t dim) {
  return layout::ResultBlockBytes(select_op, flags, k, dim);
}

uint64_t mnemo_layout_hash(void) { return layout::kLayoutHash; }

uint64_t mnemo_quantiser_id(void) { return layout::kQuantiserId; }

void mnemo_make_records(const void* keys, uint32_t value_type, uint32_t pages, uint32_t dim, uint32_t format,
                        uint8_t* records) {
  const size_t row_bytes = size_t{dim} * layout::ValueBytes(value_type);
  const size_t record_bytes = layout::RecordBytes(format, dim);
  for (uint32_t p = 0; p < pages; ++p) {
    const auto* page = static_cast<const uint8_t*>(keys) + p * layout::kPageTokens * row_bytes;
    layout::MakeRecord({page, row_bytes, value_type}, dim, format,
                       {records + p * record_bytes, record_bytes});
  }
}

void mnemo_make_queries(const float* queries, uint32_t count, uint32_t group, uint32_t dim, uint32_t format,
                        float softmax_scale, const int16_t* weights, uint8_t* blocks) {
  const size_t block_bytes = layout::QueryBlockBytes(group, dim);
  for (uint32_t n = 0; n < count; ++n) {
    const std::span<const int16_t> of_block =
        weights == nullptr ? std::span<const int16_t>() : std::span(weights + size_t{n} * group, group);
    layout::MakeQueryBlock({queries + size_t{n} * group * dim, size_t{group} * dim}, group, dim, format,
                           softmax_scale, of_block, {blocks + n * block_bytes, block_bytes});
  }
}

void mnemo_score_select(const layout::Descriptor* op, uint32_t dim, const uint8_t* records, uint32_t pages,
                        const uint8_t* query_block, uint8_t* result, uint64_t result_bytes) {
  const auto at = Pages(records, pages, layout::RecordBytes(op->format, dim));
  layout::ScoreSelect(*op, {op->format, dim, at}, query_block, {result, result_bytes});
}

void mnemo_scores(uint32_t format, uint32_t dim, const uint8_t* records, uint32_t pages, uint32_t stage,
                  uint32_t group, const uint8_t* query_block, int16_t* scores) {
  const auto at = Pages(records, pages, layout::RecordBytes(format, dim));
  std::vector<uint32_t> tokens(size_t{pages} * layout::kPageTokens);
  std::iota(tokens.begin(), tokens.end(), 0U);
  const auto y =
      layout::Scores({format, dim, at}, layout::kScoreDot, 0,
                     stage == 0 ? layout::Stage::kSign : layout::Stage::kFull, group, query_block, tokens);
  std::copy(y.begin(), y.end(), scores);
}
