// The record memory of this machine's processor: extents in the memory of this process. What is staged is in
// place; uploads have arrived at once.
#pragma once

#include <memory>
#include <vector>

#include "devices/memory/extent_pool.h"
#include "devices/memory/record_memory.h"

namespace mnemo::memory_device::cpu {

// An index as query batches see it.
struct ResidentIndex {
  ExtentLayout at;
  uint16_t generation = 0;
  std::vector<const uint8_t*> pages;  // never reallocated
  std::vector<const uint8_t*> kv_pages;
  std::vector<uint32_t> tokens;  // by slot
  std::vector<uint32_t> kv_tokens;
};

class CpuRecordMemory final : public RecordMemory {
 public:
  CpuRecordMemory() = default;
  ~CpuRecordMemory() override;
  CpuRecordMemory(const CpuRecordMemory&) = delete;
  CpuRecordMemory& operator=(const CpuRecordMemory&) = delete;

  // nullptr when there is none. It changes only by calls of this class.
  const ResidentIndex* Find(IndexKey key) const {
    if (key.owner >= indexes_.size() || key.index_id >= indexes_[key.owner].size()) return nullptr;
    return indexes_[key.owner][key.index_id].get();
  }
  uint8_t* At(Extent extent) const { return extents_[extent].memory; }
  const ExtentPool& pool() const { return pool_; }

  const ResidentLayout& layout() const override;
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
  struct Piece {
    uint8_t* memory = nullptr;  // nullptr: the number is free
    uint64_t bytes = 0;
  };
  ResidentIndex& IndexOf(IndexKey key) const;

  ExtentPool pool_;
  std::vector<Piece> extents_;
  std::vector<Extent> free_;                                          // numbers
  std::vector<std::vector<std::unique_ptr<ResidentIndex>>> indexes_;  // by owner and id
};

}  // namespace mnemo::memory_device::cpu
