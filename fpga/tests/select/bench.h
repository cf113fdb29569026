#pragma once

// The selector's bench: lanes that send scores at random times, takers that stall at random, and what
// proto/layout says that each job gives.

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "Vselector_bench.h"
#include "verilated.h"

namespace mnemo::rtl {

constexpr int kChannels = MNEMO_CHANNELS;
constexpr int kBankWords = MNEMO_BANK_WORDS;
constexpr int kQueries = 4;  // of a pass
constexpr int kEntries = 4;  // of a beat

enum class Shape { kTokens = 0, kParts = 1, kPages = 2 };
constexpr int EntriesOf(Shape shape) { return shape == Shape::kTokens ? 64 : shape == Shape::kParts ? 4 : 1; }
constexpr int WordsOf(Shape shape) { return shape == Shape::kTokens ? 8 : 1; }

// One job with the scores of its entries.
struct Job {
  Shape shape = Shape::kTokens;
  int group = 1;
  bool plain = false;
  bool listed = false;
  bool to_list = false;
  int shift = 0;
  uint32_t begin = 0;  // entries, not listed
  uint32_t end = 0;
  uint32_t k = 1;
  std::vector<uint32_t> entries;  // that count, rising
  std::vector<int16_t> scores;    // [query][entry], as layout::Scores

  // What proto/layout gives.
  std::vector<uint32_t> ids;
  std::vector<int32_t> ranks;
  uint32_t pages = 0;  // that the lanes score

  int passes() const { return (group + kQueries - 1) / kQueries; }
};

// Fills in what layout::Ranks and layout::TopK give for the job's scores.
void Expect(Job& job);

struct Rates {
  int job = 100;  // percent of cycles in which a stream moves
  int score = 100;
  int list = 100;
  int head = 100;
  int hit = 100;
};

class Bench {
 public:
  explicit Bench(uint32_t seed);
  ~Bench() { top_->final(); }

  // Runs jobs one behind the other and compares each with its expectation. Fails the test case after too many
  // cycles without progress.
  void Run(const std::vector<Job>& jobs, const Rates& rates);

  // Cycles from a job's last score to its last hit or list entry, of the last Run.
  const std::vector<uint64_t>& select_cycles() const { return select_cycles_; }
  // Cycles in which a lane's scores of a job waited, of the last Run.
  const std::vector<uint64_t>& stalls() const { return stalls_; }
  int failures() const { return context_.errorCount(); }
  uint64_t cycles() const { return cycles_; }

 private:
  struct Beat {
    uint32_t head = 0;
    std::vector<int16_t> y;
  };
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
  };

  bool Chance(int percent) { return static_cast<int>(rng_() % 100) < percent; }
  void Clock();
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

// Cases of a test, or as many as MNEMO_RTL_CASES says.
inline int Cases(int usual) {
  const char* text = std::getenv("MNEMO_RTL_CASES");
  return text == nullptr ? usual : std::atoi(text);
}

}  // namespace mnemo::rtl
