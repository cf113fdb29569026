#include "fpga/card/model/command_model.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <numeric>

#include "proto/layout/layout_hash.h"
#include "proto/layout/numerics.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"

namespace mnemo::card::model {
namespace {

using layout::CardBlock;
using layout::CardIndex;
using layout::Descriptor;
using layout::Verdict;

layout::IndexInfo InfoOf(const CardIndex& index, uint32_t tokens) {
  return {.exists = index.exists == 1,
          .generation = index.generation,
          .layer_slots = index.layer_slots,
          .heads = index.heads,
          .dim = index.dim,
          .record_format = index.record_format,
          .kv_format = index.kv_format,
          .max_tokens = index.max_tokens,
          .tokens = tokens,
          .kv_tokens = 0};
}

layout::Limits LimitsOf(const QueueRegisters& queue, uint32_t next_seq) {
  layout::Limits limits;
  limits.granted.epoch = static_cast<uint16_t>(queue.At(layout::kCardQueueRegions) >> 16);
  limits.granted.ops = queue.At(layout::kCardQueueOps);
  limits.granted.formats = queue.At(layout::kCardQueueFormats);
  const uint32_t score_ops = queue.At(layout::kCardQueueScoreOps);
  limits.granted.score_ops = static_cast<uint8_t>(score_ops);
  limits.granted.group_ops = static_cast<uint8_t>(score_ops >> 8);
  limits.granted.select_ops = static_cast<uint8_t>(score_ops >> 16);
  limits.granted.cascade = static_cast<uint8_t>(score_ops >> 24 & 1);
  limits.granted.max_group = static_cast<uint16_t>(queue.At(layout::kCardQueueMaxGroup));
  limits.granted.max_queries = static_cast<uint16_t>(queue.At(layout::kCardQueueMaxGroup) >> 16);
  limits.granted.max_k = queue.At(layout::kCardQueueMaxK);
  limits.granted.max_indexes = queue.At(layout::kCardQueueIndexes);
  limits.ring_kind = layout::kRingQuery;
  limits.next_seq = next_seq;
  return limits;
}

Verdict Unsupported(size_t field) { return {layout::kStatusUnsupported, static_cast<uint16_t>(field)}; }

constexpr uint32_t kWordsOfPage = 8;  // of codes, in a pass
constexpr uint32_t kPagesOfWord = 8;  // of a scan's maxima

// Pages of a scan that the fullest lane has.
uint64_t PagesOfLane(const Descriptor& d, const Shape& shape) {
  if (d.begin == d.end) {
    return 0;
  }
  const uint32_t pages = (d.end - 1) / layout::kPageTokens - d.begin / layout::kPageTokens + 1;
  return (uint64_t{pages} + shape.channels - 1) / shape.channels;
}

bool IsBounded(const Descriptor& d) { return d.select_op == layout::kSelectThreshold; }
bool IsRelu(const Descriptor& d) { return d.score_op == layout::kScoreReluDot; }

// Passes whose scores are stored: ranks of weighted ReLU are stored once.
uint32_t PassesOf(const Descriptor& d, const Shape& shape) {
  return IsRelu(d) ? 1 : (d.group + shape.queries - 1) / shape.queries;
}

// Words of a bank that a page and pass takes. Ranks of weighted ReLU take half of those of codes.
uint32_t WordsOfPage(const Descriptor& d) {
  return !layout::IsCodeFormat(d.format) ? 1 : IsRelu(d) ? kWordsOfPage / 2 : kWordsOfPage;
}

// Words of a bank that the fullest lane's scores of a scan take.
uint64_t BankWords(const Descriptor& d, const Shape& shape) {
  return PagesOfLane(d, shape) * WordsOfPage(d) * PassesOf(d, shape);
}

// Pages of a lane whose ranks fit a bank, and that a list has room for.
uint64_t PagesOfList(const Shape& shape) {
  return uint64_t{shape.bank_words} * std::min(shape.queries, 4U) / kWordsOfPage;
}

// A lane may have all of the k (with a first stage k1) best pages: their ranks fit a bank, and they fit its
// list. Scores of two pages fit a bank, so that one is ranked while the next one comes.
Verdict CheckLongScan(const Descriptor& d, const Shape& shape) {
  const uint64_t page_words = uint64_t{WordsOfPage(d)} * PassesOf(d, shape);
  const uint64_t listed = std::min<uint64_t>(d.k1 != 0 ? d.k1 : d.k, PagesOfLane(d, shape));
  const bool full = listed > PagesOfList(shape);
  if (full && d.k1 != 0) return Unsupported(offsetof(Descriptor, k1));
  if (2 * page_words > shape.bank_words) return Unsupported(offsetof(Descriptor, group));
  // With a bound and without a first stage all pages are ranked.
  const bool ranked = IsBounded(d) && d.k1 == 0;
  if (full && !ranked) return Unsupported(offsetof(Descriptor, k));
  if (ranked && PagesOfLane(d, shape) > PagesOfList(shape)) return Unsupported(offsetof(Descriptor, end));
  const uint64_t words = (PagesOfLane(d, shape) + kPagesOfWord - 1) / kPagesOfWord * PassesOf(d, shape);
  return words > shape.bank_words ? Unsupported(offsetof(Descriptor, end)) : Verdict{};
}

Verdict CheckServed(const Descriptor& d, const CardIndex& index, const Shape& shape) {
  const auto served = [](uint32_t bit) { return (kServedScoreOps >> bit & 1) != 0; };
  if (d.op != layout::kOpScoreSelect) return Unsupported(offsetof(Descriptor, op));
  if ((d.flags & layout::kFlagByRank) != 0) return Unsupported(offsetof(Descriptor, flags));
  if (!served(16U + d.select_op)) return Unsupported(offsetof(Descriptor, select_op));
  const bool latest = d.select_op == layout::kSelectLatest;
  if (!latest && !served(d.score_op)) return Unsupported(offsetof(Descriptor, score_op));
  if (!served(8U + d.group_op)) return Unsupported(offsetof(Descriptor, group_op));
  if (d.group > MaxGroup(shape)) return Unsupported(offsetof(Descriptor, group));
  if (index.dim < layout::kMinDim || index.dim > layout::kCardMaxDim || !std::has_single_bit(index.dim)) {
    return Unsupported(offsetof(Descriptor, index_id));
  }
  if (d.k > kMostEntries) return Unsupported(offsetof(Descriptor, k));
  if (LongScan(d, shape)) {
    const Verdict verdict = CheckLongScan(d, shape);
    if (verdict.status != layout::kStatusOk) return verdict;
  } else if (!latest && BankWords(d, shape) > 2 * uint64_t{shape.bank_words}) {
    return Unsupported(offsetof(Descriptor, end));  // both banks have the scores of one scan
  }
  return !latest && d.end > kMostTokens ? Unsupported(offsetof(Descriptor, end)) : Verdict{};
}

bool OnSigns(Stage stage) {
  return stage == Stage::kFirst || stage == Stage::kFirstMaxima || stage == Stage::kFirstPages;
}

bool WholePages(const Descriptor& d) { return (d.flags & layout::kFlagPages64) != 0; }

// The pages and entries of the descriptor's range.
void SetRange(const Descriptor& d, const CardIndex& index, ScanJob* job) {
  job->none = d.begin == d.end;
  if (job->none) {
    return;
  }
  const uint32_t entry_tokens = layout::EntryTokens(d.format, d.flags);
  job->first_page = d.begin / layout::kPageTokens + index.shift;
  job->last_page = (d.end - 1) / layout::kPageTokens + index.shift;
  job->skip = d.begin % layout::kPageTokens / entry_tokens;
  job->last_entry = (d.end - 1) % layout::kPageTokens / entry_tokens;
}

// The beats of a block that the job reads.
void SetBeats(const CardBlock& block, ScanJob* job) {
  job->first_beats = block.beats;
  if (job->sign_stage) {
    job->first_beats = block.scales;
  } else if (job->kind == Kind::kMeans && block.page_row != block.beats) {
    job->first_beats = job->page_row ? 1 : block.page_row;
    job->second_at = job->page_row ? block.page_row : 0;
    job->second_beats = job->page_row ? block.planes : 0;
  }
}

}  // namespace

uint32_t MaxGroup(const Shape& shape) {
  return std::min(static_cast<uint32_t>(layout::kMaxGroup), kMostPasses * shape.queries);
}

bool LongScan(const Descriptor& descriptor, const Shape& shape) {
  // The rank of a page is the largest one of its entries.
  const bool by_pages =
      !IsRelu(descriptor) && (descriptor.select_op == layout::kSelectTopK || IsBounded(descriptor)) &&
      (descriptor.group_op == layout::kGroupMax || descriptor.group_op == layout::kGroupPlainMax);
  return by_pages && BankWords(descriptor, shape) > shape.bank_words;
}

std::vector<Stage> StagesOf(const Descriptor& descriptor, const Shape& shape) {
  if (LongScan(descriptor, shape)) {
    if (descriptor.k1 == 0 && IsBounded(descriptor)) return {Stage::kLargest, Stage::kRanked};
    if (descriptor.k1 == 0) return {Stage::kMaxima, Stage::kPages};
    return {Stage::kFirstMaxima, Stage::kFirstPages, Stage::kMeasured, Stage::kListed};
  }
  if (descriptor.k1 != 0) return {Stage::kFirst, Stage::kSecond};
  return {Stage::kOnly};
}

Verdict CheckDescriptor(const Descriptor& descriptor, const QueueRegisters& queue, uint32_t next_seq,
                        const CardIndex& index, uint32_t tokens, const Shape& shape) {
  std::array<uint64_t, layout::kCardMaxRegions> region_bytes = {
      uint64_t{queue.At(layout::kCardQueueLength0)} * layout::kUnitBytes,
      uint64_t{queue.At(layout::kCardQueueLength1)} * layout::kUnitBytes};
  layout::Limits limits = LimitsOf(queue, next_seq);
  const uint32_t regions = queue.At(layout::kCardQueueRegions) & 0xFFFF;
  limits.region_bytes = std::span(region_bytes).first(std::min<size_t>(regions, region_bytes.size()));
  const Verdict verdict = layout::Validate(descriptor, limits, InfoOf(index, tokens), {});
  return verdict.status == layout::kStatusOk ? CheckServed(descriptor, index, shape) : verdict;
}

ScanJob ScanJobOf(const Descriptor& descriptor, const CardIndex& index, const Shape& shape, uint32_t head,
                  Stage stage) {
  const uint32_t format = descriptor.format;
  const uint32_t dim = index.dim;
  const CardBlock block = layout::CardBlockOf(format, dim);
  ScanJob job;
  job.kind = format == layout::kFormatBounds  ? Kind::kBounds
             : format == layout::kFormatMeans ? Kind::kMeans
                                              : Kind::kCodes;
  job.sign_stage = OnSigns(stage);
  job.two_bit = format == layout::kFormatCodes2 && !job.sign_stage;
  job.page_row = job.kind == Kind::kMeans && WholePages(descriptor);
  job.fold = job.kind == Kind::kBounds && WholePages(descriptor);
  job.vector_log2 = static_cast<uint32_t>(std::bit_width(block.vector_elements)) - 1;
  job.planes = job.sign_stage ? 1 : block.planes;
  const int32_t code_max = job.kind != Kind::kCodes ? 127 : job.sign_stage ? 1 : layout::CodeMax(format);
  job.code_shift = static_cast<uint32_t>(layout::DotShift(code_max, dim));
  job.base_shift = static_cast<uint32_t>(layout::DotShift(127, dim));
  job.group = descriptor.group;
  job.passes = (job.group + shape.queries - 1) / shape.queries;
  job.relu = descriptor.score_op == layout::kScoreReluDot;
  job.listed = stage != Stage::kOnly && stage != Stage::kFirst && stage != Stage::kMaxima &&
               stage != Stage::kFirstMaxima && stage != Stage::kLargest && stage != Stage::kRanked;
  job.maxima = stage == Stage::kMaxima || stage == Stage::kFirstMaxima || stage == Stage::kMeasured ||
               stage == Stage::kLargest;
  job.list_beat = index.list_beat;
  job.block_beat = (uint32_t{descriptor.layer_slot} * index.heads + head) * index.block_beats;
  SetRange(descriptor, index, &job);
  SetBeats(block, &job);
  return job;
}

uint32_t SumDims(const Shape& shape, uint32_t dim) { return std::min(MaxGroup(shape), dim); }

ScanJob ValueJobOf(const Descriptor& descriptor, const CardIndex& index, const Shape& shape, uint32_t head,
                   Part part) {
  // The base comes with the first beats of a block, as in a cascade.
  ScanJob job =
      ScanJobOf(descriptor, index, shape, head, part == Part::kBases ? Stage::kFirst : Stage::kOnly);
  job.part = part;
  job.code_shift = job.base_shift = 0;
  job.group = SumDims(shape, index.dim);
  job.passes = (job.group + shape.queries - 1) / shape.queries;
  return job;
}

Hits LatestEntries(const Descriptor& descriptor) {
  const uint32_t entry_tokens = layout::EntryTokens(descriptor.format, descriptor.flags);
  const uint32_t end = descriptor.end / entry_tokens;
  Hits hits;
  hits.candidates = end - descriptor.begin / entry_tokens;
  hits.ids.resize(std::min(descriptor.k, hits.candidates));
  std::iota(hits.ids.begin(), hits.ids.end(), end - static_cast<uint32_t>(hits.ids.size()));
  hits.ranks.resize(hits.ids.size());
  return hits;
}

SelectJob SelectJobOf(const Descriptor& descriptor, const CardIndex& index, Stage stage) {
  SelectJob job;
  job.plain = descriptor.group_op == layout::kGroupPlainMax;
  job.exp2 = descriptor.group_op == layout::kGroupExp2Sum;
  job.relu = descriptor.score_op == layout::kScoreReluDot;
  job.entries = layout::kPageTokens / layout::EntryTokens(descriptor.format, descriptor.flags);
  job.group = descriptor.group;
  job.to_list = OnSigns(stage) || stage == Stage::kMaxima;
  job.maxima = stage == Stage::kMaxima || stage == Stage::kFirstMaxima;
  job.kept = stage == Stage::kPages || stage == Stage::kFirstPages || stage == Stage::kListed ||
             stage == Stage::kRanked;
  job.measured = stage == Stage::kMeasured || stage == Stage::kLargest;
  job.bounded = IsBounded(descriptor) && !job.to_list && !job.measured;
  job.bound = descriptor.threshold;
  job.shift = index.shift;
  job.k = OnSigns(stage) ? descriptor.k1 : descriptor.k;
  return job;
}

}  // namespace mnemo::card::model
