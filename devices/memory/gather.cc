#include "devices/memory/gather.h"

#include <algorithm>
#include <cstring>

#include "proto/layout/payload.h"

namespace mnemo::memory_device {

uint64_t GatherOffset(const layout::Descriptor& descriptor, uint32_t blocks, uint32_t block,
                      const layout::IndexSpec& spec) {
  const uint64_t rows = uint64_t{block} * descriptor.k * layout::KvTokenBytes(spec.kv_format, spec.dim);
  if (descriptor.op != layout::kOpScoreGather) return rows;
  return rows + uint64_t{blocks} *
                    layout::ResultBlockBytes(descriptor.select_op, descriptor.flags, descriptor.k, spec.dim);
}

void GatherSelected(const HeadValues& values, std::span<const uint32_t> ids, uint8_t* out) {
  for (const uint32_t id : ids) {
    const uint8_t* const page = values.pages[id / layout::kPageTokens] + values.offset;
    std::memcpy(out, page + id % layout::kPageTokens * values.token_bytes, values.token_bytes);
    out += values.token_bytes;
  }
}

GatherAnswer GatherListed(const HeadValues& values, uint32_t kv_tokens, const uint8_t* payload,
                          uint32_t block, std::span<uint32_t> ids, uint8_t* out) {
  const uint64_t offset = uint64_t{block} * ids.size_bytes();
  std::memcpy(ids.data(), payload + offset, ids.size_bytes());
  const auto bad = std::find_if(ids.begin(), ids.end(), [=](uint32_t id) { return id >= kv_tokens; });
  if (bad != ids.end()) {
    const uint64_t at = offset + static_cast<uint64_t>(bad - ids.begin()) * sizeof(uint32_t);
    return {layout::kStatusBadPayload, static_cast<uint16_t>(std::min<uint64_t>(at, layout::kNoDetail))};
  }
  GatherSelected(values, ids, out);
  return {};
}

}  // namespace mnemo::memory_device
