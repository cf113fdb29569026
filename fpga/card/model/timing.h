#pragma once

// An estimate of the card's cycles. A lane gets 53 of 64 bytes of a beat a cycle at 250 MHz, 92 % of a
// channel's peak, and as many a second at another clock; the other figures are those that the RTL is built
// for. A period is that of kCardRegPeriod, 0: kDefaultPeriod.

#include <cstdint>

#include "fpga/card/model/jobs.h"

namespace mnemo::card::model {

constexpr uint64_t kHostLatencyNs = 950;   // of a read; a write takes about half
constexpr uint64_t kDefaultPeriod = 1024;  // nanoseconds of 256 cycles, at 250 MHz
constexpr uint64_t kNextCycles = 10;       // of the collector from job to job, when the lanes are ahead of it

// Reads of one lane in a job.
struct LaneWork {
  uint64_t pages = 0;
  uint64_t beats = 0;       // of blocks
  uint64_t list_beats = 0;  // of the page list
};

struct ScanCycles {
  uint64_t total = 0;          // the largest of the next three
  uint64_t memory = 0;         // beats at the channel's rate
  uint64_t passes = 0;         // a beat of planes a cycle, or the tables, once a pass
  uint64_t scorers = 0;        // S scores a cycle
  uint64_t stall_memory = 0;   // cycles without a beat, when memory bounds
  uint64_t stall_scorers = 0;  // cycles in which beats wait, when scorers bound
};

ScanCycles ScanTime(const ScanJob& job, const Shape& shape, const LaneWork& lane,
                    uint32_t period = kDefaultPeriod);

// Hits of a job on their way to the collector.
struct HitWork {
  uint64_t of_lane = 0;  // in the lane that has most
  uint64_t lines = 0;    // of ids, 16 each, on their way to host memory
  uint64_t groups = 0;   // of up to 8 of one page, of up to 4 where ranks have 32 bits
};

HitWork HitWorkOf(const SelectJob& job, const Hits& hits, uint32_t channels);
// Hits of a job that lie in all lanes and pages at random.
HitWork EvenHitWork(const SelectJob& job, uint64_t pages, uint32_t channels);

struct SelectCycles {
  uint64_t sweep = 0;    // until the last rank is known
  uint64_t collect = 0;  // of the hits, while the next job is swept
  uint64_t hits = 0;     // of them, while the collector takes hits
  uint64_t lanes = 0;    // of them, until the lanes have found their hits and their bank is free
  bool alone = false;    // the lanes do not begin it before the one before is collected

  uint64_t total() const { return sweep + collect; }
};

// Cycles of a selection whose fullest lane holds `pages` pages.
SelectCycles SelectTime(const SelectJob& job, uint32_t passes, uint64_t pages, const HitWork& hits);

// Cycles of a scan of values: recall_unit takes its pages one by one, an entry a cycle.
uint64_t ValuesTime(const ScanJob& job, uint64_t pages);

// Host memory's latency in cycles.
uint64_t HostLatency(uint32_t period);
// From a doorbell until a descriptor's jobs begin: its own read, then that of its index and tokens. They are
// read one after the other when index_fetch does not know their place.
uint64_t FetchTime(uint32_t period, bool place_known);
// From there until a lane makes the first scores: page lists, tables, the first burst; queries, unless
// query_loader has read them with the index.
uint64_t LoadTime(uint32_t period, bool queries_early);
// From a descriptor's last hit until its results are in host memory.
uint64_t WriteTime(uint32_t period);
// From there until its completion is.
uint64_t CompletionTime(uint32_t period);
// From there until the ring's head counts it, and the card is idle.
uint64_t HeadTime(uint32_t period);

// The jobs of a descriptor: a scan overlaps the sweeps of the job before it, and these the collection of the
// hits before them. The lanes look for the next hits meanwhile. There are two banks.
class Timeline {
 public:
  explicit Timeline(uint64_t start)
      : scanned_(start), swept_(start), selected_(start), freed_(start), freed_before_(start) {}

  // Before the first job: its scan begins so much later.
  void Wait(uint64_t cycles) { scanned_ += cycles; }

  // `listed`: the scan waits for the selection before it. `both`: its scores take both banks. Returns the
  // job's own cycles, waits apart.
  uint64_t Add(uint64_t scan, SelectCycles select, bool listed, bool both = false);

  uint64_t scanned() const { return scanned_; }      // end of the last scan
  uint64_t selected() const { return selected_; }    // end of the last selection
  uint64_t bank_wait() const { return bank_wait_; }  // cycles in which a scan waited for a bank

 private:
  uint64_t scanned_;
  uint64_t swept_;
  uint64_t selected_;
  uint64_t freed_;  // the bank of the last job, that of the one before
  uint64_t freed_before_;
  bool alone_ = false;
  uint64_t bank_wait_ = 0;
};

}  // namespace mnemo::card::model
