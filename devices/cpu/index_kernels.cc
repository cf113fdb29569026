#include "devices/cpu/index_kernels.h"

#include <bit>
#include <cstring>

#include "proto/layout/numerics.h"
#include "proto/layout/record.h"

namespace mnemo::devices::cpu {
namespace {

using namespace layout;  // NOLINT(google-build-using-namespace)

uint32_t Padded(uint32_t bytes) { return (bytes + 63) / 64 * 64; }

// __builtin_cpu_supports also checks that the operating system saves the wider registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// Writes [quads][4 chunks][16 lanes] from 64 rows of `row_bytes`, with the bits of `flip` inverted.
void StoreQuads(const uint8_t* rows, uint32_t row_bytes, uint32_t flip, uint8_t* to) {
  const uint32_t quads = (row_bytes + 3) / 4;
  const uint32_t last_bytes = row_bytes - (quads - 1) * 4;
  for (uint32_t t = 0; t < kPageTokens; ++t) {
    const uint32_t chunk = t / 32 * 2 + t % 32 / 4 % 2;
    const uint32_t lane = t % 32 / 8 * 4 + t % 4;
    uint8_t* token = to + (chunk * 16 + lane) * 4;
    for (uint32_t q = 0; q < quads; ++q) {
      uint32_t quad = 0;
      std::memcpy(&quad, rows + t * row_bytes + q * 4, q + 1 == quads ? last_bytes : 4);
      quad ^= flip;
      std::memcpy(token + size_t{q} * 256, &quad, 4);
    }
  }
}

void StoreCodes(const uint8_t* record, uint32_t format, uint32_t dim, const BlockLayout& at, uint8_t* block) {
  const RecordLayout from = RecordSections(format, dim);
  for (uint32_t i = 0; i < dim; ++i) {
    block[at.base + i] = record[from.base + i] ^ 0x80;
  }
  std::memset(block + at.base + dim, 0x80, Padded(dim) - dim);
  if (format == kFormatCodes2) {
    uint8_t second[kPageTokens * kMaxDim / 8];
    const uint32_t plane = kPageTokens * dim / 8;
    for (uint32_t i = 0; i < plane; ++i) {
      second[i] = static_cast<uint8_t>(~(record[from.sign + i] ^ record[from.magnitude + i]));
    }
    StoreQuads(record + from.sign, dim / 8, 0, block + at.rows);
    StoreQuads(second, dim / 8, 0, block + at.second);
  } else if (format == kFormatCodes4) {
    StoreQuads(record + from.codes, dim / 2, 0x88888888, block + at.rows);
  } else {
    StoreQuads(record + from.codes, dim, 0x80808080, block + at.rows);
  }
  const int32_t dot_shift = DotShift(CodeMax(format), dim);
  const uint8_t top_octave = record[1];
  for (uint32_t t = 0; t < kPageTokens; ++t) {
    const uint8_t scale = record[from.scales + t];
    const int32_t shift = Clamp(dot_shift + Clamp(top_octave - (scale >> 3), 0, 31), 0, 31);
    const auto packed = static_cast<uint16_t>(ScaleMantissa(scale) | shift << 8);
    std::memcpy(block + at.token_scales + t * 2, &packed, 2);
  }
}

// Interleaves the rows of a page's four parts. `rows` holds them, dim bytes each, row_step apart.
void StoreParts(const uint8_t* rows, uint32_t row_step, uint32_t dim, uint8_t* to) {
  for (uint32_t q = 0; q < dim / 4; ++q) {
    for (uint32_t part = 0; part < kPageParts; ++part) {
      for (uint32_t b = 0; b < 4; ++b) {
        to[q * 16 + part * 4 + b] = rows[part * row_step + q * 4 + b] ^ 0x80;
      }
    }
  }
}

}  // namespace

int AvailableIndexKernels(const IndexKernels** kernels, int capacity) {
  const IndexKernels* all[] = {
      BaselineIndexKernels(), HasAvx2() ? Avx2IndexKernels() : nullptr,
      HasAvx512() ? Avx512IndexKernels() : nullptr,
      HasAvx512() && __builtin_cpu_supports("avx512vnni") ? Avx512VnniIndexKernels() : nullptr};
  int count = 0;
  for (const IndexKernels* one : all) {
    if (one != nullptr && count < capacity) {
      kernels[count++] = one;
    }
  }
  return count;
}

const IndexKernels* FindIndexKernels(const char* isa) {
  const IndexKernels* all[4];
  const int count = AvailableIndexKernels(all, 4);
  if (std::strcmp(isa, "auto") == 0) {
    return all[count - 1];
  }
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(isa, all[i]->isa) == 0) {
      return all[i];
    }
  }
  return nullptr;
}

BlockLayout BlockOf(uint32_t format, uint32_t dim) {
  BlockLayout at;
  uint32_t next = Padded(sizeof(BlockHeader));
  at.base = next;
  next += IsCodeFormat(format) ? Padded(dim) : 0;
  at.rows = next;
  const uint32_t plane = format == kFormatCodes2 ? (dim + 31) / 32 * 256 : 0;
  next += format == kFormatCodes2   ? plane
          : format == kFormatCodes4 ? kPageTokens * dim / 2
          : format == kFormatCodes8 ? kPageTokens * dim
          : format == kFormatBounds ? kPageParts * 2 * dim
                                    : kPageParts * dim;
  at.second = next;
  next += plane;
  at.page_row = next;
  next += format == kFormatMeans ? Padded(dim) : 0;
  at.token_scales = next;
  next += IsCodeFormat(format) ? kPageTokens * 2 : 0;
  at.bytes = next;
  return at;
}

void StoreBlock(const uint8_t* record, uint32_t format, uint32_t dim, uint8_t* block) {
  const BlockLayout at = BlockOf(format, dim);
  std::memset(block, 0, Padded(sizeof(BlockHeader)));
  BlockHeader header{record[0], record[1], record[2], {}};
  std::memcpy(header.row_scales, record + offsetof(RecordHeader, row_scales), sizeof(header.row_scales));
  std::memcpy(block, &header, sizeof(header));
  const uint8_t* rows = record + RecordSections(format, dim).rows;
  if (IsCodeFormat(format)) {
    StoreCodes(record, format, dim, at, block);
  } else if (format == kFormatBounds) {
    StoreParts(rows, 2 * dim, dim, block + at.rows);
    StoreParts(rows + dim, 2 * dim, dim, block + at.rows + size_t{dim} * kPageParts);
  } else {
    StoreParts(rows, dim, dim, block + at.rows);
    std::memset(block + at.page_row, 0, Padded(dim));
    std::memcpy(block + at.page_row, rows + size_t{kPageParts} * dim, dim);
  }
}

}  // namespace mnemo::devices::cpu
