#include "lane_bench.h"

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>

namespace mnemo::rtl_scan {
namespace {

// A word of a port, which is one number up to 64 bits and an array above.
template <typename Port>
uint32_t WordOf(const Port& port, uint32_t word) {
  if constexpr (std::is_integral_v<Port>) {
    return static_cast<uint32_t>(uint64_t{port} >> 32 * word);
  } else {
    return port[word];
  }
}

}  // namespace

Pace RandomPace(std::mt19937& rng) {
  constexpr uint32_t kPercent[] = {100, 100, 90, 60, 30};
  const auto percent = [&] { return kPercent[rng() % 5]; };
  return {.address = percent(),
          .data = percent(),
          .scores = percent(),
          .queries = percent(),
          .jobs = percent(),
          .lists = percent(),
          .latency = static_cast<uint32_t>(1 + rng() % 150),
          .jitter = static_cast<uint32_t>(rng() % 3 == 0 ? 0 : rng() % 80)};
}

LaneBench::LaneBench(const Channel& channel, uint32_t lane, uint32_t seed) : channel_(channel), rng_(seed) {
  context_.threads(1);
  context_.randReset(2);
  context_.randSeed(static_cast<int>(seed));
  top_ = std::make_unique<Vlane>(&context_);
  top_->lane_id = static_cast<uint8_t>(lane);
  top_->base_beat = channel.base_beat;
  top_->length_beats = static_cast<uint32_t>(channel.beats.size());
  Reset();
}

LaneBench::~LaneBench() { top_->final(); }

void LaneBench::Reset() {
  Vlane& p = *top_;
  p.job_valid = p.query_valid = p.list_valid = p.ar_ready = p.r_valid = p.score_ready = p.stop = 0;
  p.rst = 1;
  for (int i = 0; i < 3; ++i) {
    p.clk = 0;
    p.eval();
    p.clk = 1;
    p.eval();
  }
  p.rst = 0;
  jobs_.clear();
  queries_.clear();
  lists_.clear();
  scores_.clear();
  bursts_.clear();
}

void LaneBench::Add(const Case& scan) {
  jobs_.push_back(scan.job);
  queries_.insert(queries_.end(), scan.queries.begin(), scan.queries.end());
  lists_.insert(lists_.end(), scan.list.begin(), scan.list.end());
  uint32_t page = 0;
  for (ScoreBeat beat : scan.scores) {
    beat.job = added_;
    beat.page = page;
    page += beat.page_last ? 1 : 0;
    scores_.push_back(beat);
  }
  ++added_;
}

void LaneBench::OfferJob(const Pace& pace) {
  Vlane& p = *top_;
  if (p.job_valid || jobs_.empty() || !Chance(pace.jobs)) {
    return;
  }
  PackJob(jobs_.front(), p.job);
  p.job_valid = 1;
}

void LaneBench::OfferQuery(const Pace& pace) {
  Vlane& p = *top_;
  if (p.query_valid || queries_.empty() || !Chance(pace.queries)) {
    return;
  }
  const QueryBeat& beat = queries_.front();
  uint32_t head[1];
  Pack({{beat.last, 1}, {beat.is_param, 1}, {beat.query, 6}, {beat.segment, 3}}, head, 1);
  p.query_head = static_cast<uint16_t>(head[0]);
  std::memcpy(&p.query_data[0], beat.data.data(), beat.data.size());
  p.query_valid = 1;
}

void LaneBench::OfferList(const Pace& pace) {
  Vlane& p = *top_;
  if (p.list_valid || lists_.empty() || !Chance(pace.lists)) {
    return;
  }
  PackEntry(lists_.front(), p.__SYM__list);
  p.list_valid = 1;
}

void LaneBench::OfferData(const Pace& pace) {
  Vlane& p = *top_;
  if (p.r_valid || bursts_.empty() || bursts_.front().ready > cycles_ || !Chance(pace.data)) {
    return;
  }
  const Burst& burst = bursts_.front();
  std::memcpy(&p.r_data[0], channel_.beats[burst.beat].data(), layout::kCardBeatBytes);
  p.r_last = burst.left == 1;
  p.r_resp = error_in == 1 ? 2 : 0;
  error_in -= error_in != 0 ? 1 : 0;
  p.r_valid = 1;
}

void LaneBench::TakeAddress(const Pace& pace) {
  Vlane& p = *top_;
  const uint64_t beat = p.ar_addr / layout::kCardBeatBytes;
  const uint32_t count = p.ar_len + 1U;
  const uint64_t end = channel_.base_beat + channel_.beats.size();
  if (beat < channel_.base_beat || beat + count > end) {
    error_ = "an address outside of the channel";
    return;
  }
  bursts_.push_back({beat - channel_.base_beat, count,
                     cycles_ + pace.latency + (pace.jitter == 0 ? 0 : rng_() % pace.jitter)});
  if (bursts_.size() > 32) error_ = "more than 32 bursts";
}

void LaneBench::TakeScore() {
  if (scores_.empty()) {
    error_ = "scores of no job";
    return;
  }
  CompareScore(scores_.front());
  scores_.pop_front();
  last_score_ = cycles_;
}

void LaneBench::CompareScore(const ScoreBeat& want) {
  Vlane& p = *top_;
  const uint32_t head = p.score_head;
  const bool last = (head >> 21 & 1) != 0;
  const bool none = (head >> 20 & 1) != 0;
  const auto context = [&] {
    return " job " + std::to_string(want.job) + " page and pass " + std::to_string(want.page) + " pass " +
           std::to_string(want.pass) + " at " + std::to_string(want.at) +
           ", compared before: " + std::to_string(compared_);
  };
  if (last != want.last || none != want.none) {
    error_ = "last " + std::to_string(last) + " none " + std::to_string(none) + context();
    return;
  }
  if (want.none) {
    return;
  }
  if ((head >> 22 & 1) != (want.value ? 1U : 0U)) {
    error_ = "value" + context();
    return;
  }
  if ((head >> 19 & 1) != (want.page_last ? 1U : 0U) || (head >> 18 & 1) != (want.maxima ? 1U : 0U) ||
      (head >> 14 & 15) != want.pass || (head >> 8 & 63) != want.at) {
    error_ = "page_last, maxima, pass or at" + context();
    return;
  }
  if ((head & 0xFF) != want.counts) {
    error_ = "counts " + std::to_string(head & 0xFF) + ", not " + std::to_string(want.counts) + context();
    return;
  }
  constexpr uint32_t g = kLaneShape.g;
  for (uint32_t i = 0; i < want.y.size(); ++i) {
    if (!want.codes && (i % g >= want.queries || (want.counts >> i / g & 1) == 0)) {
      continue;
    }
    const auto y = static_cast<int16_t>(WordOf(p.score_y, i / 2) >> 16 * (i % 2));
    if (y != want.y[i]) {
      error_ = "y " + std::to_string(y) + ", not " + std::to_string(want.y[i]) + " at " + std::to_string(i) +
               context();
      return;
    }
    ++compared_;
  }
}

void LaneBench::Step(const Pace& pace) {
  Vlane& p = *top_;
  OfferJob(pace);
  OfferQuery(pace);
  OfferList(pace);
  OfferData(pace);
  p.ar_ready = Chance(pace.address);
  p.score_ready = Chance(pace.scores);
  p.clk = 0;
  p.eval();
  const bool job = p.job_valid && p.job_ready;
  const bool query = p.query_valid && p.query_ready;
  const bool list = p.list_valid && p.list_ready;
  const bool data = p.r_valid && p.r_ready;
  if (p.ar_valid && p.ar_ready) {
    ++asked_;
    TakeAddress(pace);
  }
  if (p.score_valid && p.score_ready) TakeScore();
  events_.beat += p.ev_beat;
  events_.memory += p.ev_stall_memory;
  events_.tables += p.ev_stall_tables;
  events_.scorers += p.ev_stall_scorers;
  events_.bank += p.ev_stall_bank;
  events_.busy += p.ev_busy;
  p.clk = 1;
  p.eval();
  ++cycles_;
  if (job) {
    jobs_.pop_front();
    p.job_valid = 0;
  }
  if (query) {
    queries_.pop_front();
    p.query_valid = 0;
  }
  if (list) {
    lists_.pop_front();
    p.list_valid = 0;
  }
  if (data) {
    if (beats_++ == 0) first_beat_ = cycles_;
    Burst& burst = bursts_.front();
    ++burst.beat;
    if (--burst.left == 0) bursts_.pop_front();
    p.r_valid = 0;
  }
}

std::string LaneBench::Finish(const Pace& pace, uint64_t bound) {
  const uint64_t start = cycles_;
  while (!Done() && error_.empty()) {
    if (cycles_ - start > bound) return "the lane does not go on";
    Step(pace);
  }
  for (int i = 0; i < 50 && error_.empty(); ++i) Step(pace);
  return error_;
}

}  // namespace mnemo::rtl_scan
