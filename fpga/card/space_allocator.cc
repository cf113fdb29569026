#include "fpga/card/space_allocator.h"

#include <algorithm>
#include <iterator>

#include "devices/base/status.h"

namespace mnemo::card {
namespace {

constexpr uint64_t kSlabBeats = 1 << 14;  // 1 MiB
constexpr uint64_t kLeastPieces = 8;      // if there is room
constexpr uint64_t kMostPieces = 64;
constexpr uint64_t kRowBeats = 16;    // of a row of HBM2, 1 KiB
constexpr uint64_t kTurnBeats = 256;  // rows of all 16 banks, after which the first bank follows again
constexpr uint64_t kMostSteps = 8;
constexpr uint64_t kMostPadding = 16;  // a part of an extent

// How extents of a size lie in a slab.
struct Spread {
  uint64_t stride;  // beats from a piece to its neighbour
  uint64_t step;    // pieces from an extent to the next one
};

// The least padding, and then the smallest step, with which blocks of extents that follow each other lie in
// other banks; or what comes closest.
Spread SpreadOf(uint64_t beats, uint64_t block_beats) {
  Spread best{beats, 1};
  if (block_beats == 0 || block_beats == beats) return best;
  const uint64_t wanted = block_beats + kRowBeats - 1;  // with the rest of a row that the block shares
  uint64_t best_distance = 0;
  for (uint64_t padding = 0; padding <= beats / kMostPadding && padding < kTurnBeats; padding += kRowBeats) {
    for (uint64_t step = 1; step <= kMostSteps && best_distance < wanted; ++step) {
      const uint64_t ahead = step * (beats + padding) % kTurnBeats;
      const uint64_t distance = std::min(ahead, kTurnBeats - ahead);
      if (distance > best_distance) {
        best = {beats + padding, step};
        best_distance = distance;
      }
    }
  }
  return best;
}

}  // namespace

SpaceAllocator::SpaceAllocator(uint64_t begin, uint64_t end) : free_(end - begin) {
  MNEMO_CHECK(begin <= end);
  if (begin < end) ranges_[begin] = end - begin;
}

std::optional<uint64_t> SpaceAllocator::Allocate(uint64_t count) {
  MNEMO_CHECK(count > 0);
  const auto range =
      std::find_if(ranges_.begin(), ranges_.end(), [=](const auto& one) { return one.second >= count; });
  if (range == ranges_.end()) return std::nullopt;
  const auto [at, length] = *range;
  ranges_.erase(range);
  if (length > count) ranges_[at + count] = length - count;
  free_ -= count;
  return at;
}

void SpaceAllocator::Release(uint64_t at, uint64_t count) {
  free_ += count;
  auto next = ranges_.lower_bound(at);
  MNEMO_CHECK(next == ranges_.end() || at + count <= next->first);
  if (next != ranges_.end() && next->first == at + count) {
    count += next->second;
    next = ranges_.erase(next);
  }
  if (next != ranges_.begin()) {
    const auto before = std::prev(next);
    MNEMO_CHECK(before->first + before->second <= at);
    if (before->first + before->second == at) {
      before->second += count;
      return;
    }
  }
  ranges_[at] = count;
}

bool ChannelExtents::AddSlab(uint64_t beats, uint64_t block_beats) {
  const auto [stride, step] = SpreadOf(beats, block_beats);
  for (uint64_t pieces = std::clamp<uint64_t>(kSlabBeats / beats, kLeastPieces, kMostPieces); pieces > 0;
       pieces /= 2) {
    const uint64_t length = (pieces - 1) * stride + beats;
    const std::optional<uint64_t> at = space_.Allocate(length);
    if (!at.has_value()) continue;
    Slab slab{beats, stride, pieces, length, {}};
    for (uint64_t first = 0; first < std::min(step, pieces); ++first) {
      for (uint64_t n = first; n < pieces; n += step) slab.spare.push_back(*at + n * stride);
    }
    std::reverse(slab.spare.begin(), slab.spare.end());  // taken from the end
    slabs_[*at] = std::move(slab);
    with_spare_[beats].insert(*at);
    return true;
  }
  return false;
}

std::optional<uint64_t> ChannelExtents::Allocate(uint64_t beats, uint64_t block_beats) {
  MNEMO_CHECK(beats > 0);
  if (with_spare_[beats].empty() && !AddSlab(beats, block_beats)) return std::nullopt;
  std::set<uint64_t>& with_spare = with_spare_[beats];
  Slab& slab = slabs_.at(*with_spare.begin());
  const uint64_t at = slab.spare.back();
  slab.spare.pop_back();
  if (slab.spare.empty()) with_spare.erase(with_spare.begin());
  used_ += beats;
  return at;
}

void ChannelExtents::Release(uint64_t at) {
  auto found = slabs_.upper_bound(at);
  MNEMO_CHECK(found != slabs_.begin());
  --found;
  const uint64_t start = found->first;
  Slab& slab = found->second;
  MNEMO_CHECK(at < start + slab.length && (at - start) % slab.stride == 0);
  used_ -= slab.beats;
  slab.spare.push_back(at);
  std::set<uint64_t>& with_spare = with_spare_[slab.beats];
  with_spare.insert(start);
  if (slab.spare.size() < slab.pieces) return;
  with_spare.erase(start);
  space_.Release(start, slab.length);
  slabs_.erase(found);
}

std::optional<uint64_t> FifoSpace::PlaceFor(uint64_t bytes) const {
  if (pieces_.empty()) return bytes <= bytes_ ? std::optional<uint64_t>(0) : std::nullopt;
  const uint64_t begin = pieces_.front().at;
  const uint64_t end = pieces_.back().at + pieces_.back().bytes;
  if (pieces_.back().at < begin) return bytes <= begin - end ? std::optional(end) : std::nullopt;
  if (bytes <= bytes_ - end) return end;
  return bytes <= begin ? std::optional<uint64_t>(0) : std::nullopt;
}

uint64_t FifoSpace::Allocate(uint64_t bytes) {
  if (bytes == 0) return 0;
  const std::optional<uint64_t> at = PlaceFor(bytes);
  MNEMO_CHECK(at.has_value());
  pieces_.push_back({*at, bytes});
  return *at;
}

void FifoSpace::Release(uint64_t bytes) {
  if (bytes == 0) return;
  MNEMO_CHECK(!pieces_.empty() && pieces_.front().bytes == bytes);
  pieces_.pop_front();
}

}  // namespace mnemo::card
