#include "fpga/card/model/lane_model.h"

#include <algorithm>
#include <cstring>

#include "proto/layout/card.h"
#include "proto/layout/numerics.h"

namespace mnemo::card::model {
namespace {

constexpr uint32_t kSegment = 64;
constexpr uint32_t kBeat = layout::kCardBeatBytes;

layout::RecordHeader HeaderOf(std::span<const uint8_t> read) {
  layout::RecordHeader header;
  std::memcpy(&header, read.data(), sizeof(header));
  return header;
}

uint32_t VectorElements(const ScanJob& job) { return 1U << job.vector_log2; }

uint32_t BaseBeats(const ScanJob& job) { return job.kind == Kind::kCodes ? VectorElements(job) / kBeat : 0; }

// The first beat of a plane among the beats that are read.
uint32_t PlaneAt(const ScanJob& job, uint32_t plane) {
  const uint32_t first = 1 + BaseBeats(job);
  const uint32_t scales = job.kind == Kind::kCodes && plane > 0 ? 1 : 0;
  return first + plane * PlaneBeats(job) + scales;
}

int32_t Own(const Query& query, int32_t dot, uint32_t scale, uint32_t shift) {
  return layout::ScoreTerm(dot, scale, scale >> 3, static_cast<int32_t>(shift), query.param.multiplier,
                           query.param.shift);
}

}  // namespace

uint32_t PlaneBeats(const ScanJob& job) {
  if (job.page_row) {
    return 1;
  }
  const uint32_t vectors = job.kind == Kind::kCodes ? layout::kPageTokens : layout::kPageParts;
  return std::max(1U, vectors * VectorElements(job) / (kBeat * 8));
}

std::vector<int8_t> Segments(std::span<const int8_t> codes, Kind kind) {
  const size_t padded = (codes.size() + kSegment - 1) / kSegment * kSegment;
  std::vector<int8_t> segments(kind == Kind::kBounds ? 2 * padded : padded);
  for (size_t i = 0; i < codes.size(); ++i) {
    segments[i] = kind == Kind::kBounds ? std::min<int8_t>(codes[i], 0) : codes[i];
    if (kind == Kind::kBounds) {
      segments[padded + i] = std::max<int8_t>(codes[i], 0);
    }
  }
  return segments;
}

Query MakeQueryTables(std::span<const int8_t> codes, const layout::QueryParam& param, Kind kind) {
  Query query;
  query.codes = Segments(codes, kind);
  query.param = param;
  query.tables.resize(query.codes.size() / kSegment);
  for (size_t i = 0; i < query.codes.size(); ++i) {
    query.sum += query.codes[i];
    std::array<int16_t, 16>& table = query.tables[i / kSegment][i % kSegment / 4];
    for (uint32_t bits = 0; bits < 16; ++bits) {
      if ((bits >> (i % 4) & 1) != 0) {
        table[bits] = static_cast<int16_t>(table[bits] + query.codes[i]);
      }
    }
  }
  return query;
}

int32_t PlaneUnit(uint64_t bits, const SegmentTables& tables) {
  int32_t sum = 0;
  for (const std::array<int16_t, 16>& table : tables) {
    sum += table[bits & 15];
    bits >>= 4;
  }
  return sum;
}

int32_t PlaneCombine(const ScanJob& job, std::span<const uint8_t> read, const Query& query, uint32_t vector) {
  const uint32_t segments = VectorElements(job) / kSegment;
  int32_t sum = 0;
  for (uint32_t plane = 0; plane < job.planes; ++plane) {
    const uint8_t* words = read.data() + PlaneAt(job, plane) * kBeat + vector * segments * 8;
    int32_t of_plane = 0;
    for (uint32_t segment = 0; segment < segments; ++segment) {
      uint64_t bits;
      std::memcpy(&bits, words + 8 * segment, sizeof(bits));
      of_plane += PlaneUnit(bits, query.tables[segment]);
    }
    const bool negative = plane == 0 && !job.two_bit && !job.sign_stage;
    sum = 2 * sum + (negative ? -of_plane : of_plane);
  }
  return job.sign_stage ? 2 * sum - query.sum : job.two_bit ? 2 * sum - 3 * query.sum : sum;
}

int32_t BaseDot(const ScanJob& job, std::span<const uint8_t> read, const Query& query) {
  const auto* base = reinterpret_cast<const int8_t*>(read.data() + kBeat);
  int32_t sum = 0;
  for (uint32_t i = 0; i < BaseBeats(job) * kBeat; ++i) {
    sum += query.codes[i] * base[i];
  }
  return sum;
}

int32_t BaseTerm(const ScanJob& job, std::span<const uint8_t> read, const Query& query) {
  return job.kind == Kind::kCodes && job.part != Part::kTokens
             ? Own(query, BaseDot(job, read, query), HeaderOf(read).base_scale, job.base_shift)
             : 0;
}

int32_t ScoreVector(const ScanJob& job, std::span<const uint8_t> read, const Query& query, int32_t base_term,
                    uint32_t vector) {
  const layout::RecordHeader header = HeaderOf(read);
  if (job.kind != Kind::kCodes) {
    // With dim 64 the page's own row is vector 4 of the planes, else it is alone in its beats.
    const bool alone = job.page_row && job.second_beats != 0;
    const uint32_t row = job.page_row ? static_cast<uint32_t>(layout::kPageParts) : vector;
    return Own(query, PlaneCombine(job, read, query, alone ? 0 : row), header.row_scales[row],
               job.code_shift);
  }
  if (job.part == Part::kBases) {
    return base_term;
  }
  const int32_t dot = PlaneCombine(job, read, query, vector);
  if (job.sign_stage) {
    return layout::AddScores(base_term, Own(query, dot, header.sign_scale, job.code_shift));
  }
  const uint32_t scale = read[(PlaneAt(job, 0) + PlaneBeats(job)) * kBeat + vector];
  return layout::AddScores(
      base_term, layout::ScoreTerm(dot, scale, header.top_octave, static_cast<int32_t>(job.code_shift),
                                   query.param.multiplier, query.param.shift));
}

void ReluPage(std::span<const int16_t> y, std::span<const Query> queries, std::vector<int32_t>* ranks) {
  for (size_t at = 0; at < y.size(); at += queries.size()) {
    int64_t sum = 0;
    for (size_t g = 0; g < queries.size(); ++g) {
      sum += layout::ReluTerm(y[at + g], queries[g].param.weight);
    }
    ranks->push_back(static_cast<int32_t>(sum >> layout::kReluRankShift));
  }
}

uint32_t TopOctave(std::span<const uint8_t> read) {
  const layout::RecordHeader header = HeaderOf(read);
  return std::max<uint32_t>(header.top_octave, header.base_scale >> 3);
}

uint32_t EntriesOfPage(const ScanJob& job) {
  if (job.kind == Kind::kCodes) {
    return layout::kPageTokens;
  }
  return job.fold || job.page_row ? 1 : static_cast<uint32_t>(layout::kPageParts);
}

void ScorePage(const ScanJob& job, std::span<const uint8_t> read, std::span<const Query> queries,
               std::vector<int16_t>* y) {
  const size_t start = y->size();
  const uint32_t entries = EntriesOfPage(job);
  y->resize(start + entries * queries.size());
  for (size_t g = 0; g < queries.size(); ++g) {
    const int32_t base_term = BaseTerm(job, read, queries[g]);
    for (uint32_t entry = 0; entry < entries; ++entry) {
      int32_t score = ScoreVector(job, read, queries[g], base_term, entry);
      for (uint32_t vector = 1; job.fold && vector < layout::kPageParts; ++vector) {
        score = std::max(score, ScoreVector(job, read, queries[g], base_term, vector));
      }
      (*y)[start + entry * queries.size() + g] = static_cast<int16_t>(score);
    }
  }
}

uint64_t RangeMask(const ScanJob& job, uint32_t page) {
  uint64_t mask = ~uint64_t{0};
  if (page == job.last_page) {
    mask >>= 63 - job.last_entry;
  } else {
    mask >>= 64 - EntriesOfPage(job);
  }
  return page == job.first_page ? mask & ~uint64_t{0} << job.skip : mask;
}

}  // namespace mnemo::card::model
