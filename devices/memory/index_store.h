#pragma once

// Indexes and their bulk operations, in software on the host: who owns how much, which pages an index has,
// and what they hold. The records of a page, of all layer slots and heads, are one extent, in the CPU
// device's resident layout (devices/cpu/index_kernels.h); extents are counted by reference and shared between
// forks. K and V that a worker keeps here lie in extents of their own.
//
// Threads: one thread at a time calls the store, and no index may be freed or truncated, and no K and V
// stored, while a query batch (query_batch.h) is between Begin and Finish; simplest is one thread that does
// bulk operations and batches in turn. Appends are cut into items that any threads run, also while batches
// run: what is appended is seen by nobody before EndAppend.

#include <stdint.h>

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "devices/cpu/index_kernels.h"
#include "devices/memory/extent_pool.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/quantise.h"
#include "proto/layout/validate.h"

namespace mnemo::memory_device {

struct OwnerLimits {
  uint64_t quota_bytes = 0;  // resident bytes of all indexes, with what they may still append
  uint32_t max_indexes = 0;  // index ids lie below it
};

struct OwnerStats {
  uint64_t quota_bytes = 0;
  uint64_t reserved_bytes = 0;  // held_bytes and what the indexes may still append
  uint64_t held_bytes = 0;      // of extents, each counted once however many indexes share it
  uint64_t extents = 0;
  uint32_t indexes = 0;
};

// Where the keys of an append come from: 64 rows of one page, slot and head. `page` counts from the index's
// start. `scratch` has room for 64 * dim floats; the answer may point there. Called from several threads at
// once, and not after the append ended.
struct KeySource {
  layout::PageKeys (*get)(void* context, uint32_t page, uint32_t slot, uint32_t head,
                          float* scratch) = nullptr;
  void* context = nullptr;
};

class IndexStore;
struct Index;

// One append under way. Made once and used again and again; not moved while in use.
class AppendJob {
 public:
  bool active() const { return index_ != nullptr; }
  uint32_t items() const { return items_; }
  // Makes one record. Items in any order, from any threads, distinct items at once; each item once. `thread`
  // is below the store's threads, and no two calls at once have the same. An item past the last does nothing.
  void RunItem(uint32_t item, int thread);

 private:
  friend class IndexStore;
  Index* index_ = nullptr;
  IndexStore* store_ = nullptr;
  uint32_t owner_ = 0;
  layout::Descriptor descriptor_{};
  KeySource source_;
  uint32_t items_ = 0;
  uint32_t first_page_ = 0;
  uint32_t first_slot_ = 0;
  uint32_t slots_ = 0;
  const uint8_t* payload_ = nullptr;  // value[slots][heads][tokens][dim]; without a source
  std::atomic<uint64_t> prepare_ns_ = 0;
};

// One index. For query_batch.h.
struct Index {
  layout::IndexSpec spec{};
  uint16_t generation = 0;
  uint64_t block_bytes = 0;         // of one slot and head of a page
  uint64_t extent_bytes = 0;        // of a page
  uint64_t kv_extent_bytes = 0;     // 0: keeps no K and V
  std::vector<uint8_t*> pages;      // extents; never reallocated
  std::vector<uint8_t*> kv_pages;   // [slots][heads][64] of layout::KvTokenBytes
  std::vector<uint32_t> tokens;     // by slot
  std::vector<uint32_t> kv_tokens;  // by slot
  bool appending = false;

  uint64_t BlockOffset(uint32_t slot, uint32_t head) const {
    return (uint64_t{slot} * spec.heads + head) * block_bytes;
  }
  // Of K and V of one token of a slot and head.
  uint64_t KvTokenBytes() const { return layout::KvTokenBytes(spec.kv_format, spec.dim); }
  uint64_t KvOffset(uint32_t slot, uint32_t head, uint32_t token_of_page) const {
    return ((uint64_t{slot} * spec.heads + head) * layout::kPageTokens + token_of_page) * KvTokenBytes();
  }
};

// Descriptors passed layout::Validate (specs ValidateSpec) with what Info says; anything else that is wrong
// with them is a bug here. Every operation answers with a completion, whose status is kStatusOk, kStatusFull
// (nothing was changed) or kStatusDraining.
class IndexStore {
 public:
  struct Options {
    uint64_t capacity_bytes = UINT64_MAX;  // quotas of all owners together
    uint32_t max_owners = 64;
    int threads = 1;           // that run items of appends
    std::string isa = "auto";  // names of devices/cpu/isa.h
  };
  static absl::StatusOr<std::unique_ptr<IndexStore>> Create(const Options& options);
  ~IndexStore();
  IndexStore(const IndexStore&) = delete;
  IndexStore& operator=(const IndexStore&) = delete;

  // The new owner's number, below max_owners; a number is used again after RemoveOwner. RESOURCE_EXHAUSTED
  // names the bound.
  absl::StatusOr<uint32_t> AddOwner(const OwnerLimits& limits);
  // Frees all of its indexes. It has no append under way.
  void RemoveOwner(uint32_t owner);
  // Takes no new indexes from now on.
  void Drain(bool draining) { draining_ = draining; }

  // For layout::Validate. layer_slot: kAllLayerSlots gives the least of all slots.
  layout::IndexInfo Info(uint32_t owner, uint32_t index_id, uint32_t layer_slot) const;
  OwnerStats Stats(uint32_t owner) const;
  // nullptr when there is none.
  const Index* Find(uint32_t owner, uint32_t index_id) const;
  // Resident bytes of `tokens` of an index, for admission: what kOpCreate counts for max_tokens.
  static uint64_t BytesFor(const layout::IndexSpec& spec, uint32_t tokens);

  layout::Completion Create(uint32_t owner, const layout::Descriptor& descriptor,
                            const layout::IndexSpec& spec);
  // The new index has the source's spec. Complete pages are shared; so are pages of K and V.
  layout::Completion Fork(uint32_t owner, const layout::Descriptor& descriptor);
  // kStatusFull only when pages that another index shares are forgotten and the quota has no room to append
  // them anew.
  layout::Completion Truncate(uint32_t owner, const layout::Descriptor& descriptor);
  layout::Completion Free(uint32_t owner, const layout::Descriptor& descriptor);
  // `values` is the payload, kv[slots][heads][tokens] (payload.h).
  layout::Completion KvStore(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* values);

  // Returns kStatusOk, and `job` is active until EndAppend or AbortAppend; otherwise kStatusFull (no memory).
  // One append an index at a time; it must not be freed or truncated meanwhile.
  uint16_t BeginAppend(uint32_t owner, const layout::Descriptor& descriptor, const KeySource& source,
                       AppendJob* job);
  // The same from the payload of a descriptor, which stays as it is until the end.
  uint16_t BeginAppend(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* payload,
                       AppendJob* job);
  // All items have run.
  layout::Completion EndAppend(AppendJob* job);
  void AbortAppend(AppendJob* job);
  // The three steps at once, on the calling thread.
  layout::Completion Append(uint32_t owner, const layout::Descriptor& descriptor, const uint8_t* payload);

 private:
  friend class AppendJob;
  struct Owner {
    bool used = false;
    OwnerLimits limits;
    OwnerStats stats;
    std::vector<std::unique_ptr<Index>> indexes;
  };
  struct Scratch;

  explicit IndexStore(const Options& options);
  Owner& OwnerOf(uint32_t owner);
  const Owner& OwnerOf(uint32_t owner) const;
  Index& IndexOf(uint32_t owner, uint32_t index_id);
  uint8_t* NewExtent(Owner& owner, uint64_t bytes);
  // Gives up one reference.
  void DropExtent(Owner& owner, uint8_t* extent, uint64_t bytes);
  // Gives up records and values from these pages on.
  void DropPages(Owner& owner, Index& index, uint32_t from_page, uint32_t from_kv_page);
  void FreeIndex(Owner& owner, std::unique_ptr<Index>& index);
  uint16_t StartJob(uint32_t owner, const layout::Descriptor& descriptor, AppendJob* job);
  static layout::Completion Answer(const layout::Descriptor& descriptor, uint16_t status, const Index* index);

  const Options options_;
  const devices::cpu::IndexKernels* kernels_;
  ExtentPool pool_;
  std::vector<Owner> owners_;
  uint64_t granted_bytes_ = 0;
  bool draining_ = false;
  std::vector<std::unique_ptr<Scratch>> scratch_;  // by thread
};

}  // namespace mnemo::memory_device
