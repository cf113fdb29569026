// One owner at the service: its link, its indexes, and what it asked for and has not got yet.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "devices/transport/service_attachment.h"
#include "proto/layout/completion.h"
#include "server/memory_service/plane_stats.h"

namespace mnemo::memory_service {

using Clock = std::chrono::steady_clock;

class Attachment;

// Unfinished query operations of all owners, with their owners: first those that the device has, in the order
// of submission, then those that it had no room for.
struct QueryWork {
  struct Origin {
    Attachment* attachment;
    Clock::time_point taken_at;
    Clock::time_point submitted_at;
  };
  std::vector<memory_device::Operation> operations;
  std::vector<Origin> origins;  // parallel
  size_t submitted = 0;
  Clock::time_point taken_at{};  // when the last of them was taken
};

// Every descriptor is a private copy, validated against the granted limits and the owner's indexes. A bad one
// is answered with the field that is wrong, and touches nothing. An error of any call means that the
// attachment is over; the service then drops this object, which frees all of the owner's indexes. Used by the
// data plane's thread.
class Attachment {
 public:
  // `table` and `counters` outlive this. RESOURCE_EXHAUSTED: the table has no room for another owner.
  static absl::StatusOr<std::unique_ptr<Attachment>> Create(
      std::unique_ptr<transport::ServiceAttachment> link, memory_device::IndexTable* table,
      PlaneCounters* counters);
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  transport::ServiceAttachment& link() { return *link_; }
  const transport::Attached& attached() const { return link_->attached(); }
  OwnerCounters& counters() { return counters_; }

  // Appends operations of the query ring to `work`: at most `limit`, and no more than are under way at a time
  // for one owner. What goes wrong CompleteQueries tells.
  void TakeQueries(uint32_t limit, QueryWork* work);
  // One of them is finished, or has failed.
  void Finish(const memory_device::Operation& operation, const layout::Completion& completion);
  bool has_finished() const { return !finished_.empty(); }
  // Publishes what Finish and TakeQueries gathered; one doorbell.
  absl::Status CompleteQueries();

  // Works on the bulk ring for about `slice`: an append of many pages takes several calls, and what changes
  // an index waits for the operations on it. Sets `worked` when there was anything to do.
  absl::Status WorkOnBulk(std::chrono::nanoseconds slice, bool* worked);
  // Whether the device is still to get what a bulk operation brought, and since when.
  bool arriving() const { return bulk_ == Bulk::kArriving; }
  Clock::time_point arriving_since() const { return arriving_since_; }
  // Answers that operation with kStatusDeviceFailed, after the device was reset; `lost`: with all indexes.
  void FailArriving(bool lost);

  // Whether WorkOnBulk, or with `queries` TakeQueries, would find something new.
  bool Ready(bool queries) const;
  // Whether the device may touch memory of this owner.
  bool busy() const { return under_way_ > 0 || arriving(); }
  // The table has forgotten all indexes. Nothing is under way.
  void ForgetIndexes();
  // Usage as the table has it, for the list of owners.
  memory_device::OwnerUsage Usage() const { return table_->Stats(owner_); }

 private:
  Attachment(std::unique_ptr<transport::ServiceAttachment> link, memory_device::IndexTable* table,
             uint32_t owner, PlaneCounters* counters);
  layout::Verdict Check(const layout::Descriptor& descriptor, transport::Ring ring);
  layout::IndexInfo InfoOf(uint32_t index_id, uint32_t layer_slot) const;
  void AddCompletion(const memory_device::Operation& operation, const layout::Completion& completion);
  layout::Completion Refusal(const layout::Descriptor& descriptor, layout::Verdict verdict) const;
  const uint8_t* Payload(const layout::Descriptor& descriptor) const;
  // True: the answer; otherwise bulk_ says how it goes on.
  bool StartBulk(const layout::Descriptor& descriptor, layout::Completion* completion);
  layout::Completion RunBulk(const layout::Descriptor& descriptor);
  absl::Status TakeBulk(bool* worked);
  bool RunItems(Clock::time_point until);  // true: all have run
  bool TryEndBulk(layout::Completion* completion);
  absl::Status FinishBulk(layout::Completion completion);

  const std::unique_ptr<transport::ServiceAttachment> link_;
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
  memory_device::KvStoreJob kv_store_;
  enum class Bulk : uint8_t {
    kNone,
    kTaken,     // and validated
    kItems,     // of an append are run
    kArriving,  // on their way to the device
  };
  Bulk bulk_ = Bulk::kNone;
  layout::Descriptor bulk_descriptor_{};  // the one at work
  uint32_t next_item_ = 0;
  Clock::time_point arriving_since_{};
  uint32_t under_way_ = 0;  // queries
};

}  // namespace mnemo::memory_service
