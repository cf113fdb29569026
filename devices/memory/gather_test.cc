#include "devices/memory/gather.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "proto/layout/payload.h"

namespace mnemo::memory_device {
namespace {

using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kSlots = 2;
constexpr uint32_t kHeads = 3;
constexpr uint32_t kDim = 16;
constexpr uint32_t kPages = 4;

// Extents whose every row tells its page, slot, head and token.
struct Extents {
  Extents() {
    at.spec.layer_slots = kSlots;
    at.spec.heads = kHeads;
    at.spec.dim = kDim;
    at.spec.kv_format = layout::kFormatF16;
    for (uint32_t page = 0; page < kPages; ++page) {
      std::vector<uint8_t>& extent = bytes.emplace_back(at.ValueBytes());
      uint32_t row = 0;
      for (uint64_t offset = 0; offset < extent.size(); offset += at.KvTokenBytes(), ++row) {
        const std::vector<uint8_t> value = Row(page, row / kPageTokens, row % kPageTokens);
        std::memcpy(extent.data() + offset, value.data(), value.size());
      }
      pages.push_back(extent.data());
    }
  }
  // column: slot * heads + head.
  std::vector<uint8_t> Row(uint32_t page, uint32_t column, uint32_t token) const {
    std::vector<uint8_t> row(at.KvTokenBytes());
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = static_cast<uint8_t>(page * 97 + column * 31 + token * 7 + i * 3);
    }
    return row;
  }
  std::vector<uint8_t> Rows(uint32_t column, const std::vector<uint32_t>& ids) const {
    std::vector<uint8_t> rows;
    for (const uint32_t id : ids) {
      const std::vector<uint8_t> row = Row(id / kPageTokens, column, id % kPageTokens);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
  }

  ExtentLayout at;
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<const uint8_t*> pages;
};

TEST_CASE("a gather copies the rows of its slot and head in the order of the ids") {
  const Extents extents;
  const std::vector<uint32_t> ids = {255, 0, 64, 63, 64, 128, 1};
  for (uint32_t column = 0; column < kSlots * kHeads; ++column) {
    const HeadValues values = HeadValues::Of(extents.at, extents.pages, column / kHeads, column % kHeads);
    std::vector<uint8_t> out(ids.size() * extents.at.KvTokenBytes() + 1, 0x5A);
    GatherSelected(values, ids, out.data());
    CHECK(out.back() == 0x5A);
    out.pop_back();
    CHECK(out == extents.Rows(column, ids));
  }
}

TEST_CASE("listed ids are those of the block, and checked before a row is copied") {
  const Extents extents;
  const HeadValues values = HeadValues::Of(extents.at, extents.pages, 1, 2);
  const std::vector<uint32_t> payload = {9, 9, 9, 70, 3, 199, 200, 0, 400};  // three blocks of k 3
  const auto* bytes = reinterpret_cast<const uint8_t*>(payload.data());
  std::vector<uint32_t> ids(3);
  std::vector<uint8_t> out(3 * extents.at.KvTokenBytes(), 0x5A);
  const GatherAnswer good = GatherListed(values, 200, bytes, 1, ids, out.data());
  CHECK(good.status == layout::kStatusOk);
  CHECK(good.detail == layout::kNoDetail);
  CHECK(ids == std::vector<uint32_t>{70, 3, 199});
  CHECK(out == extents.Rows(1 * kHeads + 2, ids));

  const std::vector<uint8_t> before = out;
  const GatherAnswer bad = GatherListed(values, 200, bytes, 2, ids, out.data());
  CHECK(bad.status == layout::kStatusBadPayload);
  CHECK(bad.detail == 6 * sizeof(uint32_t));
  CHECK(out == before);

  // Offsets that a completion cannot tell end at kNoDetail.
  std::vector<uint32_t> far(size_t{3} * 6000, 0);
  far.back() = 200;
  const GatherAnswer beyond =
      GatherListed(values, 200, reinterpret_cast<const uint8_t*>(far.data()), 5999, ids, out.data());
  CHECK(beyond.status == layout::kStatusBadPayload);
  CHECK(beyond.detail == layout::kNoDetail);
}

TEST_CASE("rows lie behind the selections of a score and gather") {
  const Extents extents;
  Descriptor d{};
  d.op = layout::kOpGather;
  d.k = 5;
  const uint64_t rows = 5 * extents.at.KvTokenBytes();
  CHECK(GatherOffset(d, 6, 0, extents.at.spec) == 0);
  CHECK(GatherOffset(d, 6, 4, extents.at.spec) == 4 * rows);
  d.op = layout::kOpScoreGather;
  d.select_op = layout::kSelectTopK;
  d.flags = layout::kFlagRanks;
  CHECK(GatherOffset(d, 6, 4, extents.at.spec) ==
        6 * layout::ResultBlockBytes(d.select_op, d.flags, d.k, kDim) + 4 * rows);
}

}  // namespace
}  // namespace mnemo::memory_device
