// The lanes and the selector of the rig: they check jobs and queries, and answer with random hits.

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <vector>

#include "command_rig.h"
#include "proto/layout/card.h"
#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"

namespace mnemo::rtl_command {
namespace {

using layout::Descriptor;

enum Kind : uint32_t { kKindCodes = 0, kKindBounds = 1, kKindMeans = 2 };
enum Shape : uint32_t { kShapeTokens = 0, kShapeParts = 1, kShapePages = 2, kShapeMaxima = 3 };

bool Pages64(const Descriptor& d) { return (d.flags & layout::kFlagPages64) != 0; }

// Beats of a page that the stage reads.
uint32_t BeatsOfPage(const Job& job) {
  const Descriptor& d = job.taken->d;
  const layout::CardBlock block = layout::CardBlockOf(d.format, job.taken->info.dim);
  if (job.sign_stage()) return block.scales;
  if (d.format == layout::kFormatMeans && block.page_row != block.beats) {
    return Pages64(d) ? 1 + block.planes : block.page_row;
  }
  return block.beats;
}

}  // namespace

void CommandRig::CheckScanJob(const Job& job) {
  const Taken& taken = *job.taken;
  const Descriptor& d = taken.d;
  const uint32_t dim = taken.info.dim;
  const layout::CardBlock block = layout::CardBlockOf(d.format, dim);
  const bool codes = layout::IsCodeFormat(d.format);
  const bool means = d.format == layout::kFormatMeans;
  CHECK(top_->scan_kind == (codes ? kKindCodes : means ? kKindMeans : kKindBounds));
  CHECK(1U << top_->scan_vector_log2 == block.vector_elements);
  CHECK(top_->scan_planes == (job.sign_stage() ? 1 : block.planes));
  CHECK(top_->scan_two_bit == (d.format == layout::kFormatCodes2));
  CHECK(top_->scan_sign_stage == job.sign_stage());
  CHECK(top_->scan_page_row == (means && Pages64(d)));
  CHECK(top_->scan_fold == (d.format == layout::kFormatBounds && Pages64(d)));
  const int32_t code_max = job.sign_stage() ? 1 : layout::CodeMax(d.format);
  CHECK(static_cast<int32_t>(top_->scan_code_shift) == layout::DotShift(code_max, dim));
  if (codes) CHECK(static_cast<int32_t>(top_->scan_base_shift) == layout::DotShift(127, dim));
  CHECK(top_->scan_group_last + 1 == d.group);
  CHECK(top_->scan_pass_last + 1 == (d.group + kPassQueries - 1) / kPassQueries);
  CHECK(top_->scan_listed == job.listed());
  CHECK(top_->scan_maxima == job.maxima());
  CHECK(top_->scan_list_beat == taken.entry.list_beat);
  CHECK(top_->scan_block_beat ==
        (uint32_t{d.layer_slot} * taken.info.heads + d.first_head + job.head) * taken.entry.block_beats);
  const uint32_t beats = BeatsOfPage(job);
  CHECK(top_->scan_first_beats + top_->scan_second_beats == beats);
  if (means && Pages64(d) && block.page_row != block.beats) {
    CHECK(top_->scan_first_beats == 1);
    CHECK(top_->scan_second_at == block.page_row);
  } else {
    CHECK(top_->scan_second_beats == 0);
  }
  CHECK(top_->scan_relu == (d.score_op == layout::kScoreReluDot));
  CHECK(top_->scan_none == (d.begin == d.end));
  if (d.begin != d.end) {
    const uint32_t entry_tokens = layout::EntryTokens(d.format, d.flags);
    CHECK(top_->scan_first_page == d.begin / 64 + taken.entry.shift);
    CHECK(top_->scan_last_page == (d.end - 1) / 64 + taken.entry.shift);
    CHECK(top_->scan_skip == d.begin % 64 / entry_tokens);
    CHECK(top_->scan_last_entry == (d.end - 1) % 64 / entry_tokens);
  }
}

void CommandRig::CheckSelectJob(const Job& job) {
  const Taken& taken = *job.taken;
  const Descriptor& d = taken.d;
  CHECK(top_->select_plain == (d.group_op == layout::kGroupPlainMax));
  CHECK(top_->select_exp2 == (d.group_op == layout::kGroupExp2Sum));
  CHECK(top_->select_relu == (d.score_op == layout::kScoreReluDot));
  const bool bounded = job.bounded && !job.to_list() && !job.measured();
  CHECK(top_->select_bounded == bounded);
  if (bounded) CHECK(top_->select_bound == static_cast<uint32_t>(d.threshold));
  CHECK(top_->select_shape == (job.maxima()                     ? kShapeMaxima
                               : layout::IsCodeFormat(d.format) ? kShapeTokens
                               : Pages64(d)                     ? kShapePages
                                                                : kShapeParts));
  CHECK(top_->select_of_page == (layout::IsCodeFormat(d.format) ? kShapeTokens
                                 : Pages64(d)                   ? kShapePages
                                                                : kShapeParts));
  CHECK(top_->select_group_last + 1 == d.group);
  CHECK(top_->select_pass_last + 1 == (d.group + kPassQueries - 1) / kPassQueries);
  CHECK(top_->select_listed == (job.listed() && !job.measured()));
  CHECK(top_->select_to_list == job.to_list());
  CHECK(top_->select_kept == job.kept());
  CHECK(top_->select_measured == job.measured());
  if (job.maxima()) {
    const uint32_t entry_tokens = layout::EntryTokens(d.format, d.flags);
    CHECK(top_->select_skip == d.begin % 64 / entry_tokens);
    CHECK(top_->select_last_entry == (d.end - 1) % 64 / entry_tokens);
  }
  CHECK(top_->select_shift == taken.entry.shift);
  CHECK(top_->select_k == (job.sign_stage() ? std::min<uint32_t>(d.k1, 0xFFFFFF) : d.k));
  CHECK(top_->select_none == (d.begin == d.end));
  if (d.begin != d.end) {
    CHECK(top_->select_first_page == d.begin / 64 + taken.entry.shift);
    CHECK(top_->select_last_page == (d.end - 1) / 64 + taken.entry.shift);
  }
}

std::vector<QueryBeat> CommandRig::ExpectedQueries(const Job& job) {
  const Taken& taken = *job.taken;
  const Descriptor& d = taken.d;
  const uint32_t dim = taken.info.dim;
  const uint32_t padded = std::max<uint32_t>(dim, 64);
  const bool bounds = d.format == layout::kFormatBounds;
  const uint8_t* block =
      memory_.At(queues_[taken.queue].regions[d.payload_region] + uint64_t{d.payload_offset} * 64 +
                 (uint64_t{job.position} * d.heads + job.head) * layout::QueryBlockBytes(d.group, dim));
  std::vector<QueryBeat> beats;
  for (uint32_t g = 0; g < d.group; ++g) {
    std::vector<int8_t> row((bounds ? 2 : 1) * padded);
    int32_t sum = 0;
    for (uint32_t i = 0; i < dim; ++i) {
      const auto code = static_cast<int8_t>(block[g * dim + i]);
      sum += code;
      row[i] = bounds ? std::min<int8_t>(code, 0) : code;
      if (bounds) row[padded + i] = std::max<int8_t>(code, 0);
    }
    for (uint32_t segment = 0; segment < row.size() / 64; ++segment) {
      QueryBeat beat{.last = false, .is_param = false, .query = g, .segment = segment, .data = {}};
      std::memcpy(beat.data.data(), &row[segment * 64], 64);
      beats.push_back(beat);
    }
    layout::QueryParam param;
    std::memcpy(&param, block + layout::QueryParamOffset(d.group, dim) + g * sizeof param, sizeof param);
    // query_param_t: multiplier, shift, sum of 17 bits, weight.
    const uint64_t bits = param.multiplier | uint64_t{param.shift} << 16 |
                          (static_cast<uint64_t>(sum) & 0x1FFFF) << 24 |
                          uint64_t{static_cast<uint16_t>(param.weight)} << 41;
    QueryBeat beat{.last = g + 1U == d.group, .is_param = true, .query = g, .segment = 0, .data = {}};
    std::memcpy(beat.data.data(), &bits, sizeof bits);
    beats.push_back(beat);
  }
  return beats;
}

void CommandRig::CheckQueryBeat() {
  if (beats_.empty()) {
    REQUIRE(!to_load_.empty());
    const std::vector<QueryBeat> beats = ExpectedQueries(to_load_.front());
    beats_.assign(beats.begin(), beats.end());
    to_load_.pop_front();
  }
  // Beats of codes may come in any order, before the params.
  const auto found = std::find_if(beats_.begin(), beats_.end(), [&](const QueryBeat& beat) {
    return beat.is_param == static_cast<bool>(top_->query_is_param) && beat.query == top_->query_number &&
           beat.segment == top_->query_segment;
  });
  INFO("query " << top_->query_number << " segment " << top_->query_segment << " param "
                << int{top_->query_is_param});
  REQUIRE(found != beats_.end());
  REQUIRE(std::memcmp(&top_->query_data[0], found->data.data(), 64) == 0);
  const bool last = beats_.size() == 1;
  REQUIRE(static_cast<bool>(top_->query_last) == last);
  beats_.erase(found);
  if (last) ++loaded_;
}

void CommandRig::Answer(const Job& job) {
  const Descriptor& d = job.taken->d;
  answered_ = job;
  answer_ = {};
  answer_.candidates = static_cast<uint32_t>(timing_());
  answer_.last_rank = static_cast<int32_t>(timing_());
  answer_.cut = timing_() % 2 != 0;
  const bool empty = d.begin == d.end || timing_() % 16 == 0;
  const uint32_t count = exact_k ? d.k : empty ? 0 : static_cast<uint32_t>(timing_() % (d.k + 1));
  uint32_t id = 0;
  const bool gives_ids = !job.to_list() && !job.measured();
  for (uint32_t i = 0; i < count && gives_ids; ++i) {
    answer_.ids.push_back(id += 1 + static_cast<uint32_t>(timing_() % 1000));
    answer_.ranks.push_back(static_cast<int32_t>(timing_()));
  }
  const auto pages = static_cast<uint32_t>(timing_() % 5000);
  job.taken->bytes_read += uint64_t{pages} * BeatsOfPage(job) * 64;
  job.taken->scored_cycle = scored_.front();
  if (gives_ids) job.taken->blocks.push_back(answer_);
  top_->head_to_list = job.to_list();
  top_->head_measured = job.measured();
  top_->head_scored = scored_.front();
  top_->head_pages = pages;
  top_->head_candidates = answer_.candidates;
  top_->head_cut = answer_.cut;
  top_->head_count = gives_ids ? count : job.to_list() ? static_cast<uint32_t>(timing_()) : 0;
  top_->head_last_rank = static_cast<uint32_t>(answer_.last_rank);
  scored_.pop_front();
  head_valid_ = true;
}

void CommandRig::DriveStandIns() {
  // A lane keeps one job beside the one that it scans, and the queries of one job beside those of its scan.
  const uint64_t waiting = scan_jobs_ - scans_;
  top_->scan_ready = waiting < 2 && Chance();
  top_->query_ready = loaded_ - scans_ < 2 && Chance();
  top_->select_ready = selecting_.size() < 2 && Chance();
  if (scans_end && scan_left_ < 0 && scan_jobs_ > scans_ && loaded_ > scans_) {
    scan_left_ = static_cast<int64_t>(timing_() % static_cast<uint64_t>(scan_cycles + 1));
  }
  if (!head_valid_ && !hits_owed_ && !selecting_.empty() && !scored_.empty() && Chance()) {
    Answer(selecting_.front());
    selecting_.pop_front();
  }
  top_->head_valid = head_valid_;
  if (hits_owed_ && !hit_valid_ && Chance()) {
    const auto left = static_cast<uint32_t>(answer_.ids.size()) - hits_sent_;
    const uint32_t count = std::min<uint32_t>(left, 16);
    for (uint32_t i = 0; i < 16; ++i) {
      // Beyond the count there is anything.
      top_->hit_ids[i] = i < count ? answer_.ids[hits_sent_ + i] : static_cast<uint32_t>(timing_());
      top_->hit_ranks[i] =
          i < count ? static_cast<uint32_t>(answer_.ranks[hits_sent_ + i]) : static_cast<uint32_t>(timing_());
    }
    top_->hit_count = static_cast<uint8_t>(count);
    top_->hit_last = left == count;
    hit_valid_ = true;
  }
  top_->hit_valid = hit_valid_;
  if (drive_lane_events) {
    const auto events = static_cast<uint32_t>(timing_());
    top_->ev_beat = events & 3;
    top_->ev_stall_memory = events >> 2 & 3;
    top_->ev_stall_tables = events >> 4 & 3;
    top_->ev_stall_scorers = events >> 6 & 3;
    top_->ev_stall_bank = events >> 8 & 3;
    top_->ev_busy = events >> 10 & 3;
    for (uint32_t i = 0; i < lane_events.size(); ++i) lane_events[i] += events >> (2 * i + 1) & 1;
  } else {
    top_->ev_beat = top_->ev_stall_memory = top_->ev_stall_tables = 0;
    top_->ev_stall_scorers = top_->ev_stall_bank = top_->ev_busy = 0;
  }
}

void CommandRig::ClockStandIns() {
  if (top_->rst || top_->core_rst) return;
  if (top_->scan_valid && top_->scan_ready) {
    REQUIRE(!to_scan_.empty());
    CheckScanJob(to_scan_.front());
    to_scan_.pop_front();
    ++scan_jobs_;
  }
  if (top_->query_valid && top_->query_ready) CheckQueryBeat();
  if (top_->select_valid && top_->select_ready) {
    REQUIRE(!to_select_.empty());
    CheckSelectJob(to_select_.front());
    selecting_.push_back(to_select_.front());
    to_select_.pop_front();
  }
  if (scan_left_ == 0) {
    ++scans_;
    scored_.push_back(top_->cycle);
  }
  if (scan_left_ >= 0) --scan_left_;
  if (top_->head_valid && top_->head_ready) {
    head_valid_ = false;
    hits_owed_ = !answer_.ids.empty();
    hits_sent_ = 0;
    ++jobs_;
  }
  if (top_->hit_valid && top_->hit_ready) {
    hits_sent_ += top_->hit_count;
    hit_valid_ = false;
    hits_owed_ = hits_sent_ < answer_.ids.size();
  }
}

}  // namespace mnemo::rtl_command
