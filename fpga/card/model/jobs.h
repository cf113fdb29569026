#pragma once

// Messages between the stages of the card (fpga/rtl/card_types.sv), as the model has it. Names are those
// of the RTL.

#include <cstdint>
#include <vector>

namespace mnemo::card::model {

// Parameters of the RTL.
struct Shape {
  uint32_t channels = 2;       // CHANNELS, a power of two
  uint32_t queries = 4;        // G: queries of a pass
  uint32_t scores = 16;        // S: scores a cycle
  uint32_t bank_words = 4096;  // BANK_WORDS
};

enum class Kind { kCodes, kBounds, kMeans };

// part_t: what y of a vector is made of. Parts of a weighted sum are scanned apart, since y has 16 bits.
enum class Part { kAll, kTokens, kBases };

// scan_job_t: one position and head, one stage.
struct ScanJob {
  Kind kind = Kind::kCodes;
  uint32_t vector_log2 = 6;
  uint32_t planes = 1;
  bool two_bit = false;
  bool sign_stage = false;
  Part part = Part::kAll;
  bool page_row = false;
  bool fold = false;
  uint32_t code_shift = 0;
  uint32_t base_shift = 0;
  uint32_t group = 1;   // group_last + 1
  uint32_t passes = 1;  // pass_last + 1
  bool relu = false;
  bool listed = false;
  bool maxima = false;
  bool none = false;
  uint32_t first_page = 0;  // virtual pages, both inclusive
  uint32_t last_page = 0;
  uint32_t skip = 0;
  uint32_t last_entry = 0;
  uint32_t list_beat = 0;
  uint32_t block_beat = 0;
  uint32_t first_beats = 0;
  uint32_t second_at = 0;
  uint32_t second_beats = 0;
};

// select_job_t.
struct SelectJob {
  bool plain = false;
  bool exp2 = false;
  bool relu = false;
  bool bounded = false;
  int32_t bound = 0;
  uint32_t entries = 64;  // of a page: 64, 4 or 1
  bool maxima = false;    // SHAPE_MAXIMA
  uint32_t group = 1;
  bool to_list = false;
  bool kept = false;
  bool measured = false;
  uint32_t shift = 0;
  uint32_t k = 1;
};

// list_entry_t, with the virtual page in place of lane and row.
struct ListEntry {
  uint32_t page = 0;
  uint64_t mask = 0;
};

// The scores of a job in page order: y[(slot * entries + entry) * group + query]. A mask has a bit for each
// entry that counts. Of weighted ReLU there are ranks[slot * entries + entry] instead.
struct ScoreStore {
  std::vector<ListEntry> pages;
  std::vector<int16_t> y;
  std::vector<int32_t> ranks;
  uint32_t top_octave = 0;  // of codes: the largest one of the pages' tokens and bases
};

// The first stage of a long scan leaves this for the second one, as does the third one for the fourth.
struct Kept {
  std::vector<int16_t> best;  // M_g
  uint32_t candidates = 0;
};

// hit_head_t, and the hits.
struct Hits {
  uint32_t candidates = 0;
  bool cut = false;
  int32_t last_rank = 0;
  std::vector<uint32_t> ids;    // rising; not with to_list
  std::vector<int32_t> ranks;   // of the ids
  std::vector<ListEntry> list;  // with to_list
  uint32_t top_octave = 0;      // of the scan
};

}  // namespace mnemo::card::model
