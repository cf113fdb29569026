#pragma once

// The one function that makes records from keys and the one that makes query codes. Both use integers (the
// query's multiplier also double multiplication and division, which IEEE rounds alike everywhere), so every
// build and instruction set makes the same bytes. README.md gives each step.

#include <stddef.h>
#include <stdint.h>

#include <span>

#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::layout {

// Keys of one page and head as the KV cache stores them, after rotary embedding: 64 rows of `dim` elements.
// The record is a function of these bytes alone. NaN counts as 0, infinity as the largest float32.
struct PageKeys {
  const void* data;
  size_t row_stride_bytes;
  uint32_t value_type;  // kFormatF16, kFormatBf16 or kFormatF32
};

// `record` has RecordBytes(record_format, dim) bytes; all of them are written. dim as IsIndexDim says, format
// as IsRecordFormat says; anything else is the caller's bug and leaves the record zero.
void MakeRecord(const PageKeys& keys, uint32_t dim, uint32_t record_format, std::span<uint8_t> record);

// Whether records of the format hold rotated keys, so that queries must be rotated too.
constexpr bool IsRotated(uint32_t record_format) { return record_format != kFormatBounds; }

// Codes of one query, after rotary embedding: int8[dim], and the parameters with softmax_scale (1 /
// sqrt(dim), or what the model has) and log2 e in the multiplier. `weight` is kScoreReluDot's, otherwise 0.
void MakeQuery(std::span<const float> query, uint32_t record_format, float softmax_scale, int16_t weight,
               std::span<int8_t> codes, QueryParam& param);

// A whole query block: `queries` holds [group][dim]; `weights` is empty or holds [group]. `block` has
// QueryBlockBytes(group, dim) bytes; all of them are written.
void MakeQueryBlock(std::span<const float> queries, uint32_t group, uint32_t dim, uint32_t record_format,
                    float softmax_scale, std::span<const int16_t> weights, std::span<uint8_t> block);

// In place, H x without a factor: the butterfly x[i], x[i + n] -> sum, difference for n = 1, 2, 4, ... size
// / 2.
void Hadamard(std::span<int32_t> x);

// Value of one code (kFormatCodes*) of a record, without base and scale; for tests, tools and reference.h.
int32_t CodeAt(std::span<const uint8_t> record, uint32_t format, uint32_t dim, uint32_t token, uint32_t i);

}  // namespace mnemo::layout
