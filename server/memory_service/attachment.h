// One owner at the service: its link, its indexes, and what it asked for and has not got yet.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "devices/transport/service_link.h"
#include "proto/layout/completion.h"
#include "server/memory_service/plane_stats.h"

namespace mnemo::memory_service {

using Clock = std::chrono::steady_clock;

class Attachment;

// Query operations of all owners that the device runs together, and whose they are.
struct QueryWork {
  struct Origin {
    Attachment* attachment;
    Clock::time_point taken_at;
  };
  std::vector<memory_device::Operation> operations;
  std::vector<Origin> origins;   // parallel
  Clock::time_point begun_at{};  // when the last of them was taken
};

// Every descriptor is a private copy, validated against what was granted and what the owner's indexes are;
// one that is bad is answered with the field that is, and touches nothing. An error of any call means that
// the link is over; the service then drops this object, which frees all of the owner's indexes. Used by the
// data plane's thread.
class Attachment {
 public:
  // `table` and `counters` outlive this. RESOURCE_EXHAUSTED: the table has no room for another owner.
  static absl::StatusOr<std::unique_ptr<Attachment>> Create(std::unique_ptr<transport::ServiceLink> link,
                                                            memory_device::IndexTable* table,
                                                            PlaneCounters* counters);
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  transport::ServiceLink& link() { return *link_; }
  const transport::Attached& attached() const { return link_->attached(); }
  OwnerCounters& counters() { return counters_; }

  // Appends at most `limit` operations of the query ring to `work`. What goes wrong CompleteQueries tells.
  void TakeQueries(uint32_t limit, QueryWork* work);
  // The device has finished one of them.
  void AddCompletion(const memory_device::Operation& operation, layout::Completion completion);
  bool has_finished() const { return !finished_.empty(); }
  // Publishes what AddCompletion and TakeQueries gathered; one doorbell.
  absl::Status CompleteQueries();

  // Works on the bulk ring for about `slice`: an append of many pages takes several calls. Sets `worked` when
  // there was anything to do.
  absl::Status WorkOnBulk(std::chrono::nanoseconds slice, bool* worked);
  // Usage as the table has it, for the list of owners.
  memory_device::OwnerStats Usage() const { return table_->Stats(owner_); }

 private:
  Attachment(std::unique_ptr<transport::ServiceLink> link, memory_device::IndexTable* table, uint32_t owner,
             PlaneCounters* counters);
  layout::Verdict Check(const layout::Descriptor& descriptor, transport::Ring ring);
  layout::IndexInfo InfoOf(uint32_t index_id, uint32_t layer_slot) const;
  layout::Completion Refusal(const layout::Descriptor& descriptor, layout::Verdict verdict) const;
  const uint8_t* Payload(const layout::Descriptor& descriptor) const;
  // The answer, or nothing when an append has begun.
  bool StartBulk(const layout::Descriptor& descriptor, layout::Completion* completion);
  layout::Completion RunBulk(const layout::Descriptor& descriptor);
  bool RunItems(Clock::time_point until);  // true: all have run
  absl::Status FinishBulk(layout::Completion completion);

  const std::unique_ptr<transport::ServiceLink> link_;
  memory_device::IndexTable* const table_;
  const uint32_t owner_;
  PlaneCounters* const plane_counters_;
  OwnerCounters counters_;
  const uint64_t region_bytes_;
  layout::Limits limits_;
  uint32_t next_seq_[transport::kRings];
  std::vector<layout::Descriptor> taken_;     // room for a ring
  std::vector<layout::Completion> finished_;  // of the query ring, not published yet
  absl::Status failed_;
  memory_device::AppendJob append_;
  layout::Descriptor bulk_descriptor_{};  // the one at work
  uint32_t next_item_ = 0;
};

}  // namespace mnemo::memory_service
