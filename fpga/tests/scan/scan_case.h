#pragma once

// Jobs of a lane with what the lane is to answer: records, their resident blocks in a channel, page lists,
// queries, and scores by layout::Scores.

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "proto/layout/card.h"
#include "proto/layout/reference.h"

namespace mnemo::rtl_scan {

using Beat = std::array<uint8_t, layout::kCardBeatBytes>;

// scan_job_t, by its fields' names.
struct ScanJob {
  uint32_t kind = 0;
  uint32_t vector_log2 = 6;
  uint32_t planes = 0;
  bool two_bit = false;
  bool sign_stage = false;
  bool page_row = false;
  bool fold = false;
  uint32_t code_shift = 0;
  uint32_t base_shift = 0;
  uint32_t group_last = 0;
  uint32_t pass_last = 0;
  bool relu = false;
  uint32_t part = 0;  // part_t
  bool listed = false;
  bool maxima = false;
  bool none = false;
  uint32_t first_page = 0;
  uint32_t last_page = 0;
  uint32_t skip = 0;
  uint32_t last_entry = 0;
  uint32_t list_beat = 0;
  uint32_t block_beat = 0;
  uint32_t first_beats = 0;
  uint32_t second_at = 0;
  uint32_t second_beats = 0;
};

struct QueryBeat {
  bool last = false;
  bool is_param = false;
  uint32_t query = 0;
  uint32_t segment = 0;
  Beat data = {};
};

struct ListEntry {
  bool last = false;
  bool none = false;
  uint32_t row = 0;
  uint64_t mask = 0;
};

// score_head_t, and y by [entry of the beat][query of the pass]; `queries` of the pass are compared. With
// `codes` y has the halves of rank codes, of which all are compared.
struct ScoreBeat {
  uint32_t job = 0;  // for messages
  uint32_t page = 0;
  bool value = false;
  bool last = false;
  bool none = false;
  bool page_last = false;
  bool maxima = false;
  uint32_t pass = 0;
  uint32_t at = 0;
  uint32_t counts = 0;
  uint32_t queries = 0;
  bool codes = false;
  std::vector<int16_t> y;
};

// The scored parts of a record format.
enum class Scan { kCodes, kSign, kParts, kFold, kPageRow };

struct Case {
  ScanJob job;
  std::vector<QueryBeat> queries;
  std::vector<ListEntry> list;
  std::vector<ScoreBeat> scores;
  uint64_t block_beats = 0;            // that the lane reads, without the page list
  std::optional<uint32_t> top_octave;  // of the pages that it reads, with a part
};

// A channel's memory. Blocks and lists are placed one after the other with gaps.
struct Channel {
  uint64_t base_beat = 0;
  std::vector<Beat> beats;

  uint32_t Place(uint32_t count, uint32_t gap);
};

struct Shape {
  uint32_t channels;
  uint32_t g;
  uint32_t s;
};

struct CaseOptions {
  uint32_t format = layout::kFormatCodes2;
  Scan scan = Scan::kCodes;
  uint32_t dim = 64;
  uint32_t group = 4;
  uint32_t pages = 8;  // of the index, in all lanes
  uint32_t lane = 0;
  bool relu = false;
  uint32_t part = 0;  // part_t: the queries are unit vectors, and y is layout::AlignedValue; of codes alone
  bool listed = false;
  bool whole = false;        // all pages, else a random range
  bool random_bits = false;  // records of random bytes and queries of random parameters, else of keys
};

// The resident block of a record, by layout::CodeAt and the text of card.h.
std::vector<Beat> BlockOf(std::span<const uint8_t> record, uint32_t format, uint32_t dim);

Case MakeCase(const Shape& shape, const CaseOptions& options, Channel& channel, std::mt19937& rng);

std::string Describe(const CaseOptions& options);

// Random options of a case that the card serves.
CaseOptions RandomOptions(const Shape& shape, std::mt19937& rng);

// Packed structs of card_types.sv as words of a port.
struct Field {
  uint64_t value;
  uint32_t bits;
};

// Fields in the order of the struct, the first one in the highest bits.
template <typename Words>
void Pack(std::initializer_list<Field> fields, Words& words, uint32_t count) {
  std::memset(&words[0], 0, count * sizeof(uint32_t));
  uint32_t at = 0;
  for (auto field = std::rbegin(fields); field != std::rend(fields); ++field) {
    for (uint32_t bit = 0; bit < field->bits; ++bit, ++at) {
      words[at / 32] |= static_cast<uint32_t>(field->value >> bit & 1) << at % 32;
    }
  }
}

// scan_job_t.
template <typename Words>
void PackJob(const ScanJob& j, Words& words) {
  Pack({{j.kind, 2},       {j.vector_log2, 4}, {j.planes, 4},      {j.two_bit, 1},    {j.sign_stage, 1},
        {j.page_row, 1},   {j.fold, 1},        {j.code_shift, 5},  {j.base_shift, 5}, {j.group_last, 6},
        {j.pass_last, 4},  {j.relu, 1},        {j.part, 2},        {j.listed, 1},     {j.maxima, 1},
        {j.none, 1},       {j.first_page, 24}, {j.last_page, 24},  {j.skip, 6},       {j.last_entry, 6},
        {j.list_beat, 32}, {j.block_beat, 32}, {j.first_beats, 9}, {j.second_at, 9},  {j.second_beats, 9}},
       words, 6);
}

// list_entry_t.
template <typename Words>
void PackEntry(const ListEntry& entry, Words& words) {
  Pack({{entry.last, 1}, {entry.none, 1}, {entry.row, 19}, {entry.mask, 64}}, words, 3);
}

}  // namespace mnemo::rtl_scan
