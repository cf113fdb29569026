#include "server/memory_service/attachment.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mnemo::memory_service {
namespace {

using layout::Completion;
using layout::Descriptor;
using transport::Ring;
using transport::RingIndex;

constexpr uint32_t kItemsPerLook = 4;   // of an append, between looks at the clock
constexpr uint32_t kMostUnderWay = 64;  // queries of one owner

}  // namespace

absl::StatusOr<std::unique_ptr<Attachment>> Attachment::Create(
    std::unique_ptr<transport::ServiceAttachment> attachment, memory_device::IndexTable* table,
    PlaneCounters* counters) {
  const layout::AttachHello& granted = attachment->attached().granted;
  MNEMO_ASSIGN_OR_RETURN(const uint32_t owner, table->AddOwner({.quota_bytes = granted.quota_bytes,
                                                                .max_indexes = granted.max_indexes}));
  return std::unique_ptr<Attachment>(new Attachment(std::move(attachment), table, owner, counters));
}

Attachment::Attachment(std::unique_ptr<transport::ServiceAttachment> attachment,
                       memory_device::IndexTable* table, uint32_t owner, PlaneCounters* counters)
    : attachment_(std::move(attachment)),
      table_(table),
      owner_(owner),
      plane_counters_(counters),
      region_bytes_(attachment_->data().size()),
      next_seq_{transport::kFirstSeq, transport::kFirstSeq} {
  limits_.granted = attached().granted;
  limits_.region_bytes = std::span(&region_bytes_, 1);
  const uint32_t slots = std::max(limits_.granted.bulk_slots, limits_.granted.query_slots);
  taken_.resize(slots);
  finished_.reserve(slots);
}

Attachment::~Attachment() {
  if (append_.active()) table_->AbortAppend(&append_);
  table_->RemoveOwner(owner_);
}

layout::IndexInfo Attachment::InfoOf(uint32_t index_id, uint32_t layer_slot) const {
  if (index_id >= limits_.granted.max_indexes) return {};
  const layout::IndexInfo all = table_->Info(owner_, index_id, layout::kAllLayerSlots);
  if (!all.exists || layer_slot >= all.layer_slots) return all;
  return table_->Info(owner_, index_id, layer_slot);
}

layout::Verdict Attachment::Check(const Descriptor& d, Ring ring) {
  uint32_t& next_seq = next_seq_[RingIndex(ring)];
  limits_.ring_kind = static_cast<uint16_t>(ring);
  limits_.next_seq = next_seq;
  // After a gap every descriptor of the ring is out of sequence, until the owner attaches anew.
  if (d.seq == next_seq) ++next_seq;
  const layout::IndexInfo source =
      d.op == layout::kOpFork ? InfoOf(d.k1, layout::kAllLayerSlots) : layout::IndexInfo{};
  return layout::Validate(d, limits_, InfoOf(d.index_id, d.layer_slot), source);
}

Completion Attachment::Refusal(const Descriptor& d, layout::Verdict verdict) const {
  Completion completion{};
  completion.index_id = d.index_id;
  completion.energy_uj = layout::kEnergyUnknown;
  completion.status = verdict.status;
  completion.detail = verdict.detail;
  completion.seq = d.seq;
  return completion;
}

const uint8_t* Attachment::Payload(const Descriptor& d) const {
  return attachment_->data().data() + uint64_t{d.payload_offset} * layout::kUnitBytes;
}

void Attachment::TakeQueries(uint32_t limit, QueryWork* work) {
  limit = std::min({limit, kMostUnderWay - under_way_, static_cast<uint32_t>(taken_.size())});
  if (limit == 0) return;
  const absl::StatusOr<uint32_t> count = attachment_->Take(Ring::kQuery, std::span(taken_).first(limit));
  if (!count.ok()) failed_ = count.status();
  if (!count.ok() || *count == 0) return;
  const Clock::time_point now = work->taken_at = Clock::now();
  for (const Descriptor& d : std::span(taken_).subspan(0, *count)) {
    const layout::Verdict verdict = Check(d, Ring::kQuery);
    if (verdict.status != layout::kStatusOk) {
      AddCompletion({.descriptor = d}, Refusal(d, verdict));
      continue;
    }
    table_->Hold(owner_, d.index_id);
    ++under_way_;
    work->operations.push_back(
        {.descriptor = d,
         .owner = owner_,
         .payload = Payload(d),
         .result = attachment_->data().data() + uint64_t{d.result_offset} * layout::kUnitBytes});
    work->origins.push_back({this, now, now});
  }
}

void Attachment::Finish(const memory_device::Operation& operation, const Completion& completion) {
  table_->Unhold(owner_, operation.descriptor.index_id);
  --under_way_;
  AddCompletion(operation, completion);
}

void Attachment::AddCompletion(const memory_device::Operation& operation, const Completion& completion) {
  const Descriptor& d = operation.descriptor;
  if (completion.status == layout::kStatusOk && d.result_length > 0) {
    // Validated: the place is within the region. That it fails means a lost peer, which shows elsewhere.
    (void)attachment_->PushResults(uint64_t{d.result_offset} * layout::kUnitBytes,
                                   uint64_t{d.result_length} * layout::kUnitBytes);
  }
  const uint32_t op = d.op < kOps ? d.op : 0;
  const uint32_t status = std::min<uint32_t>(completion.status, kStatuses - 1);
  Add(plane_counters_->operations[op][status], 1);
  Add(plane_counters_->queue_ns, completion.queue_ns);
  Add(plane_counters_->prepare_ns, completion.prepare_ns);
  Add(plane_counters_->score_ns, completion.score_ns);
  Add(plane_counters_->select_ns, completion.select_ns);
  Add(plane_counters_->gather_ns, completion.gather_ns);
  Add(plane_counters_->bytes_read, completion.bytes_read);
  Add(plane_counters_->bytes_written, completion.bytes_written);
  if (completion.energy_uj != layout::kEnergyUnknown) Add(plane_counters_->energy_uj, completion.energy_uj);
  Add(counters_.operations, 1);
  if (completion.status != layout::kStatusOk) Add(counters_.refused, 1);
  finished_.push_back(completion);
}

absl::Status Attachment::CompleteQueries() {
  MNEMO_RETURN_IF_ERROR(failed_);
  if (finished_.empty()) return absl::OkStatus();
  absl::Status status = attachment_->Complete(Ring::kQuery, finished_);
  finished_.clear();
  return status;
}

Completion Attachment::RunBulk(const Descriptor& d) {
  switch (d.op) {
    case layout::kOpCreate: {
      layout::IndexSpec spec;
      std::memcpy(&spec, Payload(d), sizeof spec);
      const layout::Verdict verdict = layout::ValidateSpec(d, spec, limits_);
      if (verdict.status != layout::kStatusOk) return Refusal(d, verdict);
      return table_->Create(owner_, d, spec);
    }
    case layout::kOpFork:
      return table_->Fork(owner_, d);
    case layout::kOpTruncate:
      return table_->Truncate(owner_, d);
    default:
      return table_->Free(owner_, d);
  }
}

bool Attachment::StartBulk(const Descriptor& d, Completion* completion) {
  const bool appends = d.op == layout::kOpAppend;
  if (!appends && d.op != layout::kOpKvStore) {
    *completion = RunBulk(d);
    return true;
  }
  const uint16_t status = appends ? table_->BeginAppend(owner_, d, Payload(d), &append_)
                                  : table_->BeginKvStore(owner_, d, Payload(d), &kv_store_);
  if (status != layout::kStatusOk) {
    *completion = Refusal(d, {status, layout::kNoDetail});
    return true;
  }
  next_item_ = 0;
  bulk_ = appends ? Bulk::kItems : Bulk::kArriving;
  arriving_since_ = {};
  return false;
}

bool Attachment::RunItems(Clock::time_point until) {
  while (next_item_ < append_.items()) {
    const uint32_t end = std::min(next_item_ + kItemsPerLook, append_.items());
    while (next_item_ < end) append_.RunItem(next_item_++, 0);
    if (Clock::now() >= until) break;
  }
  return next_item_ == append_.items();
}

absl::Status Attachment::FinishBulk(Completion completion) {
  bulk_ = Bulk::kNone;
  const memory_device::OwnerUsage usage = Usage();
  counters_.used_bytes.store(usage.held_bytes, std::memory_order_relaxed);
  counters_.indexes.store(usage.indexes, std::memory_order_relaxed);
  const uint32_t status = std::min<uint32_t>(completion.status, kStatuses - 1);
  const uint32_t op = bulk_descriptor_.op < kOps ? bulk_descriptor_.op : 0;
  Add(plane_counters_->operations[op][status], 1);
  Add(plane_counters_->prepare_ns, completion.prepare_ns);
  Add(plane_counters_->bytes_read, completion.bytes_read);
  Add(plane_counters_->bytes_written, completion.bytes_written);
  Add(counters_.operations, 1);
  if (completion.status != layout::kStatusOk) Add(counters_.refused, 1);
  return attachment_->Complete(Ring::kBulk, std::span(&completion, 1));
}

// Takes the next descriptor of the ring; one that is refused is answered.
absl::Status Attachment::TakeBulk(bool* worked) {
  Descriptor d;
  MNEMO_ASSIGN_OR_RETURN(const uint32_t count, attachment_->Take(Ring::kBulk, std::span(&d, 1)));
  if (count == 0) return absl::OkStatus();
  *worked = true;
  bulk_descriptor_ = d;
  bulk_ = Bulk::kTaken;
  const layout::Verdict verdict = Check(d, Ring::kBulk);
  return verdict.status == layout::kStatusOk ? absl::OkStatus() : FinishBulk(Refusal(d, verdict));
}

bool Attachment::TryEndBulk(Completion* completion) {
  const bool arrived = append_.active() ? table_->TryEndAppend(&append_, completion)
                                        : table_->TryEndKvStore(&kv_store_, completion);
  if (!arrived && arriving_since_ == Clock::time_point()) arriving_since_ = Clock::now();
  return arrived;
}

bool Attachment::Ready(bool queries) const {
  return (bulk_ == Bulk::kNone && attachment_->Ready(Ring::kBulk)) ||
         (queries && under_way_ < kMostUnderWay && attachment_->Ready(Ring::kQuery));
}

absl::Status Attachment::WorkOnBulk(std::chrono::nanoseconds slice, bool* worked) {
  // The clock is not asked when there is nothing to do.
  if (bulk_ == Bulk::kNone && !attachment_->Ready(Ring::kBulk)) return absl::OkStatus();
  const Clock::time_point until = Clock::now() + slice;
  do {
    if (bulk_ == Bulk::kNone) {
      MNEMO_RETURN_IF_ERROR(TakeBulk(worked));
      if (bulk_ == Bulk::kNone) {
        if (!attachment_->Ready(Ring::kBulk)) return absl::OkStatus();
        continue;
      }
    }
    Completion completion{};
    if (bulk_ == Bulk::kTaken) {
      if (table_->MustWait(owner_, bulk_descriptor_)) return absl::OkStatus();
      *worked = true;
      if (StartBulk(bulk_descriptor_, &completion)) {
        MNEMO_RETURN_IF_ERROR(FinishBulk(completion));
        continue;
      }
    }
    if (bulk_ == Bulk::kItems) {
      *worked = true;
      if (!RunItems(until)) return absl::OkStatus();
      bulk_ = Bulk::kArriving;
    }
    if (!TryEndBulk(&completion)) return absl::OkStatus();
    *worked = true;
    MNEMO_RETURN_IF_ERROR(FinishBulk(completion));
  } while (Clock::now() < until);
  return absl::OkStatus();
}

void Attachment::FailArriving(bool lost) {
  if (lost) {
    ForgetIndexes();
  } else if (append_.active()) {
    table_->AbortAppend(&append_);
  } else {
    table_->AbortKvStore(&kv_store_);
  }
  failed_.Update(FinishBulk(Refusal(bulk_descriptor_, {layout::kStatusDeviceFailed, layout::kNoDetail})));
}

void Attachment::ForgetIndexes() {
  append_.Forget();
  kv_store_.Forget();
}

}  // namespace mnemo::memory_service
