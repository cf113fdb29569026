#pragma once

// A card behind its driver with two small indexes, and queries whose results the reference has told.

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "devices/memory/index_table.h"
#include "fpga/card/card_driver.h"
#include "fpga/sim/rtl_port.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"

namespace mnemo::card_faults {

enum class Over { kModel, kRtl };

struct StandOptions {
  Over over = Over::kRtl;
  uint64_t seed = 1;
  // A fault of the first port; those that the driver makes later have no fault.
  sim::Fault fault = sim::Fault::kNone;
  uint64_t fault_at = 0;
  uint32_t fault_channel = 0;
  uint32_t watchdog_cycles = 1 << 20;
  uint32_t first_index = 0;  // of queue 0
  uint32_t advance_cycles = 2000;
  uint32_t stall_percent = 0;  // of clocks of the memories of the card in RTL
};

struct Query {
  layout::Descriptor d{};  // without epoch, seq, generation and places
  std::vector<uint8_t> payload;
  std::vector<uint8_t> wanted;
  std::vector<uint8_t> result;
};

class Stand {
 public:
  static constexpr uint32_t kIndexes = 2;
  static constexpr uint32_t kHeads = 2;
  static constexpr uint32_t kDim = 64;
  static constexpr uint32_t kPages = 6;
  static constexpr uint32_t kTokens = kPages * 64;
  static constexpr uint32_t kOperations = 16;
  static constexpr uint64_t kDirectBytes = 256 << 10;  // of host memory; card memory has as many

  explicit Stand(const StandOptions& options);

  card::CardDriver& driver() { return *driver_; }
  card::CardPort& port() { return *port_; }
  // Over the model: nullptr.
  sim::RtlPort* rtl() { return rtl_; }
  std::mt19937& random() { return random_; }
  uint32_t owner() const { return owner_; }
  // Tells what is in use: nothing when every index is freed.
  memory_device::IndexTable& table() { return *table_; }

  // Creates and fills both indexes; after the card was lost as well. False: the memory failed.
  bool Fill();
  bool Free();
  // Beats of all channels that extents take.
  uint64_t used_beats();

  // One position and 1 or 2 heads over a random range. direct: such as the card itself serves.
  Query NewQuery(bool direct);
  layout::IndexInfo Info(uint32_t index_id, uint32_t slot) const;

  // Lets some cycles pass, or one descriptor.
  void Pass(uint32_t cycles = 100);

 private:
  const StandOptions options_;
  std::mt19937 random_;
  uint32_t ports_ = 0;
  card::CardPort* port_ = nullptr;  // of the driver
  sim::RtlPort* rtl_ = nullptr;
  std::unique_ptr<card::CardDriver> driver_;
  std::unique_ptr<memory_device::IndexTable> table_;
  uint32_t owner_ = 0;
  std::vector<float> keys_[kIndexes];                    // [head][token][dim]
  std::vector<std::vector<uint8_t>> records_[kIndexes];  // [head][page]
};

// Operations of queue 0: their results are compared when their completions come.
class DriverLoad {
 public:
  explicit DriverLoad(Stand* stand) : stand_(stand) {}
  // Submits up to `count` queries. Returns how many the driver took.
  uint32_t Submit(uint32_t count);
  // Polls once. Returns the number of completions.
  uint32_t Poll();
  uint32_t under_way() const { return static_cast<uint32_t>(queries_.size() - done_); }
  uint32_t right() const { return right_; }    // answered with kStatusOk and the right results
  uint32_t wrong() const { return wrong_; }    // with other results, or in another order
  uint32_t failed() const { return failed_; }  // with kStatusDeviceFailed
  void Forget() { done_ = queries_.size(); }

 private:
  Stand* const stand_;
  std::vector<std::unique_ptr<Query>> queries_;
  size_t done_ = 0;
  uint32_t right_ = 0;
  uint32_t wrong_ = 0;
  uint32_t failed_ = 0;
};

}  // namespace mnemo::card_faults
