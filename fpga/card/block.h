#pragma once

// Resident blocks of the card (CardBlock of proto/layout/card.h), made from records of the wire.

#include <cstdint>
#include <span>

#include "proto/layout/card.h"

namespace mnemo::card {

// Writes the resident block of a record. `record` holds RecordBytes(format, dim), `block` at least
// CardBlockOf(format, dim).beats beats, of which all bytes are written. dim: 16 to kCardMaxDim.
void StoreCardBlock(std::span<const uint8_t> record, uint32_t format, uint32_t dim, std::span<uint8_t> block);

// Returns element i of a vector of a block, by its planes: the value of a code, of a bound or of a mean. For
// kFormatMeans, vector kPageParts is the page's own row. For tests and tools.
int32_t BlockElement(std::span<const uint8_t> block, uint32_t format, uint32_t dim, uint32_t vector,
                     uint32_t i);

}  // namespace mnemo::card
