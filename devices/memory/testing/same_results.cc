#include "devices/memory/testing/same_results.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "proto/layout/payload.h"

namespace mnemo::memory_device::testing {

bool SameResults(const layout::Descriptor& d, uint32_t dim, std::span<const uint8_t> results,
                 std::span<const uint8_t> expected) {
  if (results.size() != expected.size()) return false;
  if (d.select_op == layout::kSelectWeightedSum) return std::ranges::equal(results, expected);
  const bool ranks = (d.flags & layout::kFlagRanks) != 0 && d.select_op != layout::kSelectLatest;
  const size_t block = layout::ResultBlockBytes(d.select_op, d.flags, d.k, dim);
  for (size_t at = 0; at < expected.size(); at += block) {
    const uint8_t* const wanted = expected.data() + at;
    const uint8_t* const got = results.data() + at;
    layout::ResultHeader header;
    std::memcpy(&header, wanted, sizeof header);
    const size_t ids = size_t{header.count} * sizeof(uint32_t);
    if (std::memcmp(got, wanted, sizeof header + ids) != 0) return false;
    const uint64_t ranks_at = layout::RanksOffset(d.k);
    if (ranks && std::memcmp(got + ranks_at, wanted + ranks_at, ids) != 0) return false;
  }
  return true;
}

}  // namespace mnemo::memory_device::testing
