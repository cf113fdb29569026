#include "bench.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <iterator>

#include "proto/layout/payload.h"
#include "proto/layout/reference.h"

namespace mnemo::rtl {
namespace {

constexpr uint32_t kDim = 64;

// A bit a lane; the pin's type depends on their number.
template <typename Pin>
void SetPin(Pin& pin, uint64_t bits) {
  pin = static_cast<Pin>(bits);
}

}  // namespace

void Expect(Job& job) {
  const uint32_t group = static_cast<uint32_t>(job.group);
  const std::vector<uint8_t> block(layout::QueryBlockBytes(group, kDim));
  const std::vector<int32_t> ranks = layout::Ranks(
      job.scores, group, job.plain ? layout::kGroupPlainMax : layout::kGroupMax, kDim, block.data());
  for (const uint32_t at : layout::TopK(ranks, job.k)) {
    job.ids.push_back(job.entries[at]);
    job.ranks.push_back(ranks[at]);
  }
  const uint32_t page = static_cast<uint32_t>(EntriesOf(job.shape));
  std::vector<uint32_t> pages;
  for (const uint32_t entry : job.entries) pages.push_back(entry / page);
  job.pages = static_cast<uint32_t>(std::unique(pages.begin(), pages.end()) - pages.begin());
}

Bench::Bench(uint32_t seed) : rng_(seed) {
  context_.randReset(2);
  context_.randSeed(static_cast<int>(seed));
  context_.errorLimit(1 << 30);  // a failed assertion is counted and does not stop the program
  top_ = std::make_unique<Vselector_bench>(&context_);
  top_->job_valid = top_->head_ready = top_->hit_ready = 0;
  top_->score_valid = top_->list_ready = 0;
  top_->rst = 1;
  for (int i = 0; i < 8; ++i) Clock();
  top_->rst = 0;
  Clock();
}

void Bench::Clock() {
  top_->clk = 0;
  top_->eval();
  top_->clk = 1;
  top_->eval();
}

// The beats of one page for all passes; scores of entries and queries that do not count are anything.
std::vector<Bench::Beat> Bench::PageBeats(const Job& job, uint32_t page, uint64_t mask) {
  const int count = EntriesOf(job.shape);
  std::vector<Beat> beats;
  for (int pass = 0; pass < job.passes(); ++pass) {
    for (int first = 0; first < count; first += kEntries) {
      Beat beat;
      beat.y.resize(kEntries * kQueries);
      uint32_t counts = 0;
      for (int e = 0; e < kEntries; ++e) {
        const uint32_t entry = page * static_cast<uint32_t>(count) + static_cast<uint32_t>(first + e);
        const bool counted = first + e < count && (mask >> (first + e) & 1) != 0;
        counts |= static_cast<uint32_t>(counted) << e;
        for (int q = 0; q < kQueries; ++q) {
          const int query = pass * kQueries + q;
          int16_t y = static_cast<int16_t>(rng_() % 4 == 0 ? 32767 : rng_());
          if (counted && query < job.group) {
            const auto place = std::lower_bound(job.entries.begin(), job.entries.end(), entry);
            const size_t at = static_cast<size_t>(place - job.entries.begin());
            y = job.scores[static_cast<size_t>(query) * job.entries.size() + at];
          }
          beat.y[static_cast<size_t>(e * kQueries + q)] = y;
        }
      }
      const bool page_last = first + kEntries >= count;
      beat.head = static_cast<uint32_t>(page_last) << 18 | static_cast<uint32_t>(pass) << 14 |
                  static_cast<uint32_t>(first / kEntries) << 8 | counts;
      beats.push_back(std::move(beat));
    }
  }
  return beats;
}

// Makes the lane's beats of a job; false while it waits for the job's list.
bool Bench::Load(int lane, const Job& job) {
  Lane& state = lanes_[static_cast<size_t>(lane)];
  std::vector<std::pair<uint32_t, uint64_t>> pages;  // with entries that count
  if (job.listed) {
    if (state.lists.empty()) return false;
    for (const ListEntry& entry : state.lists.front()) {
      pages.emplace_back(entry.row * kChannels + static_cast<uint32_t>(lane - job.shift), entry.mask);
    }
    state.lists.pop_front();
  } else {
    const uint32_t count = static_cast<uint32_t>(EntriesOf(job.shape));
    for (uint32_t entry = job.begin; entry < job.end; ++entry) {
      const uint32_t page = entry / count;
      if ((page + static_cast<uint32_t>(job.shift)) % kChannels != static_cast<uint32_t>(lane)) continue;
      if (pages.empty() || pages.back().first != page) pages.emplace_back(page, 0);
      pages.back().second |= uint64_t{1} << entry % count;
    }
  }
  for (const auto& [page, mask] : pages) {
    std::vector<Beat> beats = PageBeats(job, page, mask);
    std::move(beats.begin(), beats.end(), std::back_inserter(state.beats));
  }
  if (state.beats.empty()) {
    Beat none;
    none.head = 3U << 19 | (rng_() & 0x7FFFF);  // last, none
    none.y.resize(kEntries * kQueries);
    for (int16_t& y : none.y) y = 32767;
    state.beats.push_back(std::move(none));
  } else {
    state.beats.back().head |= 1U << 20;
  }
  return true;
}

void Bench::Drive(const std::vector<Job>& jobs, const Rates& rates) {
  Vselector_bench& p = *top_;
  if (!job_offered_ && next_job_ < jobs.size() && Chance(rates.job)) {
    const Job& job = jobs[next_job_];
    const uint32_t page = static_cast<uint32_t>(EntriesOf(job.shape));
    job_offered_ = true;
    p.job_plain = job.plain;
    p.job_shape = static_cast<uint8_t>(job.shape);
    p.job_group_last = static_cast<uint8_t>(job.group - 1);
    p.job_pass_last = static_cast<uint8_t>(job.passes() - 1);
    p.job_listed = job.listed;
    p.job_to_list = job.to_list;
    p.job_none = !job.listed && job.begin == job.end;
    p.job_first_page = job.begin / page + static_cast<uint32_t>(job.shift);
    p.job_last_page = (job.end == 0 ? 0 : (job.end - 1) / page) + static_cast<uint32_t>(job.shift);
    p.job_shift = static_cast<uint8_t>(job.shift);
    p.job_k = job.k;
  }
  p.job_valid = job_offered_;
  uint64_t valid = 0;
  uint64_t list_ready = 0;
  for (int i = 0; i < kChannels; ++i) {
    Lane& lane = lanes_[static_cast<size_t>(i)];
    if (!lane.loaded && lane.job < jobs.size()) lane.loaded = Load(i, jobs[lane.job]);
    if (!lane.offered && !lane.beats.empty() && Chance(rates.score)) {
      lane.offered = true;
      const Beat& beat = lane.beats.front();
      p.score_head[i] = beat.head;
      std::memcpy(&p.score_y[i], beat.y.data(), beat.y.size() * sizeof(int16_t));
    }
    valid |= uint64_t{lane.offered} << i;
    list_ready |= uint64_t{Chance(rates.list)} << i;
  }
  SetPin(p.score_valid, valid);
  SetPin(p.list_ready, list_ready);
  p.head_ready = Chance(rates.head);
  p.hit_ready = Chance(rates.hit);
}

void Bench::TakeHead(const Job& job) {
  const Vselector_bench& p = *top_;
  REQUIRE(p.head_to_list == job.to_list);
  REQUIRE(p.head_candidates == job.entries.size());
  REQUIRE(p.head_count == job.ids.size());
  REQUIRE(p.head_pages == job.pages);
  const int32_t last = job.ranks.empty() ? 0 : *std::min_element(job.ranks.begin(), job.ranks.end());
  REQUIRE(static_cast<int32_t>(p.head_last_rank) == last);
  // The bench's cycle counter runs in step with the test's.
  REQUIRE(p.head_scored >= stored_at_[next_head_]);
  REQUIRE(p.head_scored <= stored_at_[next_head_] + 10);
}

void Bench::TakeHits(const Job& job) {
  const Vselector_bench& p = *top_;
  const size_t left = job.ids.size() - hits_taken_;
  REQUIRE(left > 0);
  REQUIRE(p.hit_count == std::min<size_t>(left, 16));
  REQUIRE(p.hit_last == (left <= 16));
  for (int i = 0; i < p.hit_count; ++i) {
    const size_t at = hits_taken_ + static_cast<size_t>(i);
    if (p.hit_ids[i] != job.ids[at] || static_cast<int32_t>(p.hit_ranks[i]) != job.ranks[at]) {
      INFO("hit " << at << " of " << job.ids.size());
      REQUIRE(p.hit_ids[i] == job.ids[at]);
      REQUIRE(static_cast<int32_t>(p.hit_ranks[i]) == job.ranks[at]);
    }
  }
  hits_taken_ += p.hit_count;
}

void Bench::TakeList(int lane, const std::vector<Job>& jobs) {
  const Vselector_bench& p = *top_;
  Lane& state = lanes_[static_cast<size_t>(lane)];
  while (state.list_job < jobs.size() && !jobs[state.list_job].to_list) ++state.list_job;
  REQUIRE(state.list_job < jobs.size());
  const Job& job = jobs[state.list_job];
  const uint32_t head = p.list_head[lane];
  const bool last = (head >> 20 & 1) != 0;
  if ((head >> 19 & 1) == 0) {
    state.coming.push_back({head & 0x7FFFF, p.list_mask[lane]});
  } else {
    REQUIRE(last);
    REQUIRE(state.coming.empty());
  }
  if (!last) return;
  // TopK's positions in this lane's pages.
  std::vector<ListEntry> expected;
  for (const uint32_t id : job.ids) {
    const uint32_t page = id / 64 + static_cast<uint32_t>(job.shift);
    if (page % kChannels != static_cast<uint32_t>(lane)) continue;
    if (expected.empty() || expected.back().row != page / kChannels)
      expected.push_back({page / kChannels, 0});
    expected.back().mask |= uint64_t{1} << id % 64;
  }
  REQUIRE(state.coming.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    REQUIRE(state.coming[i].row == expected[i].row);
    REQUIRE(state.coming[i].mask == expected[i].mask);
  }
  Progress(state.list_job);
  state.lists.push_back(std::move(state.coming));
  state.coming.clear();
  ++state.list_job;
}

// Handshakes of this cycle, after the inputs have settled.
void Bench::Take(const std::vector<Job>& jobs) {
  const Vselector_bench& p = *top_;
  if (p.job_valid && p.job_ready) {
    job_offered_ = false;
    ++next_job_;
  }
  for (int i = 0; i < kChannels; ++i) {
    Lane& lane = lanes_[static_cast<size_t>(i)];
    if (lane.offered && (static_cast<uint64_t>(p.score_ready) >> i & 1) != 0) {
      lane.offered = false;
      lane.beats.pop_front();
      idle_ = 0;
      if (lane.beats.empty()) {
        stored_at_[lane.job] = std::max<uint64_t>(stored_at_[lane.job], p.cycle);
        Progress(lane.job);
        ++lane.job;
        lane.loaded = false;
      }
    } else if (lane.offered) {
      ++stalls_[lane.job];
    }
    if ((static_cast<uint64_t>(p.list_valid & p.list_ready) >> i & 1) != 0) TakeList(i, jobs);
  }
  if (p.head_valid && p.head_ready) {
    REQUIRE(next_head_ < jobs.size());
    INFO("head of job " << next_head_);
    TakeHead(jobs[next_head_]);
    Progress(next_head_++);
  }
  if (p.hit_valid && p.hit_ready) {
    const auto gives_ids = [&](size_t job) { return !jobs[job].to_list && !jobs[job].ids.empty(); };
    while (next_hits_ < jobs.size() && !gives_ids(next_hits_)) ++next_hits_;
    REQUIRE(next_hits_ < jobs.size());
    INFO("hits of job " << next_hits_);
    TakeHits(jobs[next_hits_]);
    Progress(next_hits_);
    if (hits_taken_ == jobs[next_hits_].ids.size()) {
      hits_taken_ = 0;
      ++next_hits_;
    }
  }
}

bool Bench::Finished(const std::vector<Job>& jobs) const {
  if (next_head_ < jobs.size()) return false;
  for (size_t job = next_hits_; job < jobs.size(); ++job) {
    if (!jobs[job].to_list && !jobs[job].ids.empty()) return false;
  }
  for (const Lane& lane : lanes_) {
    if (lane.job < jobs.size()) return false;
    for (size_t job = lane.list_job; job < jobs.size(); ++job) {
      if (jobs[job].to_list) return false;
    }
  }
  return true;
}

void Bench::Run(const std::vector<Job>& jobs, const Rates& rates) {
  lanes_.assign(kChannels, Lane());
  next_job_ = next_head_ = next_hits_ = hits_taken_ = 0;
  job_offered_ = false;
  stored_at_.assign(jobs.size(), 0);
  finished_at_.assign(jobs.size(), 0);
  stalls_.assign(jobs.size(), 0);
  idle_ = 0;
  const uint64_t start = cycles_;
  while (!Finished(jobs)) {
    Drive(jobs, rates);
    top_->clk = 0;
    top_->eval();
    Take(jobs);
    top_->clk = 1;
    top_->eval();
    ++cycles_;
    REQUIRE(++idle_ < 200000);
  }
  // Nothing comes that no job asked for.
  for (int i = 0; i < 20; ++i) {
    Drive(jobs, Rates());
    top_->clk = 0;
    top_->eval();
    REQUIRE_FALSE((top_->hit_valid || top_->head_valid || top_->list_valid != 0));
    top_->clk = 1;
    top_->eval();
    ++cycles_;
  }
  select_cycles_.clear();
  const uint64_t offset = top_->cycle - cycles_;
  for (size_t job = 0; job < jobs.size(); ++job) {
    select_cycles_.push_back(finished_at_[job] + offset - stored_at_[job]);
  }
  REQUIRE(cycles_ > start);
  REQUIRE(failures() == 0);
}

}  // namespace mnemo::rtl
