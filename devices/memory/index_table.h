#pragma once

// Index table: who owns which indexes, their quotas, forks, page lists and token counts. It knows no memory:
// extents are numbers of a device's record memory (record_memory.h), counted by reference here and shared
// between forks. The records of a page, of all layer slots and heads, are one extent; K and V that a worker
// keeps here lie in extents of their own.
//
// Threads: one thread at a time calls the table. Appends are cut into items that any threads run; appended
// records are visible only after the append has ended. Hold and Unhold count the device's operations under
// way on an index. While there are any, Truncate and Free must wait, and so must KvStore over stored tokens
// (MustWait).

#include <stdint.h>

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/cpu/index_kernels.h"
#include "devices/memory/record_memory.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/quantise.h"
#include "proto/layout/validate.h"

namespace mnemo::memory_device {

struct OwnerLimits {
  uint64_t quota_bytes = 0;  // resident bytes of all indexes, with what they may still append
  uint32_t max_indexes = 0;  // index ids lie below it
};

struct OwnerUsage {
  uint64_t quota_bytes = 0;
  uint64_t reserved_bytes = 0;  // held_bytes and what the indexes may still append
  uint64_t held_bytes = 0;      // of extents, each counted once however many indexes share it
  uint64_t extents = 0;
  uint32_t indexes = 0;
};

// Where the keys of an append come from: 64 rows of one page, slot and head. `page` counts from the index's
// start. `scratch` has room for 64 * dim floats; the answer may point there. Called from several threads at
// once, and not after the append ended.
struct PageKeySource {
  layout::PageKeys (*get)(void* context, uint32_t page, uint32_t slot, uint32_t head,
                          float* scratch) = nullptr;
  void* context = nullptr;
};

class IndexTable;

// One index, as the table knows it.
struct Index {
  ExtentLayout at;
  uint16_t generation = 0;
  uint64_t extent_bytes = 0;     // of a page
  uint64_t kv_extent_bytes = 0;  // 0: keeps no K and V
  std::vector<Extent> pages;     // never reallocated
  std::vector<Extent> kv_pages;
  std::vector<uint32_t> tokens;     // by slot
  std::vector<uint32_t> kv_tokens;  // by slot
  uint32_t held = 0;                // operations of the device under way
  bool changing = false;            // an append or a store of K and V is under way
};

// One append under way. Made once and used again and again; not moved while in use.
class AppendJob {
 public:
  bool active() const { return index_ != nullptr; }
  uint32_t items() const { return items_; }
  // Makes one record. Items in any order, from any threads, distinct items at once; each item once. `thread`
  // is below the table's threads, and no two calls at once have the same. An item past the last does nothing.
  void RunItem(uint32_t item, int thread);
  // After IndexTable::Forget.
  void Forget() { index_ = nullptr; }

 private:
  friend class IndexTable;
  Index* index_ = nullptr;
  IndexTable* table_ = nullptr;
  uint32_t owner_ = 0;
  layout::Descriptor descriptor_{};
  PageKeySource source_;
  uint32_t items_ = 0;
  uint32_t first_page_ = 0;
  uint32_t first_slot_ = 0;
  uint32_t slots_ = 0;
  const uint8_t* payload_ = nullptr;  // value[slots][heads][tokens][dim]; without a source
  std::vector<uint8_t*> staged_;      // by page, from the first slot of the append on
  bool uploading_ = false;
  Ticket ticket_ = 0;
  std::atomic<uint64_t> prepare_ns_ = 0;
};

// One store of K and V under way.
class KvStoreJob {
 public:
  bool active() const { return index_ != nullptr; }
  // After IndexTable::Forget.
  void Forget() { index_ = nullptr; }

 private:
  friend class IndexTable;
  struct Replaced {
    uint32_t page;
    Extent extent;
  };
  Index* index_ = nullptr;
  uint32_t owner_ = 0;
  layout::Descriptor descriptor_{};
  uint32_t first_slot_ = 0;
  uint32_t end_slot_ = 0;
  uint32_t old_pages_ = 0;      // in the list of pages
  uint32_t first_changed_ = 0;  // entry of it
  std::vector<Replaced> replaced_;
  std::vector<uint8_t*> staged_;
  Ticket ticket_ = 0;
};

// Descriptors passed layout::Validate (specs ValidateSpec) with what Info says; anything else that is wrong
// with them is a bug here. Every operation answers with a completion, whose status is kStatusOk, kStatusFull
// (nothing was changed) or kStatusDraining.
class IndexTable {
 public:
  struct Options {
    uint64_t capacity_bytes = UINT64_MAX;  // quotas of all owners together
    uint32_t max_owners = 64;
    int threads = 1;           // that run items of appends
    std::string isa = "auto";  // names of devices/cpu/isa.h
  };
  // `memory` outlives the table. INVALID_ARGUMENT: this machine lacks the instruction set.
  static absl::StatusOr<std::unique_ptr<IndexTable>> Create(const Options& options, RecordMemory* memory);
  ~IndexTable();
  IndexTable(const IndexTable&) = delete;
  IndexTable& operator=(const IndexTable&) = delete;

  // The new owner's number, below max_owners; a number is used again after RemoveOwner. RESOURCE_EXHAUSTED
  // names the bound.
  absl::StatusOr<uint32_t> AddOwner(const OwnerLimits& limits);
  // Frees all of its indexes. None of them is held, and nothing of it is under way.
  void RemoveOwner(uint32_t owner);
  // The memory has lost everything: all indexes of all owners are gone, and no extent is released. Jobs under
  // way are to be forgotten too.
  void Forget();
  // Takes no new indexes from now on.
  void Drain(bool draining) { draining_ = draining; }

  // For layout::Validate. layer_slot: kAllLayerSlots gives the least of all slots.
  layout::IndexInfo Info(uint32_t owner, uint32_t index_id, uint32_t layer_slot) const;
  OwnerUsage Stats(uint32_t owner) const;
  // nullptr when there is none.
  const Index* Find(uint32_t owner, uint32_t index_id) const;
  // An operation on an index that there is goes to the device, and has been answered or dropped.
  void Hold(uint32_t owner, uint32_t index_id) { ++IndexOf(owner, index_id).held; }
  void Unhold(uint32_t owner, uint32_t index_id);
  // Whether a bulk operation has to wait for the operations on its index.
  bool MustWait(uint32_t owner, const layout::Descriptor& descriptor) const;
  // Resident bytes of `tokens` of an index, for admission: what kOpCreate counts for max_tokens.
  uint64_t BytesFor(const layout::IndexSpec& spec, uint32_t tokens) const;

  layout::Completion Create(uint32_t owner, const layout::Descriptor& descriptor,
                            const layout::IndexSpec& spec);
  // The new index has the source's spec. Complete pages are shared; so are pages of K and V.
  layout::Completion Fork(uint32_t owner, const layout::Descriptor& descriptor);
  // kStatusFull only when pages that another index shares are forgotten and there is no room to append them
  // anew.
  layout::Completion Truncate(uint32_t owner, const layout::Descriptor& descriptor);
  layout::Completion Free(uint32_t owner, const layout::Descriptor& descriptor);
  // `values` is the payload, kv[slots][heads][tokens] (payload.h), which is not read after the call. Returns
  // kStatusOk, and `job` is active until TryEndKvStore; otherwise kStatusFull.
  uint16_t BeginKvStore(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* values,
                        KvStoreJob* job);
  // False while the device has not got all of it.
  bool TryEndKvStore(KvStoreJob* job, layout::Completion* completion);
  // After the device was reset. What lay in the range before is lost.
  void AbortKvStore(KvStoreJob* job);
  // Both at once; waits.
  layout::Completion KvStore(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* values);

  // Returns kStatusOk, and `job` is active until EndAppend or AbortAppend; otherwise kStatusFull (no memory).
  // One append an index at a time; it must not be freed or truncated meanwhile.
  uint16_t BeginAppend(uint32_t owner, const layout::Descriptor& descriptor, const PageKeySource& source,
                       AppendJob* job);
  // The same from the payload of a descriptor, which stays as it is until the end.
  uint16_t BeginAppend(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* payload,
                       AppendJob* job);
  // All items have run. False while the device has not got all of it; then again, until it is true.
  bool TryEndAppend(AppendJob* job, layout::Completion* completion);
  // The same; waits.
  layout::Completion EndAppend(AppendJob* job);
  // Before TryEndAppend, or after the device was reset.
  void AbortAppend(AppendJob* job);
  // The three steps at once, on the calling thread.
  layout::Completion Append(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* payload);

 private:
  friend class AppendJob;
  struct Owner {
    bool used = false;
    OwnerLimits limits;
    OwnerUsage stats;
    std::vector<std::unique_ptr<Index>> indexes;
  };
  struct Bytes;
  struct Scratch;

  IndexTable(const Options& options, RecordMemory* memory);
  Owner& OwnerOf(uint32_t owner);
  const Owner& OwnerOf(uint32_t owner) const;
  Index& IndexOf(uint32_t owner, uint32_t index_id);
  Extent NewExtent(Owner& owner, ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes);
  // Gives up one reference.
  void DropExtent(Owner& owner, ExtentKind kind, Extent extent, uint64_t bytes);
  // Bytes that are reserved for pages that the index has not allocated yet.
  static Bytes Unwritten(const Index& index);
  // Whether as many bytes more can be reserved: in the owner's quota, and records in the device's memory.
  bool HasRoom(const Owner& owner, const Bytes& bytes) const;
  void Reserve(Owner& owner, const Bytes& bytes);
  void Unreserve(Owner& owner, const Bytes& bytes);
  // Gives up records and values from these pages on.
  void DropPages(Owner& owner, Index& index, uint32_t from_page, uint32_t from_kv_page);
  void FreeIndex(Owner& owner, IndexKey key);
  std::unique_ptr<Index> NewIndex(const layout::IndexSpec& spec, uint16_t generation) const;
  bool NewValuePages(Owner& owner, KvStoreJob* job);
  template <typename Range>
  static bool ForRanges(const KvStoreJob& job, Range&& range);
  bool StageValues(KvStoreJob* job);
  void UndoValuePages(KvStoreJob* job);
  void WriteValues(KvStoreJob* job, const uint8_t* values);
  uint16_t StartJob(uint32_t owner, const layout::Descriptor& descriptor, AppendJob* job);
  static layout::Completion Answer(const layout::Descriptor& descriptor, uint16_t status, const Index* index);

  const Options options_;
  const devices::cpu::IndexKernels* kernels_;
  RecordMemory* const memory_;
  const ResidentLayout layout_;
  std::vector<uint32_t> references_;  // by extent
  std::vector<Owner> owners_;
  uint64_t granted_bytes_ = 0;
  uint64_t record_bytes_ = 0;  // of all owners: in extents, and reserved for what indexes may still append
  bool draining_ = false;
  std::vector<std::unique_ptr<Scratch>> scratch_;  // by thread
};

}  // namespace mnemo::memory_device
