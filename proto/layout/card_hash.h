#pragma once

// The hash of what host and card agree on beyond the wire layout (card.h). A register of the card tells it,
// and the driver compares it. The compiler computes it from the definitions, so a change cannot be missed.

#include <stdint.h>

#include <string_view>

#include "proto/layout/card.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::layout {

constexpr uint64_t CardHash() {
  Fnv hash;
#define MNEMO_FIELD_TEXT(type, name, at) #name " " #type " " #at ";"
  hash.Add(std::string_view("CardIndex:" MNEMO_CARD_INDEX_FIELDS(MNEMO_FIELD_TEXT)));
#undef MNEMO_FIELD_TEXT
#define MNEMO_HASH_NUMBER(name)      \
  hash.Add(std::string_view(#name)); \
  hash.Add(static_cast<uint64_t>(int64_t{name}));
  MNEMO_CARD_CONSTANTS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_REGISTERS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_CONTROLS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_STATES(MNEMO_HASH_NUMBER)
  MNEMO_CARD_FAILURES(MNEMO_HASH_NUMBER)
  MNEMO_CARD_INTERRUPTS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_QUEUE_REGISTERS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_QUEUE_BITS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_COUNTERS(MNEMO_HASH_NUMBER)
  MNEMO_CARD_LANE_COUNTERS(MNEMO_HASH_NUMBER)
#undef MNEMO_HASH_NUMBER
  for (const uint32_t format : {kFormatCodes2, kFormatCodes4, kFormatCodes8, kFormatBounds, kFormatMeans}) {
    for (uint32_t dim = kMinDim; dim <= kCardMaxDim; dim *= 2) {
      const CardBlock block = CardBlockOf(format, dim);
      for (const uint64_t number :
           {block.dim, block.vector_elements, block.vectors, block.planes, block.plane_beats, block.base,
            block.first, block.scales, block.further, block.page_row, block.beats}) {
        hash.Add(number);
      }
    }
  }
  return hash.value();
}

inline constexpr uint64_t kCardHash = CardHash();

}  // namespace mnemo::layout
