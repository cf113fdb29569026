// Record memory: where a memory device keeps records, K and V, and what it knows of indexes. The index table
// (index_table.h), which is software of the host, decides what lies where and tells the device by these
// calls. The memory may be one that the host cannot read.
//
// Order of publication: an extent's bytes (Stage, Upload, Arrived), then page lists, then token counts, then
// the completion of the bulk operation. What is published is seen by every operation submitted afterwards.
#pragma once

#include <cstdint>
#include <span>

#include "devices/base/status.h"
#include "proto/layout/abi.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"

namespace mnemo::memory_device {

// Extent: memory of one page of an index. Numbers are dense from 0 and are used again after Release.
using Extent = uint32_t;
inline constexpr Extent kNoExtent = UINT32_MAX;
using Ticket = uint64_t;  // of what is under way to the device; grows

enum class ExtentKind : uint8_t {
  kRecords,  // [slots][heads] resident blocks
  kValues,   // [slots][heads][64] of layout::KvTokenBytes: K and V
};

struct IndexKey {
  uint32_t owner = 0;
  uint32_t index_id = 0;
};

// A device's own form of a record. Functions from any thread.
struct ResidentLayout {
  // Bytes of a block: one page, slot and head.
  uint64_t (*block_bytes)(uint32_t record_format, uint32_t dim) = nullptr;
  // Makes a block of a wire record.
  void (*store_block)(const uint8_t* record, uint32_t record_format, uint32_t dim, uint8_t* block) = nullptr;
};

// Where things lie in the extents of an index.
struct ExtentLayout {
  layout::IndexSpec spec{};
  uint64_t block_bytes = 0;

  uint64_t RecordBytes() const { return uint64_t{spec.layer_slots} * spec.heads * block_bytes; }
  // 0: the index keeps no K and V.
  uint64_t ValueBytes() const { return KvOffset(spec.layer_slots, 0, 0); }
  uint64_t BlockOffset(uint32_t slot, uint32_t head) const {
    return (uint64_t{slot} * spec.heads + head) * block_bytes;
  }
  // Bytes of K and V of one token of a slot and head.
  uint64_t KvTokenBytes() const { return layout::KvTokenBytes(spec.kv_format, spec.dim); }
  uint64_t KvOffset(uint32_t slot, uint32_t head, uint32_t token_of_page) const {
    return ((uint64_t{slot} * spec.heads + head) * layout::kPageTokens + token_of_page) * KvTokenBytes();
  }
};

// Calls come from one thread, that of the device's own calls, and do not block but where it is said. No
// call touches what an operation under way reads: the table holds back whatever would.
class RecordMemory {
 public:
  virtual ~RecordMemory() = default;

  // The same for the device's life.
  virtual const ResidentLayout& layout() const = 0;

  // Bytes of extents of records that there is room for in all, when their sizes do not cut it to pieces. 0
  // while the device does not work.
  virtual uint64_t record_capacity_bytes() const { return UINT64_MAX; }

  // An extent with undefined contents for page `page` of an open index; kNoExtent when there is no memory
  // left. A page may have several extents at a time, of which one is published.
  virtual Extent Allocate(ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes) = 0;
  virtual void Release(Extent extent) = 0;

  // Host memory, 64-byte aligned if `offset` is, for bytes of an extent that are to be written; any threads
  // may write it until Upload. nullptr when there is none. What is never uploaded is forgotten when the
  // same range is staged again or the extent is released.
  virtual uint8_t* Stage(Extent extent, uint64_t offset, uint64_t bytes) = 0;
  // Starts to bring a staged range to the device. Ranges arrive in the order of the calls.
  virtual Ticket Upload(Extent extent, uint64_t offset, uint64_t bytes) = 0;
  // Starts to copy an extent's contents to another of the same size, in the same order as uploads.
  virtual Ticket Copy(Extent from, Extent to) = 0;
  // Whether that and everything before it has arrived.
  virtual bool Arrived(Ticket ticket) = 0;
  // Copies bytes out of an extent, as the last upload that arrived left them. May block. For tests and for
  // gathers in software; UNIMPLEMENTED of a memory that cannot be read so.
  virtual absl::Status Read(Extent extent, uint64_t offset, std::span<uint8_t> out) = 0;

  // An index without pages and tokens. Its number is not in use. forked_from: the open index with which it
  // shares extents, each as the same page of both; a device that places pages by index places these two
  // alike. nullptr: it shares none.
  virtual void OpenIndex(IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                         const IndexKey* forked_from) = 0;
  // The list of pages is now its first `first_page` entries, which stay, and these.
  virtual void PublishPages(IndexKey key, ExtentKind kind, uint32_t first_page,
                            std::span<const Extent> pages) = 0;
  // Token counts of layer slots from `first_slot` on.
  virtual void PublishTokens(IndexKey key, ExtentKind kind, uint32_t first_slot,
                             std::span<const uint32_t> tokens) = 0;
  // The index is gone; its extents are released afterwards.
  virtual void CloseIndex(IndexKey key) = 0;
};

}  // namespace mnemo::memory_device
