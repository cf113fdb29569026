#pragma once

// Allocators of ranges of numbers: the memory itself may be one that the host cannot touch. Not thread-safe.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace mnemo::card {

// Ranges of [begin, end), first fit; free neighbours become one.
class SpaceAllocator {
 public:
  SpaceAllocator(uint64_t begin, uint64_t end);

  // Start of `count` numbers, at least 1; none when no free range is as long.
  std::optional<uint64_t> Allocate(uint64_t count);
  // A range as it was allocated.
  void Release(uint64_t at, uint64_t count);
  uint64_t free() const { return free_; }

 private:
  std::map<uint64_t, uint64_t> ranges_;  // free ones: start, length
  uint64_t free_ = 0;
};

// Extents in the beats of one channel: pieces of one size come from slabs of their own, so that indexes of
// different shapes do not cut the channel to pieces.
class ChannelExtents {
 public:
  ChannelExtents(uint64_t begin, uint64_t end) : space_(begin, end) {}

  // Start of an extent; none when there is no room. A scan reads `block_beats` of each extent, in the order
  // of allocation; neighbours in a slab would open rows of the same bank too soon. So extents that follow
  // each other are some pieces apart. 0: a scan reads whole extents.
  std::optional<uint64_t> Allocate(uint64_t beats, uint64_t block_beats = 0);
  void Release(uint64_t at);
  // Beats in extents.
  uint64_t used() const { return used_; }
  // Beats that no slab has.
  uint64_t free() const { return space_.free(); }

 private:
  struct Slab {
    uint64_t beats;               // of an extent
    uint64_t stride;              // from one to its neighbour
    uint64_t pieces;              // in all
    uint64_t length;              // beats
    std::vector<uint64_t> spare;  // starts of free pieces
  };
  // Makes a slab of as many pieces as there is room for. Returns false when there is none for one.
  bool AddSlab(uint64_t beats, uint64_t block_beats);

  SpaceAllocator space_;
  std::map<uint64_t, Slab> slabs_;                     // by start
  std::map<uint64_t, std::set<uint64_t>> with_spare_;  // starts of slabs, by the size of their pieces
  uint64_t used_ = 0;
};

// A circular area whose pieces are given back in the order in which they were taken.
class FifoSpace {
 public:
  explicit FifoSpace(uint64_t bytes) : bytes_(bytes) {}

  uint64_t bytes() const { return bytes_; }
  // Whether there is a contiguous piece.
  bool HasRoom(uint64_t bytes) const { return bytes == 0 || PlaceFor(bytes).has_value(); }
  // Offset of a piece that there is room for. 0 bytes take none.
  uint64_t Allocate(uint64_t bytes);
  // The oldest piece, with its size.
  void Release(uint64_t bytes);

 private:
  struct Piece {
    uint64_t at;
    uint64_t bytes;
  };
  std::optional<uint64_t> PlaceFor(uint64_t bytes) const;

  uint64_t bytes_;
  std::deque<Piece> pieces_;  // oldest first
};

}  // namespace mnemo::card
