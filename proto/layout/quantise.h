#pragma once

// The only functions that make records from keys and codes from queries. Both use integers. The query's
// multiplier also uses double multiplication and division, which IEEE rounds identically everywhere. Every
// build and instruction set therefore makes the same bytes. README.md gives each step.

#include <stddef.h>
#include <stdint.h>

#include <span>

#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::layout {

// Keys of one page and head as the KV cache stores them, after rotary embedding: 64 rows of `dim` elements.
// The record depends only on these bytes. NaN counts as 0, infinity as the largest float32.
struct PageKeys {
  const void* data;
  size_t row_stride_bytes;
  uint32_t value_type;  // kFormatF16, kFormatBf16 or kFormatF32
};

// Writes all RecordBytes(record_format, dim) bytes of `record`. dim must satisfy IsIndexDim and the format
// IsRecordFormat; other values are a bug of the caller and leave the record zero.
void MakeRecord(const PageKeys& keys, uint32_t dim, uint32_t record_format, std::span<uint8_t> record);

// Returns whether records of the format hold rotated keys, so that queries must be rotated too.
constexpr bool IsRotated(uint32_t record_format) { return record_format != kFormatBounds; }

// Makes the codes of one query, after rotary embedding: int8[dim], and the parameters. The multiplier
// includes softmax_scale (1 / sqrt(dim), or the model's own) and log2 e. `weight` is that of kScoreReluDot,
// otherwise 0.
void MakeQuery(std::span<const float> query, uint32_t record_format, float softmax_scale, int16_t weight,
               std::span<int8_t> codes, QueryParam& param);

// Makes a whole query block. `queries` holds [group][dim]; `weights` is empty or holds [group]. Writes all
// QueryBlockBytes(group, dim) bytes of `block`.
void MakeQueryBlock(std::span<const float> queries, uint32_t group, uint32_t dim, uint32_t record_format,
                    float softmax_scale, std::span<const int16_t> weights, std::span<uint8_t> block);

// Computes H x in place without a factor: the butterfly x[i], x[i + n] -> sum, difference for n = 1, 2, 4,
// ... size / 2.
void Hadamard(std::span<int32_t> x);

// Returns the value of one code (kFormatCodes*) of a record, without base and scale; for tests, tools and
// reference.h.
int32_t CodeAt(std::span<const uint8_t> record, uint32_t format, uint32_t dim, uint32_t token, uint32_t i);

}  // namespace mnemo::layout
