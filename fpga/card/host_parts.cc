#include "fpga/card/host_parts.h"

#include <algorithm>
#include <bit>

#include "proto/layout/card.h"
#include "proto/layout/payload.h"
#include "proto/layout/ring.h"

namespace mnemo::card {
namespace {

constexpr uint64_t kBytesOfIndex = 16384;  // of host memory for each index of the table
constexpr uint32_t kLeastIndexes = 16;
constexpr uint32_t kMostIndexes = 1 << 16;
constexpr uint64_t kTokensOfIndex = 4 * 64;  // 64 layer slots; an index with more takes more of the area
constexpr uint32_t kLongestRing = 1 << 16;
// Results of k ids are larger than the queries that they answer.
constexpr uint64_t kPayloadShare = 4;

}  // namespace

absl::StatusOr<HostParts> PartHostMemory(uint64_t bytes, const HostNeeds& needs) {
  if (needs.operations < 1 || needs.operations > kLongestRing) {
    return InvalidArgument("max_operations: {}; allowed are 1 to {}", needs.operations, kLongestRing);
  }
  HostParts parts;
  parts.slots = std::bit_ceil(needs.operations);
  parts.indexes =
      static_cast<uint32_t>(std::clamp<uint64_t>(bytes / kBytesOfIndex, kLeastIndexes, kMostIndexes));
  parts.tokens_bytes = parts.indexes * kTokensOfIndex;
  const uint64_t ring_bytes = sizeof(layout::RingHeader) + uint64_t{parts.slots} * layout::kUnitBytes;
  parts.completions = ring_bytes;
  parts.table = parts.completions + ring_bytes;
  parts.tokens = parts.table + uint64_t{parts.indexes} * sizeof(layout::CardIndex);
  parts.payloads = parts.tokens + parts.tokens_bytes;
  parts.direct_bytes = layout::PadToUnit(needs.direct_bytes);
  const uint64_t least = parts.payloads + needs.payload_block + needs.result_block + parts.direct_bytes;
  if (bytes < least) {
    return InvalidArgument(
        "host memory of the card: {} bytes; {} operations under way{} need {}", bytes, needs.operations,
        needs.direct_bytes == 0 ? "" : fmt::format(" and {} bytes for direct queues", needs.direct_bytes),
        least);
  }
  const uint64_t rest = bytes - least;
  const auto units = [](uint64_t of) { return of / layout::kUnitBytes * layout::kUnitBytes; };
  parts.payload_bytes = layout::PadToUnit(needs.payload_block) + units(rest / kPayloadShare);
  parts.results = parts.payloads + parts.payload_bytes;
  parts.result_bytes = units(bytes - parts.direct_bytes - parts.results);
  parts.direct = parts.results + parts.result_bytes;
  return parts;
}

}  // namespace mnemo::card
