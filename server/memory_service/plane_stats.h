// Counters of the data plane, written by its thread and read by any.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace mnemo::memory_service {

using Counter = std::atomic<uint64_t>;

// Only one thread writes.
inline void Add(Counter& counter, uint64_t value) {
  counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

inline constexpr int kStatuses = 12;  // layout::Status
inline constexpr int kOps = 20;       // layout::Op lies below it; others count as 0

struct PlaneCounters {
  Counter operations[kOps][kStatuses] = {};  // completed
  Counter queue_ns{0};
  Counter prepare_ns{0};
  Counter score_ns{0};
  Counter select_ns{0};
  Counter gather_ns{0};
  Counter bytes_read{0};
  Counter bytes_written{0};
  Counter energy_uj{0};  // of operations whose completions told it
  Counter batches{0};    // that the device ran
  Counter sleeps{0};
  Counter device_failures{0};  // resets of a device that did not finish in time
};

struct OwnerCounters {
  Counter operations{0};
  Counter refused{0};
  Counter used_bytes{0};
  Counter indexes{0};
};

struct OwnerStats {
  std::string name;
  uint16_t epoch = 0;
  int pid = 0;
  uint64_t quota_bytes = 0;
  uint64_t used_bytes = 0;
  uint32_t indexes = 0;
  uint64_t operations = 0;
  uint64_t refused = 0;
};

struct PlaneStats {
  std::string device_name;
  uint64_t memory_bytes = 0;
  uint64_t used_bytes = 0;
  uint32_t indexes = 0;
  bool draining = false;
  uint64_t attachments = 0;  // since the start
  uint64_t lost_owners = 0;  // whose attachments ended with indexes left
  std::vector<OwnerStats> owners;
};

}  // namespace mnemo::memory_service
