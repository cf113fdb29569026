#include "fpga/card/space_allocator.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "devices/base/status.h"

namespace mnemo::card {
namespace {

constexpr uint64_t kSlabBeats = 1 << 14;  // 1 MiB
constexpr uint64_t kMostPieces = 64;

// A channel of HBM has 16 banks, and 1 KiB of each lies in a row: banks repeat every 16 KiB.
constexpr uint64_t kBankBeats = 16;
constexpr uint64_t kTurnBeats = 16 * kBankBeats;
// A block that begins so far into the turn behind its predecessor's begin does not begin in its last bank.
constexpr uint64_t kFarBeats = kTurnBeats / 2;
constexpr uint64_t kPaddingShare = 32;

// The order of a slab's pieces: piece n of it is n * step modulo their number, `pitch` beats apart.
struct Order {
  uint64_t pitch;
  uint64_t step;
};

// Consecutive pages of an index follow one another in this order, and a scan reads a short block of each. One
// that begins in the bank in which the last ended, in another row, waits until that row is closed. Pieces of
// less than half a turn lie in a row.
Order OrderOf(uint64_t beats, uint64_t pieces) {
  Order best{beats, 1};
  if (beats <= kFarBeats) return best;
  uint64_t farthest = 0;
  for (uint64_t pitch = beats; pitch <= beats + beats / kPaddingShare; ++pitch) {
    for (uint64_t step = 1; step == 1 || step < pieces; ++step) {
      if (std::gcd(step, pieces) != 1) continue;
      // A step within the slab, and one that wraps around its end; a slab of one piece has another behind it.
      const uint64_t on = step * pitch % kTurnBeats;
      const uint64_t back = (kTurnBeats - (pieces - step) * pitch % kTurnBeats) % kTurnBeats;
      const uint64_t least = pieces == 1 ? on : std::min(on, back);
      if (least <= farthest) continue;
      farthest = least;
      best = {pitch, step};
      if (farthest >= kFarBeats) return best;
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

bool ChannelExtents::AddSlab(uint64_t beats) {
  for (uint64_t pieces = std::clamp<uint64_t>(kSlabBeats / beats, 1, kMostPieces); pieces > 0; pieces /= 2) {
    const Order order = OrderOf(beats, pieces);
    const std::optional<uint64_t> at = space_.Allocate(pieces * order.pitch);
    if (!at.has_value()) continue;
    Slab slab{beats, order.pitch, pieces, {}};
    for (uint64_t n = pieces; n-- > 0;) slab.spare.push_back(*at + n * order.step % pieces * order.pitch);
    slabs_[*at] = std::move(slab);
    with_spare_[beats].insert(*at);
    return true;
  }
  return false;
}

std::optional<uint64_t> ChannelExtents::Allocate(uint64_t beats) {
  MNEMO_CHECK(beats > 0);
  if (with_spare_[beats].empty() && !AddSlab(beats)) return std::nullopt;
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
  const uint64_t beats = slab.piece;
  MNEMO_CHECK(at < start + slab.pitch * slab.pieces && (at - start) % slab.pitch == 0);
  used_ -= beats;
  slab.spare.push_back(at);
  with_spare_[beats].insert(start);
  if (slab.spare.size() < slab.pieces) return;
  with_spare_[beats].erase(start);
  space_.Release(start, slab.pitch * slab.pieces);
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
