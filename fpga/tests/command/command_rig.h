#pragma once

// The command processor in RTL between a host memory and stand-ins of lanes and selector. The rig says by
// proto/layout what each descriptor that the card reads has to give, and checks it all: jobs, queries,
// results, completions, and the order of writes.

#include <Vcommand_bench.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "host_memory.h"
#include "queue_limits.h"

namespace mnemo::rtl_command {

struct QueryBeat {
  bool last, is_param;
  uint32_t query, segment;
  std::array<uint32_t, 16> data;
};

// One position and head: what the stand-in of the selector answered.
struct Block {
  uint32_t candidates = 0;
  int32_t last_rank = 0;
  bool cut = false;
  std::vector<uint32_t> ids;
  std::vector<int32_t> ranks;
};

// A descriptor that the card has read.
struct Taken {
  uint32_t queue = 0;
  layout::Descriptor d{};
  layout::IndexInfo info;
  layout::CardIndex entry{};
  layout::Verdict verdict;
  uint64_t result_address = 0;
  std::vector<Block> blocks;
  uint64_t bytes_read = 0;
  uint32_t taken_cycle = 0;
  uint32_t scored_cycle = 0;
  std::optional<uint32_t> open_cycle;  // the last one in which a result had no response
  bool body_written = false;
  bool status_written = false;
};

struct Job {
  Taken* taken = nullptr;
  uint32_t position = 0;
  uint32_t head = 0;
  bool long_scan = false;
  bool cascade = false;
  bool bounded = false;
  int stage = 0;

  // The last one gives ids: of a cascade or a long scan the second one, of both the fourth one.
  int last_stage() const { return long_scan && cascade ? 3 : long_scan || cascade ? 1 : 0; }
  bool all_twice() const { return long_scan && bounded && !cascade; }
  bool listed() const { return stage != 0 && !all_twice(); }
  bool sign_stage() const { return cascade && stage <= last_stage() / 2; }
  bool maxima() const { return long_scan && stage % 2 == 0; }
  bool measured() const { return maxima() && (listed() || all_twice()); }
  bool kept() const { return long_scan && stage % 2 == 1; }
  bool to_list() const { return stage != last_stage() && !measured(); }
};

struct TestQueue {
  bool enabled = false;
  bool poll = false;
  QueueLimits limits;
  std::vector<TableIndex> table;
  uint64_t ring = 0, completions = 0, table_address = 0;
  uint64_t regions[2] = {};
  uint32_t region_next[2] = {};
  uint32_t slots = 0;
  uint32_t head = 0;       // descriptors submitted
  uint32_t taken = 0;      // read by the card
  uint32_t tail = 0;       // as the card wrote it
  uint32_t completed = 0;  // heads of the completions' ring
  uint32_t seq = 0;        // of the next descriptor
  uint32_t card_seq = 0;   // that the card has to expect
};

class CommandRig {
 public:
  static constexpr uint32_t kRegionUnits = 32768;
  static constexpr uint32_t kPeriod = 1024;  // 250 MHz

  explicit CommandRig(uint64_t seed);
  ~CommandRig();

  void Cycle();
  void Run(int cycles) {
    for (int i = 0; i < cycles; ++i) Cycle();
  }
  uint32_t Read(uint32_t offset);
  void Write(uint32_t offset, uint32_t value, uint8_t strobes = 15);
  uint64_t ReadPair(uint32_t offset) { return Read(offset) | uint64_t{Read(offset + 4)} << 32; }

  // Sets up a queue and enables it; its rings stand at `first_index`.
  void Open(uint32_t number, uint32_t slots, uint32_t first_index, bool poll);
  TestQueue& queue(uint32_t number) { return queues_[number]; }
  bool HasRoom(uint32_t number) const;
  // A good descriptor with its payload, or an altered one that may still be good; k and flags when given.
  layout::Descriptor Make(uint32_t number, bool altered, uint32_t k = 0, int flags = -1);
  // The same once more, with the next sequence number and untouched results.
  layout::Descriptor Again(uint32_t number, layout::Descriptor d);
  void Submit(uint32_t number, const layout::Descriptor& d);
  // Writes the table's entry and tokens to memory.
  void StoreIndex(uint32_t number, uint32_t id);
  // Publishes what was submitted: the doorbell, or the head in the ring.
  void Ring(uint32_t number);
  // Runs until all that is submitted is completed; at most so many cycles.
  bool Drain(int cycles = 400000);

  HostMemory& memory() { return memory_; }
  std::mt19937_64& random() { return random_; }
  Vcommand_bench& top() { return *top_; }
  uint64_t completions() const { return completions_; }
  uint64_t refused() const { return refused_; }
  uint64_t jobs() const { return jobs_; }
  uint64_t long_scans() const { return long_scans_; }
  uint64_t long_cascades() const { return long_cascades_; }
  uint64_t long_bounds() const { return long_bounds_; }
  uint64_t scans() const { return scans_; }
  bool jobs_under_way() const { return !order_.empty(); }
  // Order in which the card read descriptors, by queue.
  const std::vector<uint32_t>& taken_order() const { return taken_order_; }
  // Addresses of the card's reads; a test may clear them.
  std::vector<uint64_t>& reads() { return reads_; }
  // Forgets what is under way, after a reset of the card.
  void Forget();

  int answer_percent = 60;  // of stand-ins
  int scan_cycles = 60;     // of a job, up to
  bool scans_end = true;
  bool exact_k = false;                   // the stand-in of the selector answers k hits
  uint32_t open_lanes = 0;                // `open` of lanes
  std::array<uint64_t, 6> lane_events{};  // of lane 1, as driven
  bool drive_lane_events = false;

 private:
  void OnRead(uint64_t address, uint32_t beats);
  void OnWrite(const HostMemory::Write& write);
  void TakeDescriptor(uint32_t number, uint64_t address);
  void CheckCompletion(TestQueue& queue, const Taken& taken);
  void CheckScanJob(const Job& job);
  void CheckSelectJob(const Job& job);
  void CheckQueryBeat();
  std::vector<QueryBeat> ExpectedQueries(const Job& job);
  void DriveStandIns();
  void ClockStandIns();
  void Answer(const Job& job);
  bool Chance() { return static_cast<int>(timing_() % 100) < answer_percent; }
  bool OpenWriteWithin(uint64_t address, uint64_t bytes) const;

  std::unique_ptr<Vcommand_bench> top_;
  std::mt19937_64
      random_;  // of queues and descriptors, so that these do not depend on the latency of the card
  std::mt19937_64 timing_;  // of the stand-ins and the registers' port
  HostMemory memory_;
  std::array<TestQueue, 8> queues_;
  std::vector<uint32_t> taken_order_;
  std::vector<uint64_t> reads_;
  uint64_t completions_ = 0, refused_ = 0, jobs_ = 0, long_scans_ = 0, long_cascades_ = 0, long_bounds_ = 0,
           scans_ = 0;

  // In the order of the card's reads.
  std::deque<std::unique_ptr<Taken>> order_;
  std::deque<Job> to_scan_, to_load_, to_select_;
  std::deque<QueryBeat> beats_;  // of the load under way
  // Counts of jobs: scan jobs taken, queries complete, scans ended, select jobs taken.
  uint64_t scan_jobs_ = 0, loaded_ = 0;
  int64_t scan_left_ = -1;
  std::deque<Job> selecting_;
  std::deque<uint32_t> scored_;  // cycles of ended scans that no head has told

  // The selector's answer under way.
  bool head_valid_ = false;
  Job answered_;
  Block answer_;
  uint32_t hits_sent_ = 0;
  bool hits_owed_ = false;
  bool hit_valid_ = false;
};

}  // namespace mnemo::rtl_command
