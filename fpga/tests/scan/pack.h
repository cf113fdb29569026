#pragma once

// Packed structs of card_types.sv as words of a port.

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>

#include "scan_case.h"

namespace mnemo::rtl_scan {

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
  Pack({{j.kind, 2},      {j.vector_log2, 4}, {j.planes, 4},     {j.two_bit, 1},     {j.sign_stage, 1},
        {j.page_row, 1},  {j.fold, 1},        {j.code_shift, 5}, {j.base_shift, 5},  {j.group_last, 6},
        {j.pass_last, 4}, {j.listed, 1},      {j.none, 1},       {j.first_page, 24}, {j.last_page, 24},
        {j.skip, 6},      {j.last_entry, 6},  {j.list_beat, 32}, {j.block_beat, 32}, {j.first_beats, 9},
        {j.second_at, 9}, {j.second_beats, 9}},
       words, 6);
}

// list_entry_t.
template <typename Words>
void PackEntry(const ListEntry& entry, Words& words) {
  Pack({{entry.last, 1}, {entry.none, 1}, {entry.row, 19}, {entry.mask, 64}}, words, 3);
}

}  // namespace mnemo::rtl_scan
