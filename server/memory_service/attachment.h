// One owner at the service: its attachment, its indexes, and its unfinished operations.
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

// Unfinished query operations of all owners. Those submitted to the device come first, in the order of
// submission, then those for which the device had no room.
struct QueryWork {
  struct Origin {
    Attachment* attachment;
    Clock::time_point taken_at;
    Clock::time_point submitted_at;
  };
  std::vector<memory_device::Operation> operations;
  std::vector<Origin> origins;  // one for each of `operations`
  size_t submitted = 0;
  Clock::time_point taken_at{};  // time when the last operation was taken
};

// Every descriptor is copied, and the copy validated against the granted limits and the owner's indexes. An
// invalid one is answered with the field that is wrong, and changes nothing. An error of any call means that
// the attachment has ended; the service then destroys this object, which frees all of the owner's indexes.
// Used by the data plane's thread.
class Attachment {
 public:
  // `table` and `counters` outlive this. RESOURCE_EXHAUSTED: the table has no room for another owner.
  static absl::StatusOr<std::unique_ptr<Attachment>> Create(
      std::unique_ptr<transport::ServiceAttachment> attachment, memory_device::IndexTable* table,
      PlaneCounters* counters);
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  transport::ServiceAttachment& transport_attachment() { return *attachment_; }
  const transport::Attached& attached() const { return attachment_->attached(); }
  OwnerCounters& counters() { return counters_; }

  // Appends operations of the query ring to `work`: at most `limit`, and no more than one owner may have
  // under way. Errors are returned by the next CompleteQueries.
  void TakeQueries(uint32_t limit, QueryWork* work);
  // Called when an operation that TakeQueries gave has finished or failed.
  void Finish(const memory_device::Operation& operation, const layout::Completion& completion);
  bool has_finished() const { return !finished_.empty(); }
  // Publishes the completions of Finish and TakeQueries, with one doorbell.
  absl::Status CompleteQueries();

  // Works on the bulk ring for about `slice`. An append of many pages takes several calls. An operation that
  // changes an index waits for the queries on it. Sets `worked` when there was anything to do.
  absl::Status WorkOnBulk(std::chrono::nanoseconds slice, bool* worked);
  // Whether data of a bulk operation is still being transferred to the device, and since when.
  bool arriving() const { return bulk_ == Bulk::kArriving; }
  Clock::time_point arriving_since() const { return arriving_since_; }
  // Answers that operation with kStatusDeviceFailed after a reset of the device. `lost`: the reset lost all
  // indexes.
  void FailArriving(bool lost);

  // Whether WorkOnBulk would find new work, or with `queries` also TakeQueries.
  bool Ready(bool queries) const;
  // Whether the device may access memory of this owner.
  bool busy() const { return under_way_ > 0 || arriving(); }
  // Called when the table has lost all indexes, with no operation under way.
  void ForgetIndexes();
  // Usage according to the table, for the list of owners.
  memory_device::OwnerUsage Usage() const { return table_->Stats(owner_); }

 private:
  Attachment(std::unique_ptr<transport::ServiceAttachment> attachment, memory_device::IndexTable* table,
             uint32_t owner, PlaneCounters* counters);
  layout::Verdict Check(const layout::Descriptor& descriptor, transport::Ring ring);
  layout::IndexInfo InfoOf(uint32_t index_id, uint32_t layer_slot) const;
  void AddCompletion(const memory_device::Operation& operation, const layout::Completion& completion);
  layout::Completion Refusal(const layout::Descriptor& descriptor, layout::Verdict verdict) const;
  const uint8_t* Payload(const layout::Descriptor& descriptor) const;
  // True: the operation has ended, with `completion`. False: bulk_ holds its state.
  bool StartBulk(const layout::Descriptor& descriptor, layout::Completion* completion);
  layout::Completion RunBulk(const layout::Descriptor& descriptor);
  absl::Status TakeBulk(bool* worked);
  // Returns true when all items have run.
  bool RunItems(Clock::time_point until);
  bool TryEndBulk(layout::Completion* completion);
  absl::Status FinishBulk(layout::Completion completion);

  const std::unique_ptr<transport::ServiceAttachment> attachment_;
  memory_device::IndexTable* const table_;
  const uint32_t owner_;
  PlaneCounters* const plane_counters_;
  OwnerCounters counters_;
  const uint64_t region_bytes_;
  layout::Limits limits_;
  uint32_t next_seq_[transport::kRings];
  std::vector<layout::Descriptor> taken_;     // buffer for the descriptors of a full ring
  std::vector<layout::Completion> finished_;  // completions of the query ring, not published yet
  absl::Status failed_;
  memory_device::AppendJob append_;
  memory_device::KvStoreJob kv_store_;
  enum class Bulk : uint8_t {
    kNone,
    kTaken,     // the descriptor is taken and validated
    kItems,     // the items of an append are run
    kArriving,  // data is being transferred to the device
  };
  Bulk bulk_ = Bulk::kNone;
  layout::Descriptor bulk_descriptor_{};  // the operation of bulk_
  uint32_t next_item_ = 0;
  Clock::time_point arriving_since_{};
  uint32_t under_way_ = 0;  // queries under way
};

}  // namespace mnemo::memory_service
