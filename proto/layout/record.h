#pragma once

// The record of one page (64 tokens) and KV head, in the form used on the wire, in hashes and in tests. A
// device may keep resident records in another layout. quantise.h makes records; README.md describes every
// byte.

#include "proto/layout/abi.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"

MNEMO_LAYOUT_BEGIN

enum {
  kPageTokens = 64,
  kPartTokens = 16,  // bounds and means cover 16 tokens each
  kPageParts = kPageTokens / kPartTokens,
  kMinDim = 16,
  kMaxDim = 512,  // keeps dot * T8 within 32 bits
  kMaxGroup = 64,
  // A scale byte e stands for 2^((e - 128) / 8), in units of the rotated key (H k, not divided by sqrt(dim)).
  kScaleBias = 128,
};

// First 16 bytes of every record.
typedef struct RecordHeader {
  uint8_t base_scale;     // code formats: scale of the base
  uint8_t top_octave;     // code formats: largest token scale >> 3
  uint8_t sign_scale;     // kFormatCodes2: scale of the sign plane alone, values -1 and 1
  uint8_t format;         // Format, 1 to 5
  uint8_t dim_log2;       // 4 to 9
  uint8_t reserved0[3];   // zero
  uint8_t row_scales[5];  // kFormatBounds: parts 0 to 3; kFormatMeans: parts 0 to 3, then the whole page
  uint8_t reserved1[3];   // zero
} RecordHeader;

MNEMO_LAYOUT_ASSERT(sizeof(RecordHeader) == 16, "RecordHeader");
MNEMO_LAYOUT_ASSERT(offsetof(RecordHeader, top_octave) == 1, "top_octave");
MNEMO_LAYOUT_ASSERT(offsetof(RecordHeader, sign_scale) == 2, "sign_scale");
MNEMO_LAYOUT_ASSERT(offsetof(RecordHeader, format) == 3, "format");
MNEMO_LAYOUT_ASSERT(offsetof(RecordHeader, dim_log2) == 4, "dim_log2");
MNEMO_LAYOUT_ASSERT(offsetof(RecordHeader, row_scales) == 8, "row_scales");

#ifdef __cplusplus

// Byte offsets of a record's sections, all multiples of 16. A section that the format lacks is empty, at the
// offset of the next one. The first stage of a cascade reads only bytes 0 to `magnitude`.
struct RecordLayout {
  // int8[dim]: page mean (code formats).
  uint32_t base = 0;
  // kFormatCodes2: bit[64][dim], 1: not negative; bit i of a token is bit i % 8 of byte i / 8.
  uint32_t sign = 0;
  // kFormatCodes2: bit[64][dim], 1: large.
  uint32_t magnitude = 0;
  // kFormatCodes8: int8[64][dim]; kFormatCodes4: byte[64][dim / 2], see README.md.
  uint32_t codes = 0;
  // Code formats: u8[64], one per token.
  uint32_t scales = 0;
  // kFormatBounds: int8[4][2][dim] (lowest, highest); kFormatMeans: int8[5][dim].
  uint32_t rows = 0;
  // Size of the record, a multiple of 64.
  uint32_t bytes = 0;
};

// Returns whether an index may have this head dim: a power of two from kMinDim to kMaxDim.
MNEMO_LAYOUT_FN bool IsIndexDim(uint32_t dim) {
  return dim >= kMinDim && dim <= kMaxDim && (dim & (dim - 1)) == 0;
}

MNEMO_LAYOUT_FN bool IsRecordFormat(uint32_t format) {
  return format >= kFormatCodes2 && format <= kFormatMeans;
}

MNEMO_LAYOUT_FN bool IsCodeFormat(uint32_t format) {
  return format >= kFormatCodes2 && format <= kFormatCodes8;
}

// Returns the bits per code, 0 for formats without codes.
MNEMO_LAYOUT_FN uint32_t CodeBits(uint32_t format) {
  return format == kFormatCodes2 ? 2 : format == kFormatCodes4 ? 4 : format == kFormatCodes8 ? 8 : 0;
}

// Returns the largest magnitude of a code.
MNEMO_LAYOUT_FN int32_t CodeMax(uint32_t format) {
  return format == kFormatCodes2 ? 3 : format == kFormatCodes4 ? 7 : 127;
}

MNEMO_LAYOUT_FN RecordLayout RecordSections(uint32_t format, uint32_t dim) {
  RecordLayout at;
  uint32_t next = sizeof(RecordHeader);
  const uint32_t plane = format == kFormatCodes2 ? kPageTokens * dim / 8 : 0;
  at.base = next;
  next += IsCodeFormat(format) ? dim : 0;
  at.sign = next;
  next += plane;
  at.magnitude = next;
  next += plane;
  at.codes = next;
  next += format == kFormatCodes4 ? kPageTokens * dim / 2 : format == kFormatCodes8 ? kPageTokens * dim : 0;
  at.scales = next;
  next += IsCodeFormat(format) ? kPageTokens : 0;
  at.rows = next;
  next += format == kFormatBounds  ? kPageParts * 2 * dim
          : format == kFormatMeans ? (kPageParts + 1) * dim
                                   : 0;
  at.bytes = static_cast<uint32_t>(PadToUnit(next));
  return at;
}

// Returns the size of a record in bytes, a multiple of 64.
MNEMO_LAYOUT_FN uint32_t RecordBytes(uint32_t format, uint32_t dim) {
  return RecordSections(format, dim).bytes;
}

// Returns the offset in bytes of a record in its extent. An extent holds one page of all layer slots and
// heads, in this order.
MNEMO_LAYOUT_FN uint64_t RecordOffset(uint32_t format, uint32_t dim, uint32_t heads, uint32_t layer_slot,
                                      uint32_t head) {
  return (uint64_t{layer_slot} * heads + head) * RecordBytes(format, dim);
}

// Returns the size of an extent in bytes.
MNEMO_LAYOUT_FN uint64_t ExtentBytes(uint32_t format, uint32_t dim, uint32_t heads, uint32_t layer_slots) {
  return RecordOffset(format, dim, heads, layer_slots, 0);
}

// Returns the tokens per entry of the index; ids count entries.
MNEMO_LAYOUT_FN uint32_t EntryTokens(uint32_t format, uint32_t flags) {
  return IsCodeFormat(format) ? 1 : (flags & kFlagPages64) != 0 ? kPageTokens : kPartTokens;
}

static_assert(RecordBytes(kFormatCodes2, 64) == 1216 && RecordBytes(kFormatCodes8, 128) == 8448);

#endif

MNEMO_LAYOUT_END
