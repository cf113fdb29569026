#pragma once

// The units of the command processor (fpga/rtl/command) that decide: the check of a descriptor, and the jobs
// that it becomes.

#include <array>
#include <cstdint>
#include <vector>

#include "fpga/card/model/jobs.h"
#include "proto/layout/card.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/validate.h"

namespace mnemo::card::model {

// Registers of a queue by their offset.
class QueueRegisters {
 public:
  uint32_t& At(uint32_t offset) { return words_[offset / 4]; }
  uint32_t At(uint32_t offset) const { return words_[offset / 4]; }
  uint64_t Pair(uint32_t offset) const { return uint64_t{At(offset + 4)} << 32 | At(offset); }

 private:
  std::array<uint32_t, layout::kCardQueueBytes / 4> words_{};
};

// The operations that the card's registers tell.
constexpr uint32_t kServedScoreOps =
    1U << layout::kScoreDot | 1U << layout::kScoreReluDot | 1U << layout::kScorePageBound |
    1U << layout::kScoreBlockMean | 1U << (8 + layout::kGroupNone) | 1U << (8 + layout::kGroupMax) |
    1U << (8 + layout::kGroupExp2Sum) | 1U << (8 + layout::kGroupPlainMax) |
    1U << (16 + layout::kSelectTopK) | 1U << (16 + layout::kSelectThreshold) |
    1U << (16 + layout::kSelectWeightedSum) | 1U << (16 + layout::kSelectLatest) | 1U << 24;
constexpr uint32_t kServedFormats = 1U << layout::kFormatCodes2 | 1U << layout::kFormatCodes4 |
                                    1U << layout::kFormatCodes8 | 1U << layout::kFormatBounds |
                                    1U << layout::kFormatMeans;
constexpr uint32_t kServedDims = 0x1F0;  // 16 to 256
constexpr uint32_t kMostEntries = 16384;
constexpr uint32_t kMostPasses = 16;
// Where a scan ends at most: its pages have numbers of 24 bits, to which the index's shift is added.
constexpr uint32_t kMostTokens = ((1U << 24) - layout::kCardMaxChannels) * layout::kPageTokens;

// Returns the largest group of a card: 64 queries in at most 16 passes.
uint32_t MaxGroup(const Shape& shape);

// Decides as layout::Validate with the queue's registers as limits, then by the card's own bounds in this
// order: op, flags (order by rank), select_op, score_op, group_op, group, dim (as index_id), k, and of a long
// scan k1, group, k again; length and end of the scan (as end).
layout::Verdict CheckDescriptor(const layout::Descriptor& descriptor, const QueueRegisters& queue,
                                uint32_t next_seq, const layout::CardIndex& index, uint32_t tokens,
                                const Shape& shape);

// Whether a bank holds fewer scores than a scan by the largest terms has: two jobs, by the largest scores of
// pages, with a first stage on signs four.
bool LongScan(const layout::Descriptor& descriptor, const Shape& shape);

// kFirst, kSecond: of a cascade. kMaxima, kPages: of a long scan, the largest score of each page, then the k
// best pages. kFirstMaxima, kFirstPages: the same by signs; then kMeasured, for the largest scores of the
// listed entries, and kListed. kLargest, kRanked: with a bound and without a first stage, the largest scores,
// then the ranks of all entries.
enum class Stage {
  kOnly,
  kFirst,
  kSecond,
  kMaxima,
  kPages,
  kFirstMaxima,
  kFirstPages,
  kMeasured,
  kListed,
  kLargest,
  kRanked
};

// The jobs of a position and head, in their order.
std::vector<Stage> StagesOf(const layout::Descriptor& descriptor, const Shape& shape);

// job_sequencer. The descriptor has passed the check; `head` is the index's.
ScanJob ScanJobOf(const layout::Descriptor& descriptor, const layout::CardIndex& index, const Shape& shape,
                  uint32_t head, Stage stage);
SelectJob SelectJobOf(const layout::Descriptor& descriptor, const layout::CardIndex& index, Stage stage);

// Elements of a head that one scan of a weighted sum gives, a query each.
uint32_t SumDims(const Shape& shape, uint32_t dim);
// The values of elements for a weighted sum, of one part: y by unit queries is layout::AlignedValue, when
// their shift has the largest octave of the scan.
ScanJob ValueJobOf(const layout::Descriptor& descriptor, const layout::CardIndex& index, const Shape& shape,
                   uint32_t head, Part part);

// latest_source: a block of kSelectLatest, which needs no job.
Hits LatestEntries(const layout::Descriptor& descriptor);

}  // namespace mnemo::card::model
