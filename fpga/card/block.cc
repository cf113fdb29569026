#include "fpga/card/block.h"

#include <cstring>

#include "proto/layout/record.h"

namespace mnemo::card {
namespace {

using layout::CardBlock;
using layout::kCardBeatBytes;

uint64_t LoadWord(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

// Bit 8 r + c becomes bit 8 c + r: of 8 elements of a byte each, byte b then has bit b of each element.
uint64_t Transposed(uint64_t x) {
  uint64_t swap = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAU;
  x ^= swap ^ (swap << 7);
  swap = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCU;
  x ^= swap ^ (swap << 14);
  swap = (x ^ (x >> 28)) & 0x00000000F0F0F0F0U;
  return x ^ swap ^ (swap << 28);
}

// The places of a vector's bits: that of the first plane, and those of the others.
struct Planes {
  uint8_t* first;
  uint8_t* further;
  uint32_t stride;

  uint8_t* At(uint32_t plane) const { return plane == 0 ? first : further + (plane - 1) * stride; }
};

Planes PlanesOf(const CardBlock& at, uint8_t* block) {
  return {block + at.first * kCardBeatBytes, block + at.further * kCardBeatBytes,
          at.plane_beats * kCardBeatBytes};
}

// Puts `count` elements of 8 bits (a multiple of 8) into the planes, from byte `to` of each plane on.
void StoreBytes(const uint8_t* elements, uint32_t count, const Planes& planes, uint32_t to) {
  for (uint32_t n = 0; n < count / 8; ++n) {
    const uint64_t bits = Transposed(LoadWord(elements + 8 * n));
    for (uint32_t plane = 0; plane < 8; ++plane) {
      planes.At(plane)[to + n] = static_cast<uint8_t>(bits >> (8 * (7 - plane)));
    }
  }
}

// Elements i lie in the low halves of `count` bytes, elements count + i in the high halves.
void StoreNibbles(const uint8_t* bytes, uint32_t count, const Planes& planes, uint32_t to) {
  for (uint32_t n = 0; n < count / 8; ++n) {
    const uint64_t bits = Transposed(LoadWord(bytes + 8 * n));
    for (uint32_t plane = 0; plane < 4; ++plane) {
      planes.At(plane)[to + n] = static_cast<uint8_t>(bits >> (8 * (3 - plane)));
      planes.At(plane)[to + count / 8 + n] = static_cast<uint8_t>(bits >> (8 * (7 - plane)));
    }
  }
}

// Codes of 2 bits: the sign plane, then where sign and magnitude are equal.
void StoreSigns(const uint8_t* sign, const uint8_t* magnitude, uint32_t dim, uint32_t row_bytes,
                const Planes& planes) {
  if (dim >= layout::kCardMinDim) {  // rows without padding: one piece
    std::memcpy(planes.first, sign, layout::kPageTokens * row_bytes);
    for (uint32_t n = 0; n < layout::kPageTokens * row_bytes; n += 8) {
      const uint64_t equal = ~(LoadWord(sign + n) ^ LoadWord(magnitude + n));
      std::memcpy(planes.further + n, &equal, sizeof(equal));
    }
    return;
  }
  const uint32_t bytes = dim / 8;
  for (uint32_t token = 0; token < layout::kPageTokens; ++token) {
    for (uint32_t n = 0; n < bytes; ++n) {
      const uint8_t of_sign = sign[token * bytes + n];
      planes.first[token * row_bytes + n] = of_sign;
      planes.further[token * row_bytes + n] = static_cast<uint8_t>(~(of_sign ^ magnitude[token * bytes + n]));
    }
  }
}

void StoreCodes(const uint8_t* record, uint32_t format, uint32_t dim, const CardBlock& at, uint8_t* block) {
  const layout::RecordLayout from = layout::RecordSections(format, dim);
  std::memcpy(block + at.base * kCardBeatBytes, record + from.base, dim);
  std::memcpy(block + at.scales * kCardBeatBytes, record + from.scales, layout::kPageTokens);
  const Planes planes = PlanesOf(at, block);
  const uint32_t row_bytes = at.vector_elements / 8;
  if (format == layout::kFormatCodes2) {
    StoreSigns(record + from.sign, record + from.magnitude, dim, row_bytes, planes);
    return;
  }
  for (uint32_t token = 0; token < layout::kPageTokens; ++token) {
    if (format == layout::kFormatCodes4) {
      StoreNibbles(record + from.codes + token * dim / 2, dim / 2, planes, token * row_bytes);
    } else {
      StoreBytes(record + from.codes + token * dim, dim, planes, token * row_bytes);
    }
  }
}

void StoreRows(const uint8_t* record, uint32_t format, uint32_t dim, const CardBlock& at, uint8_t* block) {
  const uint8_t* rows = record + layout::RecordSections(format, dim).rows;
  const Planes planes = PlanesOf(at, block);
  const uint32_t row_bytes = at.vector_elements / 8;
  for (uint32_t part = 0; part < layout::kPageParts; ++part) {
    if (format == layout::kFormatBounds) {
      StoreBytes(rows + (2 * part) * dim, dim, planes, part * row_bytes);
      StoreBytes(rows + (2 * part + 1) * dim, dim, planes, part * row_bytes + row_bytes / 2);
    } else {
      StoreBytes(rows + part * dim, dim, planes, part * row_bytes);
    }
  }
  if (format != layout::kFormatMeans) {
    return;
  }
  const uint8_t* page_row = rows + layout::kPageParts * dim;
  if (at.page_row == at.beats) {
    StoreBytes(page_row, dim, planes, layout::kPageParts * row_bytes);
  } else {
    uint8_t* own = block + at.page_row * kCardBeatBytes;
    StoreBytes(page_row, dim, {own, own + kCardBeatBytes, kCardBeatBytes}, 0);
  }
}

bool BitAt(const uint8_t* bytes, uint32_t bit) { return (bytes[bit / 8] >> (bit % 8) & 1) != 0; }

}  // namespace

void StoreCardBlock(std::span<const uint8_t> record, uint32_t format, uint32_t dim,
                    std::span<uint8_t> block) {
  const CardBlock at = layout::CardBlockOf(format, dim);
  const bool codes = layout::IsCodeFormat(format);
  // Only rows of padded dims, headers and planes with room behind their vectors have bytes that nothing else
  // writes.
  const bool whole = codes && dim >= layout::kCardMinDim;
  std::memset(block.data(), 0, (whole ? 1 : at.beats) * size_t{kCardBeatBytes});
  std::memcpy(block.data(), record.data(), sizeof(layout::RecordHeader));
  if (codes) {
    StoreCodes(record.data(), format, dim, at, block.data());
  } else {
    StoreRows(record.data(), format, dim, at, block.data());
  }
}

int32_t BlockElement(std::span<const uint8_t> block, uint32_t format, uint32_t dim, uint32_t vector,
                     uint32_t i) {
  const CardBlock at = layout::CardBlockOf(format, dim);
  const bool own = vector == layout::kPageParts && at.page_row != at.beats && !layout::IsCodeFormat(format);
  const uint32_t bit = own ? i : vector * at.vector_elements + i;
  int32_t value = 0;
  for (uint32_t plane = 0; plane < at.planes; ++plane) {
    const uint32_t beat = own          ? at.page_row + plane
                          : plane == 0 ? at.first
                                       : at.further + (plane - 1) * at.plane_beats;
    const int32_t set = BitAt(block.data() + beat * kCardBeatBytes, bit) ? 1 : 0;
    const bool negative = plane == 0 && format != layout::kFormatCodes2;
    value = 2 * value + (negative ? -set : set);
  }
  return format == layout::kFormatCodes2 ? 2 * value - 3 : value;
}

}  // namespace mnemo::card
