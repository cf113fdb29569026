#pragma once

// A lane with its channel and its streams, one clock at a time. Every handshake stalls at random.

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>

#include "Vlane.h"
#include "scan_case.h"
#include "verilated.h"

namespace mnemo::rtl_scan {

// The parameters that the lane of this program was made with.
inline constexpr Shape kLaneShape = {MNEMO_LANE_CHANNELS, MNEMO_LANE_G, MNEMO_LANE_S};

// Percentages of cycles in which a side is ready or gives something, and the channel's latency.
struct Pace {
  uint32_t address = 100;
  uint32_t data = 100;
  uint32_t scores = 100;
  uint32_t queries = 100;
  uint32_t jobs = 100;
  uint32_t lists = 100;
  uint32_t latency = 20;  // cycles
  uint32_t jitter = 0;
};

Pace RandomPace(std::mt19937& rng);

// Cycles with each event.
struct LaneEvents {
  uint64_t beat = 0;
  uint64_t memory = 0;
  uint64_t tables = 0;
  uint64_t scorers = 0;
  uint64_t bank = 0;
  uint64_t busy = 0;
};

class LaneBench {
 public:
  LaneBench(const Channel& channel, uint32_t lane, uint32_t seed);
  ~LaneBench();

  void Reset();
  void Add(const Case& scan);
  // One clock. Scores are compared with those of the cases; false: they differ, or something else is wrong
  // that `error` tells.
  void Step(const Pace& pace);

  // Runs until all scores have come; returns what is wrong.
  std::string Finish(const Pace& pace, uint64_t bound);

  bool Done() const { return scores_.empty(); }
  const std::string& error() const { return error_; }
  uint64_t cycles() const { return cycles_; }
  uint64_t beats() const { return beats_; }
  uint64_t compared() const { return compared_; }
  uint64_t first_beat() const { return first_beat_; }
  uint64_t last_score() const { return last_score_; }
  uint64_t bursts() const { return asked_; }
  const LaneEvents& events() const { return events_; }
  uint64_t open_bursts() const { return bursts_.size(); }
  Vlane& pins() { return *top_; }

  // The response of the n-th beat of data from now on is this error; 0: none.
  uint64_t error_in = 0;

 private:
  struct Burst {
    uint64_t beat = 0;
    uint32_t left = 0;
    uint64_t ready = 0;
  };

  bool Chance(uint32_t percent) { return rng_() % 100 < percent; }
  void OfferJob(const Pace& pace);
  void OfferQuery(const Pace& pace);
  void OfferList(const Pace& pace);
  void OfferData(const Pace& pace);
  void TakeAddress(const Pace& pace);
  void TakeScore();
  void CompareScore(const ScoreBeat& want);

  const Channel& channel_;
  VerilatedContext context_;
  std::unique_ptr<Vlane> top_;
  std::mt19937 rng_;
  std::deque<ScanJob> jobs_;
  std::deque<QueryBeat> queries_;
  std::deque<ListEntry> lists_;
  std::deque<ScoreBeat> scores_;
  std::deque<Burst> bursts_;
  std::string error_;
  uint64_t cycles_ = 0;
  uint64_t beats_ = 0;
  uint64_t first_beat_ = 0;
  uint64_t compared_ = 0;
  uint32_t added_ = 0;
  uint64_t last_score_ = 0;
  uint64_t asked_ = 0;
  LaneEvents events_;
};

}  // namespace mnemo::rtl_scan
