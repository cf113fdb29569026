#pragma once

// Gathers of K and V from host memory, for every device whose rows lie there (layout::kOpGather and the
// second half of layout::kOpScoreGather). Functions from any thread; they do not block or allocate.

#include <stdint.h>

#include <span>

#include "devices/memory/record_memory.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/quantise.h"

namespace mnemo::memory_device {

// K and V of one layer slot and head.
struct HeadValues {
  std::span<const uint8_t* const> pages;  // of the index, by page: extents of ExtentKind::kValues
  uint64_t offset = 0;                    // of the page's first token in an extent
  uint64_t token_bytes = 0;

  static HeadValues Of(const ExtentLayout& at, std::span<const uint8_t* const> pages, uint32_t slot,
                       uint32_t head) {
    return {pages, at.KvOffset(slot, head, 0), at.KvTokenBytes()};
  }
};

struct GatherAnswer {
  uint16_t status = layout::kStatusOk;
  uint16_t detail = layout::kNoDetail;
};

// Where the rows of a block (position * heads + head of the descriptor) begin in an operation's result of
// `blocks` blocks.
uint64_t GatherOffset(const layout::Descriptor& descriptor, uint32_t blocks, uint32_t block,
                      const layout::IndexSpec& spec);

// Copies the rows of tokens to `out`, in the order of `ids`, which are below the tokens that `values` holds.
void GatherSelected(const HeadValues& values, std::span<const uint32_t> ids, uint8_t* out);

// A block of kOpGather. The payload's owner may change its ids at any time: they are copied once to `ids`, as
// many as the descriptor's k, and the copies are checked and used. With one of `kv_tokens` or above nothing
// is gathered, and the answer is kStatusBadPayload with the id's offset in the payload.
GatherAnswer GatherListed(const HeadValues& values, uint32_t kv_tokens, const uint8_t* payload,
                          uint32_t block, std::span<uint32_t> ids, uint8_t* out);

}  // namespace mnemo::memory_device
