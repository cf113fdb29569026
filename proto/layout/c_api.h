#pragma once

// The layout functions behind a C interface, as the shared library libmnemo_layout_c, for tools and for
// oracles in Python. Arguments are as in quantise.h and reference.h.

#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef __cplusplus
#define MNEMO_LAYOUT_NAME(name) name
#else
#define MNEMO_LAYOUT_NAME(name) mnemo::layout::name
#endif

uint32_t mnemo_record_bytes(uint32_t format, uint32_t dim);
uint64_t mnemo_query_block_bytes(uint32_t group, uint32_t dim);
uint64_t mnemo_result_block_bytes(uint32_t select_op, uint32_t flags, uint32_t k, uint32_t dim);
uint64_t mnemo_layout_hash(void);
uint64_t mnemo_quantiser_id(void);

// `pages` consecutive pages of keys, rows of dim elements without gaps; the records are adjacent.
void mnemo_make_records(const void* keys, uint32_t value_type, uint32_t pages, uint32_t dim, uint32_t format,
                        uint8_t* records);

// `count` adjacent query blocks of [group][dim]; weights is NULL or [count][group].
void mnemo_make_queries(const float* queries, uint32_t count, uint32_t group, uint32_t dim, uint32_t format,
                        float softmax_scale, const int16_t* weights, uint8_t* blocks);

// The records are adjacent.
void mnemo_score_select(const MNEMO_LAYOUT_NAME(Descriptor) * op, uint32_t dim, const uint8_t* records,
                        uint32_t pages, const uint8_t* query_block, uint8_t* result, uint64_t result_bytes);

// Writes y of all tokens of all pages, [group][pages * 64]; stage 0: sign plane, 1: all planes.
void mnemo_scores(uint32_t format, uint32_t dim, const uint8_t* records, uint32_t pages, uint32_t stage,
                  uint32_t group, const uint8_t* query_block, int16_t* scores);

#ifdef __cplusplus
}
#endif
