// A memory device for tests, of kind "late": the CPU's results from a memory that the host cannot read, which
// come late and in bursts, and sometimes not at all. A fake card, for what the CPU's device never does.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "devices/memory/cpu/cpu_record_memory.h"
#include "devices/memory/cpu/query_batch.h"
#include "devices/memory/memory_device_registry.h"

namespace mnemo::memory_device::testing {

// Its options, KEY=VALUE with whole numbers but for `without`:
//   seed             of delays
//   delay_us         greatest time from submission to completion, and of an upload; 0: at the next Poll
//   burst_us         completions come at multiples of it; 0: when they are due
//   hang_after       operations that finish before one hangs, with all behind it, until Reset; 0: none hangs
//   hang_uploads     uploads that arrive before one hangs; 0: none hangs
//   fail_after       operations that finish before one is answered with kStatusDeviceFailed; 0: none
//   lose             1: Reset says DATA_LOSS
//   broken_resets    times that Reset says INTERNAL first
//   event            1: has a descriptor to poll
//   counts           1: counts its work, says that its time is simulated and names a source of energy
//   without          operations and stages that it lacks, by comma: gather, cascade, kv, group, codes
MemoryDeviceKind LateKind();

// Adds the kind to this process, once.
void AddLateKind();

struct LateOptions {
  uint64_t seed = 1;
  uint64_t delay_us = 0;
  uint64_t burst_us = 0;
  uint64_t hang_after = 0;
  uint64_t hang_uploads = 0;
  uint64_t fail_after = 0;
  uint64_t lose = 0;
  uint64_t broken_resets = 0;
  uint64_t event = 0;
  uint64_t counts = 0;
  std::string without;
};

using LateClock = std::chrono::steady_clock;

// Extents that no one but this class may touch: their pages have no access outside of its calls.
class LateMemory final : public RecordMemory {
 public:
  explicit LateMemory(const LateOptions& options);

  // Runs `body` with the memory open, the only place where the device's own work may be done.
  template <typename Body>
  void WithAccess(const Body& body) {
    Protect(true);
    body(*inner_);
    Protect(false);
  }
  // Carries out the uploads that are due.
  void Progress();
  bool busy() const { return !under_way_.empty(); }
  // Drops uploads under way; `lose`: everything.
  void Reset(bool lose);

  const ResidentLayout& layout() const override { return inner_->layout(); }
  uint64_t record_capacity_bytes() const override { return inner_->record_capacity_bytes(); }
  Extent Allocate(ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes) override;
  void Release(Extent extent) override;
  uint8_t* Stage(Extent extent, uint64_t offset, uint64_t bytes) override;
  Ticket Upload(Extent extent, uint64_t offset, uint64_t bytes) override;
  Ticket Copy(Extent from, Extent to) override;
  bool Arrived(Ticket ticket) override;
  absl::Status Read(Extent extent, uint64_t offset, std::span<uint8_t> out) override;
  void OpenIndex(IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                 const IndexKey* forked_from) override;
  void PublishPages(IndexKey key, ExtentKind kind, uint32_t first_page,
                    std::span<const Extent> pages) override;
  void PublishTokens(IndexKey key, ExtentKind kind, uint32_t first_slot,
                     std::span<const uint32_t> tokens) override;
  void CloseIndex(IndexKey key) override;

 private:
  struct FreeBytes {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };
  using Buffer = std::unique_ptr<uint8_t, FreeBytes>;
  struct Transfer {
    Ticket ticket;
    LateClock::time_point due;
    Extent to;
    Extent from;  // of a copy; kNoExtent: of an upload
    uint64_t offset;
    uint64_t bytes;
    Buffer buffer;
  };
  void Protect(bool access);
  void Start(Transfer transfer);

  const LateOptions options_;
  std::mt19937_64 random_;
  std::unique_ptr<cpu::CpuRecordMemory> inner_;
  std::map<Extent, uint64_t> sizes_;
  std::map<std::pair<Extent, uint64_t>, std::pair<uint64_t, Buffer>> staged_;
  std::deque<Transfer> under_way_;
  Ticket last_ticket_ = 0;
  uint64_t uploads_ = 0;
};

class LateDevice final : public MemoryDevice {
 public:
  static absl::StatusOr<std::unique_ptr<MemoryDevice>> Create(const MemoryDeviceOptions& options);
  ~LateDevice() override;

  const std::string& name() const override { return options_.name; }
  std::string_view kind() const override { return "late"; }
  const layout::AttachHello& caps() const override { return caps_; }
  LateMemory& memory() override { return memory_; }
  bool simulated_time() const override { return late_.counts != 0; }
  std::string_view energy_source() const override { return late_.counts != 0 ? "model" : ""; }
  // Operations and their reads, as of one channel.
  std::vector<DeviceCounter> Counters() override;
  size_t Submit(std::span<const Operation> operations) override;
  size_t Poll(std::span<layout::Completion> completions) override;
  int event_fd() override { return event_fd_; }
  absl::Status Quiesce() override;
  absl::Status Reset() override;

 private:
  struct Submitted {
    Operation operation;
    LateClock::time_point due;
  };
  LateDevice(const MemoryDeviceOptions& options, const LateOptions& late, layout::AttachHello caps,
             std::unique_ptr<cpu::QueryBatch> batch);
  layout::Completion RunFirst();
  // The descriptor becomes readable when the first operation is due.
  void SetTimer();

  const MemoryDeviceOptions options_;
  const LateOptions late_;
  const layout::AttachHello caps_;
  const std::unique_ptr<cpu::QueryBatch> batch_;
  LateMemory memory_;
  std::mt19937_64 random_;
  std::deque<Submitted> submitted_;
  std::deque<layout::Completion> done_;  // by Quiesce
  uint64_t finished_ = 0;                // operations, since the start
  uint64_t bytes_read_ = 0;
  bool hung_ = false;
  uint64_t resets_ = 0;
  int event_fd_ = -1;
};

}  // namespace mnemo::memory_device::testing
