#pragma once

// The units of a score lane (fpga/rtl/scan), one function each. Blocks and queries come in the form that the
// RTL has them in; results are those of layout::Scores.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "fpga/card/model/jobs.h"
#include "proto/layout/payload.h"

namespace mnemo::card::model {

// Sums of 4 codes by their 4 bits, for 64 codes.
using SegmentTables = std::array<std::array<int16_t, 16>, 16>;

// A query as query_store and table_builder have it.
struct Query {
  std::vector<int8_t> codes;  // in segments of 64
  std::vector<SegmentTables> tables;
  int32_t sum = 0;  // of the codes
  layout::QueryParam param{};
};

// Beats of one plane of a page.
uint32_t PlaneBeats(const ScanJob& job);

// Pads codes to segments of 64. Kind::kBounds: min(code, 0) of all dims, then max(code, 0).
std::vector<int8_t> Segments(std::span<const int8_t> codes, Kind kind);

// Makes the tables of a query of `codes` (a head dim of them).
Query MakeQueryTables(std::span<const int8_t> codes, const layout::QueryParam& param, Kind kind);

// plane_unit: the sum of the codes of a segment whose bit is set.
int32_t PlaneUnit(uint64_t bits, const SegmentTables& tables);

// plane_combine: the dot product of one vector with a query. `read` holds the beats that the job reads, in
// order.
int32_t PlaneCombine(const ScanJob& job, std::span<const uint8_t> read, const Query& query, uint32_t vector);

// base_dot: the dot product of the page's base with a query.
int32_t BaseDot(const ScanJob& job, std::span<const uint8_t> read, const Query& query);

// scorer: the base's term of all vectors of a page; 0 for other kinds than codes.
int32_t BaseTerm(const ScanJob& job, std::span<const uint8_t> read, const Query& query);

// scorer: y of one vector, with the base's term.
int32_t ScoreVector(const ScanJob& job, std::span<const uint8_t> read, const Query& query, int32_t base_term,
                    uint32_t vector);

// lane: the scores of a page, [entry][query].
void ScorePage(const ScanJob& job, std::span<const uint8_t> read, std::span<const Query> queries,
               std::vector<int16_t>* y);

// relu_unit: the ranks of a page by its scores, [entry][query].
void ReluPage(std::span<const int16_t> y, std::span<const Query> queries, std::vector<int32_t>* ranks);

// recall_top: the largest octave of a page's tokens and base.
uint32_t TopOctave(std::span<const uint8_t> read);

// Entries of a page in this job: 64, 4 or 1.
uint32_t EntriesOfPage(const ScanJob& job);

// Entries of a virtual page within the job's range, as a mask.
uint64_t RangeMask(const ScanJob& job, uint32_t page);

}  // namespace mnemo::card::model
