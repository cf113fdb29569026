// The selector against layout::Ranks and layout::TopK: shapes, groups, orders of scores, ties, lists, long
// scans, and random stalls on every stream. A bench plays the lanes, which send scores at random times, and
// the takers, which stall at random.

#include <algorithm>
#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "Vselector_bench.h"
#include "fpga/tests/select/long_scans.h"
#include "fpga/tests/select/score_orders.h"
#include "fpga/tests/select/selection_job.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/reference.h"
#include "verilated.h"

namespace mnemo::rtl_select {
namespace {

constexpr int kChannels = MNEMO_CHANNELS;
constexpr int kBankWords = MNEMO_BANK_WORDS;
constexpr int kEntries = 4;  // of a beat

struct Rates {
  int job = 100;  // percent of cycles in which a stream moves
  int score = 100;
  int list = 100;
  int head = 100;
  int hit = 100;
};

class Bench {
 public:
  struct Beat {
    uint32_t head = 0;
    std::vector<int16_t> y;
  };

  explicit Bench(uint32_t seed);
  ~Bench() { top_->final(); }

  // Runs jobs one behind the other and compares each with its expectation. Fails the test case after too many
  // cycles without progress.
  void Run(const std::vector<Job>& jobs, const Rates& rates) {
    REQUIRE(Begin(jobs, rates, UINT64_MAX));
    End(jobs);
  }
  // The same for some cycles; whether all is done. A Reset may follow.
  bool Begin(const std::vector<Job>& jobs, const Rates& rates, uint64_t cycles);
  void Reset();

  // Cycles from a job's last score to its last hit or list entry, of the last Run.
  const std::vector<uint64_t>& select_cycles() const { return select_cycles_; }
  // Cycles in which each job had its last answer, of the last Run.
  const std::vector<uint64_t>& finished_at() const { return finished_at_; }
  // Cycles in which a lane's scores of a job waited, of the last Run.
  const std::vector<uint64_t>& stalls() const { return stalls_; }
  int failures() const { return context_.errorCount(); }
  uint64_t cycles() const { return cycles_; }

 private:
  struct ListEntry {
    uint32_t row = 0;
    uint64_t mask = 0;
  };
  struct Lane {
    size_t job = 0;  // that it sends, or has ended
    bool loaded = false;
    std::deque<Beat> beats;
    bool offered = false;
    std::deque<std::vector<ListEntry>> lists;  // complete
    std::vector<ListEntry> coming;
    size_t list_job = 0;  // the job whose list comes next
    bool again = false;   // and has come once
  };

  bool Chance(int percent) { return static_cast<int>(rng_() % 100) < percent; }
  void End(const std::vector<Job>& jobs);
  void Drive(const std::vector<Job>& jobs, const Rates& rates);
  void Take(const std::vector<Job>& jobs);
  void TakeHead(const Job& job);
  void TakeHits(const Job& job);
  void TakeList(int lane, const std::vector<Job>& jobs);
  bool Load(int lane, const Job& job);
  std::vector<Beat> PageBeats(const Job& job, uint32_t page, uint64_t mask);
  bool Finished(const std::vector<Job>& jobs) const;
  void Progress(size_t job) { finished_at_[job] = cycles_, idle_ = 0; }

  VerilatedContext context_;
  std::unique_ptr<Vselector_bench> top_;
  std::mt19937 rng_;
  uint64_t cycles_ = 0;
  uint64_t idle_ = 0;

  std::vector<Lane> lanes_;
  size_t next_job_ = 0;
  bool job_offered_ = false;
  size_t next_head_ = 0;
  size_t next_hits_ = 0;
  size_t hits_taken_ = 0;
  std::vector<uint64_t> stored_at_;    // last score
  std::vector<uint64_t> finished_at_;  // last answer
  std::vector<uint64_t> select_cycles_;
  std::vector<uint64_t> stalls_;
};

using rtl_tests::Cases;

// A bit a lane; the pin's type depends on their number.
template <typename Pin>
void SetPin(Pin& pin, uint64_t bits) {
  pin = static_cast<Pin>(bits);
}

Bench::Bench(uint32_t seed) : rng_(seed) {
  context_.threads(1);
  context_.randReset(2);
  context_.randSeed(static_cast<int>(seed));
  context_.errorLimit(1 << 30);  // a failed assertion is counted and does not stop the program
  top_ = std::make_unique<Vselector_bench>(&context_);
  Reset();
}

void Bench::Reset() {
  top_->job_valid = top_->head_ready = top_->hit_ready = 0;
  top_->score_valid = top_->list_ready = 0;
  for (int i = 0; i < 10; ++i) {
    top_->rst = i < 8;
    top_->clk = 0;
    top_->eval();
    top_->clk = 1;
    top_->eval();
  }
}

// Rank codes of the entries of a page, 8 a beat.
std::vector<Bench::Beat> CodeBeats(const Job& job, uint32_t page, uint64_t mask) {
  std::vector<Bench::Beat> beats;
  for (uint32_t first = 0; first < 64; first += 8) {
    Bench::Beat beat;
    uint32_t counts = 0;
    for (uint32_t e = 0; e < 8; ++e) {
      uint32_t code = 0;
      if ((mask >> (first + e) & 1) != 0) {
        const auto place = std::lower_bound(job.entries.begin(), job.entries.end(), page * 64 + first + e);
        code = static_cast<uint32_t>(job.relu_ranks[static_cast<size_t>(place - job.entries.begin())]) ^
               0x80000000U;
        counts |= 1U << e;
      }
      beat.y.push_back(static_cast<int16_t>(code));
      beat.y.push_back(static_cast<int16_t>(code >> 16));
    }
    beat.head = static_cast<uint32_t>(first == 56) << 19 | first << 5 | counts;
    beats.push_back(std::move(beat));
  }
  return beats;
}

// The beats of one page for all passes; scores of entries and queries that do not count are anything.
std::vector<Bench::Beat> Bench::PageBeats(const Job& job, uint32_t page, uint64_t mask) {
  if (job.rank == Rank::kRelu) return CodeBeats(job, page, mask);
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
          beat.y[static_cast<size_t>(e) * kQueries + static_cast<size_t>(q)] = y;
        }
      }
      const bool page_last = first + kEntries >= count;
      beat.head = static_cast<uint32_t>(page_last) << 19 | static_cast<uint32_t>(job.maxima) << 18 |
                  static_cast<uint32_t>(pass) << 14 | static_cast<uint32_t>(first / kEntries) << 8 | counts;
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
    // Last, none, and whether the job is one of maxima; the rest is anything.
    none.head = 3U << 20 | static_cast<uint32_t>(job.maxima) << 18 | (rng_() & 0xBFFFF);
    none.y.resize(kEntries * kQueries);
    for (int16_t& y : none.y) y = 32767;
    state.beats.push_back(std::move(none));
  } else {
    state.beats.back().head |= 1U << 21;
  }
  return true;
}

void Bench::Drive(const std::vector<Job>& jobs, const Rates& rates) {
  Vselector_bench& p = *top_;
  if (!job_offered_ && next_job_ < jobs.size() && Chance(rates.job)) {
    const Job& job = jobs[next_job_];
    const uint32_t page = static_cast<uint32_t>(EntriesOf(job.shape));
    job_offered_ = true;
    p.job_plain = job.rank == Rank::kPlainMax;
    p.job_exp2 = job.rank == Rank::kExp2Sum;
    p.job_relu = job.rank == Rank::kRelu;
    p.job_bounded = job.bounded;
    p.job_bound = static_cast<uint32_t>(job.bound);
    p.job_shape = job.maxima ? kShapeMaxima : static_cast<uint8_t>(job.shape);
    p.job_of_page = static_cast<uint8_t>(job.shape);
    p.job_group_last = static_cast<uint8_t>(job.group - 1);
    p.job_pass_last = static_cast<uint8_t>(job.passes() - 1);
    p.job_listed = job.listed && !job.measured;
    p.job_to_list = job.to_list;
    p.job_kept = job.kept;
    p.job_measured = job.measured;
    p.job_none = !job.listed && job.begin == job.end;
    p.job_first_page = job.begin / page + static_cast<uint32_t>(job.shift);
    p.job_last_page = (job.end == 0 ? 0 : (job.end - 1) / page) + static_cast<uint32_t>(job.shift);
    p.job_skip = static_cast<uint8_t>(job.begin % page);
    p.job_last_entry = static_cast<uint8_t>(job.end == 0 ? 0 : (job.end - 1) % page);
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
  REQUIRE(p.head_measured == job.measured);
  REQUIRE(p.head_candidates == job.candidates);
  REQUIRE(p.head_cut == (job.bounded && job.candidates > job.ids.size()));
  REQUIRE(p.head_count == job.ids.size());
  REQUIRE(p.head_pages == job.pages);
  const int32_t last = job.ranks.empty() ? 0 : *std::min_element(job.ranks.begin(), job.ranks.end());
  if (!job.measured) REQUIRE(static_cast<int32_t>(p.head_last_rank) == last);
  // The bench's cycle counter runs in step with the test's.
  REQUIRE(p.head_scored >= stored_at_[next_head_]);
  // The second job of a long scan is stored when the ranks of its last page are made.
  const int of_ranks = job.kept ? 8 * job.passes() + 20 : 0;
  REQUIRE(p.head_scored <= stored_at_[next_head_] + 10 + static_cast<uint32_t>(of_ranks));
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
  size_t at = 0;
  for (const auto& [page, mask] : job.list) {
    const uint32_t place = page + static_cast<uint32_t>(job.shift);
    if (place % kChannels != static_cast<uint32_t>(lane)) continue;
    REQUIRE(at < state.coming.size());
    REQUIRE(state.coming[at].row == place / kChannels);
    // Bits behind the last entry of a page say nothing.
    const uint64_t entries = ~uint64_t{0} >> (64 - EntriesOf(job.shape));
    REQUIRE((state.coming[at].mask & entries) == mask);
    ++at;
  }
  REQUIRE(state.coming.size() == at);
  Progress(state.list_job);
  state.lists.push_back(std::move(state.coming));
  state.coming.clear();
  state.again = job.twice && !state.again;
  state.list_job += state.again ? 0 : 1;
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

bool Bench::Begin(const std::vector<Job>& jobs, const Rates& rates, uint64_t cycles) {
  lanes_.assign(kChannels, Lane());
  next_job_ = next_head_ = next_hits_ = hits_taken_ = 0;
  job_offered_ = false;
  stored_at_.assign(jobs.size(), 0);
  finished_at_.assign(jobs.size(), 0);
  stalls_.assign(jobs.size(), 0);
  idle_ = 0;
  const uint64_t start = cycles_;
  while (!Finished(jobs)) {
    if (cycles_ - start == cycles) return false;
    Drive(jobs, rates);
    top_->clk = 0;
    top_->eval();
    Take(jobs);
    top_->clk = 1;
    top_->eval();
    ++cycles_;
    REQUIRE(++idle_ < 200000);
  }
  return true;
}

void Bench::End(const std::vector<Job>& jobs) {
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
  REQUIRE(failures() == 0);
}

// Few pages make a case short; what depends on their number is left to kAny.
enum class Size { kAny, kSmall };

// A range that the banks hold, anywhere in an index.
Job AnyJob(std::mt19937& rng, Size size) {
  Job job;
  job.shape = static_cast<Shape>(rng() % 3);
  job.group = 1 + static_cast<int>(rng() % 16);
  if (rng() % 2 == 0) job.group = 1 + static_cast<int>(rng() % 4);
  job.rank = static_cast<Rank>(rng() % 4);
  if (job.rank == Rank::kRelu) job.shape = Shape::kTokens;
  job.shift = static_cast<int>(rng() % kChannels);
  const uint32_t page = static_cast<uint32_t>(EntriesOf(job.shape));
  const int words = job.rank == Rank::kRelu ? 4 : WordsOf(job.shape) * job.passes();
  // A job may have both banks.
  const uint32_t banks = rng() % 4 == 0 ? 2 : 1;
  const uint32_t rows = banks * static_cast<uint32_t>(kBankWords) / static_cast<uint32_t>(words) - 1;
  uint32_t pages = static_cast<uint32_t>(rng()) % (rows * kChannels) + 1;
  if (size == Size::kSmall || rng() % 2 == 0) pages = std::min<uint32_t>(pages, 1 + rng() % 8);
  const uint32_t first = static_cast<uint32_t>(rng()) % 100 * (rng() % 2 == 0 ? 1000U : 1U);
  job.begin = first * page + static_cast<uint32_t>(rng()) % page;
  job.end = (first + pages - 1) * page + 1 + static_cast<uint32_t>(rng()) % page;
  if (rng() % 16 == 0) job.end = job.begin;
  job.end = std::max(job.end, job.begin);
  for (uint32_t entry = job.begin; entry < job.end; ++entry) job.entries.push_back(entry);
  job.k = AnyK(static_cast<uint32_t>(job.entries.size()), rng);
  FillScores(job, AnyOrder(rng), rng);
  if (rng() % 3 == 0) SetBound(job, rng);
  return job;
}

// A job that makes lists, and the listed one that uses them.
std::pair<Job, Job> AnyCascade(std::mt19937& rng, Size size) {
  Job first = AnyJob(rng, size);
  while (first.shape != Shape::kTokens) first = AnyJob(rng, size);
  first.to_list = true;
  first.bounded = false;
  Expect(first);
  Job second;
  second.listed = true;
  second.group = first.group;
  second.rank = first.rank;
  second.shift = first.shift;
  second.entries = first.ids;
  second.k = AnyK(static_cast<uint32_t>(second.entries.size()), rng);
  FillScores(second, AnyOrder(rng), rng);
  if (rng() % 3 == 0) SetBound(second, rng);
  Expect(second);
  return {first, second};
}

// A range of any length up to what the maxima of its pages allow.
Job AnyLongJob(std::mt19937& rng, Size size) {
  Job job;
  job.group = 1 + static_cast<int>(rng() % (kBankWords < 256 ? 8 : 16));
  job.rank = rng() % 3 == 0 ? Rank::kPlainMax : Rank::kMax;
  job.shape = rng() % 2 == 0 ? Shape::kTokens : static_cast<Shape>(rng() % 3);
  job.shift = static_cast<int>(rng() % kChannels);
  const auto page = static_cast<uint32_t>(EntriesOf(job.shape));
  const auto most = static_cast<uint32_t>(kBankWords / job.passes() * 8 * kChannels);
  // Not every case needs megabytes of scores.
  const uint32_t usual = (size == Size::kSmall ? 20U : rng() % 8 == 0 ? 600U : 60U) * (page == 64 ? 1 : 4);
  const uint32_t pages = 1 + static_cast<uint32_t>(rng()) % std::min(most, usual);
  const uint32_t first = static_cast<uint32_t>(rng()) % 300;
  job.begin = first * page + static_cast<uint32_t>(rng()) % page;
  job.end = (first + pages - 1) * page + 1 + static_cast<uint32_t>(rng()) % page;
  if (rng() % 16 == 0) job.end = job.begin;
  job.end = std::max(job.end, job.begin);
  for (uint32_t entry = job.begin; entry < job.end; ++entry) job.entries.push_back(entry);
  // The lists hold so many pages of a lane.
  constexpr auto kListed = static_cast<uint32_t>(kBankWords / 2);
  const uint32_t rows = (pages + kChannels - 1) / kChannels;
  const auto any_k = AnyK(static_cast<uint32_t>(job.entries.size()), rng);
  job.k = rows <= kListed ? any_k : std::min(any_k, kListed);
  FillScores(job, AnyOrder(rng), rng);
  return job;
}

std::vector<Job> AnyJobs(int count, std::mt19937& rng, Size size = Size::kAny) {
  std::vector<Job> jobs;
  while (static_cast<int>(jobs.size()) < count) {
    const unsigned kind = rng() % 10;
    if (kind == 9) {
      Job whole = AnyLongJob(rng, size);
      while (ListOf(whole.entries, static_cast<uint32_t>(EntriesOf(whole.shape))).size() >
             size_t{kChannels} * kBankWords / 2) {
        whole = AnyLongJob(rng, size);
      }
      auto [first, second] = LongBound(std::move(whole), rng);
      jobs.push_back(std::move(first));
      jobs.push_back(std::move(second));
      continue;
    }
    if (kind == 8) {
      Job whole = AnyLongJob(rng, size);
      while (whole.shape != Shape::kTokens) whole = AnyLongJob(rng, size);
      for (Job& job : LongCascade(whole, rng)) jobs.push_back(std::move(job));
      continue;
    }
    if (kind == 7) {
      auto [first, second] = LongScan(AnyLongJob(rng, size));
      jobs.push_back(std::move(first));
      jobs.push_back(std::move(second));
      continue;
    }
    if (kind >= 2) {
      jobs.push_back(AnyJob(rng, size));
      Expect(jobs.back());
      continue;
    }
    auto [first, second] = AnyCascade(rng, size);
    if (kind == 0) {
      jobs.push_back(std::move(first));
      jobs.push_back(std::move(second));
      continue;
    }
    // The next position's lists are made before this one's are used.
    auto [third, fourth] = AnyCascade(rng, size);
    jobs.push_back(std::move(first));
    jobs.push_back(std::move(third));
    jobs.push_back(std::move(second));
    jobs.push_back(std::move(fourth));
  }
  return jobs;
}

// One stream at most is slow: it then bounds all the others.
Rates AnyRates(std::mt19937& rng) {
  constexpr int kChoices[] = {100, 100, 90, 50, 30};
  std::array<int, 5> rates{};
  for (int& rate : rates) rate = kChoices[rng() % std::size(kChoices)];
  if (rng() % 4 == 0) rates[rng() % rates.size()] = rng() % 2 == 0 ? 10 : 3;
  return {.job = rates[0], .score = rates[1], .list = rates[2], .head = rates[3], .hit = rates[4]};
}

}  // namespace

TEST_CASE("selections equal those of proto/layout") {
  constexpr int kJobs = 16;
  const int cases = Cases(MNEMO_SELECTIONS);
  for (int done = 0; done < cases; done += kJobs) {
    const uint32_t seed = 1 + static_cast<uint32_t>(done);
    INFO("seed " << seed);
    std::mt19937 rng(seed);
    Bench bench(seed);
    bench.Run(AnyJobs(kJobs, rng), AnyRates(rng));
  }
}

TEST_CASE("many small selections equal those of proto/layout") {
  constexpr int kJobs = 50;
  const int cases = Cases(MNEMO_SMALL_SELECTIONS);
  Bench bench(2);
  for (int done = 0; done < cases; done += kJobs) {
    const uint32_t seed = 1000000 + static_cast<uint32_t>(done);
    INFO("seed " << seed);
    std::mt19937 rng(seed);
    bench.Run(AnyJobs(kJobs, rng, Size::kSmall), AnyRates(rng));
  }
}

// Pages 0 and 1 hold the best scores of query 0, page 2 that of query 1. The lower ids win, so page 2 is not
// listed; the ranks of the listed entries are still those below its score.
TEST_CASE("a long scan keeps the best score of a query whose page is not listed") {
  Job job;
  job.group = 2;
  job.end = 64 * 3;
  job.k = 2;
  for (uint32_t entry = 0; entry < job.end; ++entry) job.entries.push_back(entry);
  job.scores.assign(size_t{2} * job.end, -1000);
  int16_t* const second = &job.scores[job.end];
  for (const size_t page : {0U, 1U}) {
    job.scores[page * 64] = 90;  // 10 below the best
    second[page * 64] = 50;      // the best of query 1 in the listed pages
    job.scores[page * 64 + 1] = 100;
  }
  second[2 * 64 + 5] = 100;
  auto [first, listed] = LongScan(job);
  REQUIRE(first.ids == std::vector<uint32_t>{0, 1});
  REQUIRE(listed.ids == std::vector<uint32_t>{1, 65});
  Bench bench(3);
  bench.Run({first, listed, first, listed}, Rates());
}

TEST_CASE("entries of the last rank that are left out do not reach the next job") {
  // The lanes begin the next job while few of them are still on their way, and wait when there are many.
  std::mt19937 rng(10);
  Bench bench(10);
  for (const uint32_t left_out : {0U, 1U, 2U, 7U, 8U, 9U, 16U, 24U, 31U, 32U, 33U, 40U, 64U}) {
    for (const Rank rank : {Rank::kMax, Rank::kPlainMax, Rank::kExp2Sum}) {
      INFO("left out: " << left_out << ", group operation " << GroupOpOf(rank));
      std::vector<Job> jobs(6);
      for (Job& job : jobs) {
        const uint32_t taken = 1 + static_cast<uint32_t>(rng()) % 3;
        const uint32_t above = static_cast<uint32_t>(rng()) % 40;
        job.rank = rank;
        job.end = 64 * (2 + static_cast<uint32_t>(rng()) % (3 * kChannels));
        for (uint32_t entry = 0; entry < job.end; ++entry) job.entries.push_back(entry);
        job.scores.assign(job.end, -3000);
        std::vector<uint32_t> places = job.entries;
        std::shuffle(places.begin(), places.end(), rng);
        // The last page has some of those that are left out: they come behind the job's last hit.
        const uint32_t tied = taken + left_out;
        for (uint32_t n = 0; n < tied; ++n) job.scores[n % 2 == 0 ? job.end - 1 - n : places[n]] = 10;
        job.scores[job.end - 1] = 10;
        for (uint32_t n = 0; n < above && tied + n < job.end; ++n) {
          int16_t& score = job.scores[places[tied + n]];
          if (score < 0) score = static_cast<int16_t>(20 + n);
        }
        const auto ties = static_cast<uint32_t>(std::count(job.scores.begin(), job.scores.end(), 10));
        const auto best = static_cast<uint32_t>(
            std::count_if(job.scores.begin(), job.scores.end(), [](int16_t score) { return score > 10; }));
        job.k = best + ties - std::min(left_out, ties - 1);
        Expect(job);
      }
      bench.Run(jobs, Rates());
    }
  }
}

TEST_CASE("pages behind the last hit do not reach the next job, which the lanes have begun") {
  // Pages full of hits keep the collector, whose results are slow, until the lanes have the next decision.
  // Behind them are pages with an entry of the last rank each.
  Bench bench(12);
  constexpr uint32_t kPages = kBankWords * 8 * kChannels / 64;  // of a bank
  for (const uint32_t full : {4U, std::min(12U, kPages / 2)}) {
    for (const uint32_t most : {12U, 32U}) {
      const uint32_t left_out = std::min(most, kPages - full - 1);
      std::vector<Job> jobs(4);
      for (Job& job : jobs) {
        job.k = 64 * full + 1;
        job.end = 64 * (full + 1 + left_out);
        for (uint32_t entry = 0; entry < job.end; ++entry) job.entries.push_back(entry);
        job.scores.assign(job.end, -3000);
        std::fill_n(job.scores.begin(), 64 * full, 20);
        for (uint32_t page = full; page <= full + left_out; ++page) job.scores[page * 64 + page] = 10;
        Expect(job);
      }
      INFO("full pages: " << full << ", left out: " << left_out);
      bench.Run(jobs, {.hit = 10});
      bench.Run(jobs, {.hit = 3});
    }
  }
}

TEST_CASE("a reset drops all jobs at any time") {
  const int cases = Cases(MNEMO_RESETS);
  std::mt19937 rng(9);
  Bench bench(9);
  for (int done = 0; done < cases; ++done) {
    INFO("reset " << done);
    bench.Begin(AnyJobs(4, rng), AnyRates(rng), rng() % 4000);
    bench.Reset();
    bench.Run(AnyJobs(2, rng), Rates());
  }
}

TEST_CASE("a bank full of rank codes is selected from") {
  std::mt19937 rng(6);
  Bench bench(6);
  const uint32_t tokens = static_cast<uint32_t>(kBankWords * 16 * kChannels);
  for (const Order order : {Order::kEqual, Order::kRandom}) {
    Job job;
    job.rank = Rank::kRelu;
    job.group = 64;
    job.end = tokens;
    job.k = 1000;
    for (uint32_t entry = 0; entry < tokens; ++entry) job.entries.push_back(entry);
    FillScores(job, order, rng);
    Expect(job);
    bench.Run({job}, Rates());
  }
}

// Each job waits for both banks of the one before it.
TEST_CASE("both banks full of scores are selected from") {
  std::mt19937 rng(12);
  Bench bench(12);
  for (const Rank rank : {Rank::kExp2Sum, Rank::kRelu}) {
    Job job;
    job.rank = rank;
    job.group = rank == Rank::kRelu ? 64 : 4;
    job.end = static_cast<uint32_t>(kBankWords * (rank == Rank::kRelu ? 32 : 16) * kChannels);
    job.k = job.end / 3;
    for (uint32_t entry = 0; entry < job.end; ++entry) job.entries.push_back(entry);
    FillScores(job, Order::kRandom, rng);
    Expect(job);
    Job small;
    small.end = 64 * kChannels;
    for (uint32_t entry = 0; entry < small.end; ++entry) small.entries.push_back(entry);
    FillScores(small, Order::kRandom, rng);
    Expect(small);
    bench.Run({small, job, small, small, job, job}, Rates());
  }
}

TEST_CASE("a long scan lists as many pages as a bank has ranks of") {
  if (kBankWords > 256 && Cases(1) == 1) return;  // for nightly runs
  std::mt19937 rng(8);
  Bench bench(8);
  for (const Order order : {Order::kEqual, Order::kRandom}) {
    Job job;
    job.rank = order == Order::kEqual ? Rank::kMax : Rank::kPlainMax;
    job.group = 5;
    job.end = static_cast<uint32_t>(kBankWords / 2 * kChannels * 64);
    job.k = job.end - 1;
    for (uint32_t entry = 0; entry < job.end; ++entry) job.entries.push_back(entry);
    FillScores(job, order, rng);
    auto [first, second] = LongScan(job);
    REQUIRE(second.pages == job.end / 64);
    bench.Run({std::move(first), std::move(second)}, Rates());
  }
}

TEST_CASE("a head stands while its bank is filled anew") {
  // Jobs without entries have no hits either, for which a bank would wait.
  Bench bench(7);
  std::vector<Job> jobs(40);
  bench.Run(jobs, {.head = 1});
}

TEST_CASE("the order of scores neither stalls a scan nor prolongs a selection") {
  std::mt19937 rng(5);
  Bench bench(5);
  const uint32_t tokens = static_cast<uint32_t>(kBankWords * 8 * kChannels);
  for (int order = 0; order < static_cast<int>(Order::kOrders); ++order) {
    for (const Rank rank : {Rank::kMax, Rank::kPlainMax, Rank::kExp2Sum}) {
      INFO("order " << order << " group operation " << GroupOpOf(rank));
      Job job;
      job.group = 4;
      job.rank = rank;
      job.end = tokens;
      job.k = std::min(1024U, tokens / 8);
      for (uint32_t entry = 0; entry < tokens; ++entry) job.entries.push_back(entry);
      FillScores(job, static_cast<Order>(order), rng);
      Expect(job);
      bench.Run({job, job, job}, Rates());
      // A lane's scores of the second job come while the first one is selected.
      REQUIRE(bench.stalls()[1] == 0);
      // A lane reads 8 entries a cycle first, 1 for the sum of exp2. Then it reads 16 a digit and 16 for the
      // hits, or 8 with ranks of 32 bits. A hit takes a cycle at most, and two cycles more in each read that
      // has one.
      const bool wide = rank == Rank::kExp2Sum;
      const uint32_t of_lane = tokens / kChannels;
      const uint64_t digits = wide ? 7 : rank == Rank::kPlainMax ? 4 : 3;
      const uint64_t reads = of_lane / (wide ? 1 : 8) + digits * of_lane / (wide ? 8 : 16);
      const uint64_t bound =
          reads + (digits + 2) * 50 + job.k + 2 * std::min(job.k, of_lane / (wide ? 8 : 16));
      REQUIRE(bench.select_cycles()[0] <= bound);
      if (std::getenv("MNEMO_RTL_REPORT") != nullptr) {
        WARN(tokens << " tokens, " << kChannels << " lanes, k " << job.k << ", order " << order
                    << ", group operation " << GroupOpOf(rank) << ": " << bench.select_cycles()[0]
                    << " cycles");
      }
    }
  }
}

// Cycles of jobs that follow each other: of the first one alone, and at most from one's end to the next
// one's.
struct Pace {
  uint64_t first = 0;
  uint64_t period = 0;
};

Pace PaceOf(uint32_t tokens, uint32_t k, bool plain) {
  constexpr int kHeads = 8;
  std::mt19937 rng(11);
  Bench bench(11);
  std::vector<Job> jobs(kHeads);
  for (Job& job : jobs) {
    job.group = 4;
    job.rank = plain ? Rank::kPlainMax : Rank::kMax;
    job.end = tokens;
    job.k = k;
    for (uint32_t entry = 0; entry < tokens; ++entry) job.entries.push_back(entry);
    // Ranks of all entries differ but for few, so that hits lie anywhere.
    for (uint32_t n = 0; n < 4 * tokens; ++n) job.scores.push_back(static_cast<int16_t>(rng() % 4096));
    Expect(job);
  }
  bench.Run(jobs, Rates());
  Pace pace{.first = bench.select_cycles()[0]};
  for (size_t head = 1; head < kHeads; ++head) {
    pace.period = std::max(pace.period, bench.finished_at()[head] - bench.finished_at()[head - 1]);
  }
  return pace;
}

TEST_CASE("jobs of few tokens follow each other closely") {
  // As many entries a lane as 32 lanes have of 8,192, and of 1,024 ids as many a lane; then half of all
  // entries, and all but one.
  constexpr uint32_t kTokens = 256 * kChannels;
  for (const bool plain : {false, true}) {
    for (const uint32_t k : {kTokens / 8, kTokens / 2, kTokens - 1}) {
      const Pace pace = PaceOf(kTokens, k, plain);
      if (std::getenv("MNEMO_RTL_REPORT") != nullptr) {
        WARN(kChannels << " lanes, k " << k << ", plain " << plain << ": " << pace.first << " cycles, then "
                       << pace.period);
      }
      INFO("k " << k << " plain " << plain);
      // While one job is collected the next one is swept: the longer of both is the period. A lane finds a
      // hit a cycle; all lanes pass a group of up to 8 hits of a page a cycle. The lanes are ahead of the
      // collector, so that the first hits of the next job are there when it is free.
      const uint64_t sweeps = plain ? 236 : 188;
      const uint64_t hits = std::max(k / kChannels + 32, k / 8 + kTokens / 128);
      REQUIRE(pace.period <= std::max(sweeps, 16 + hits));
      const int levels =
          std::bit_width(static_cast<unsigned>(kChannels)) - 1;  // of the tree that merges hits
      REQUIRE(pace.first <= sweeps + 64 + static_cast<uint64_t>(2 * levels) + hits);
    }
  }
}

}  // namespace mnemo::rtl_select
