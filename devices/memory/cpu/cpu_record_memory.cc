#include "devices/memory/cpu/cpu_record_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/cpu/index_kernels.h"

namespace mnemo::memory_device::cpu {

CpuRecordMemory::~CpuRecordMemory() {
  for (const Piece& piece : extents_) {
    if (piece.memory != nullptr) pool_.Release(piece.memory);
  }
}

const ResidentLayout& CpuRecordMemory::layout() const {
  static constexpr ResidentLayout kLayout = {
      .block_bytes = [](uint32_t record_format, uint32_t dim) -> uint64_t {
        return devices::cpu::BlockOf(record_format, dim).bytes;
      },
      .store_block = devices::cpu::StoreBlock};
  return kLayout;
}

Extent CpuRecordMemory::Allocate(ExtentKind /*kind*/, IndexKey /*key*/, uint32_t /*page*/, uint64_t bytes) {
  uint8_t* const memory = pool_.Allocate(bytes);
  if (memory == nullptr) return kNoExtent;
  if (free_.empty()) {
    free_.push_back(static_cast<Extent>(extents_.size()));
    extents_.emplace_back();
  }
  const Extent extent = free_.back();
  free_.pop_back();
  extents_[extent] = {memory, bytes};
  return extent;
}

void CpuRecordMemory::Release(Extent extent) {
  pool_.Release(extents_[extent].memory);
  extents_[extent] = {};
  free_.push_back(extent);
}

uint8_t* CpuRecordMemory::Stage(Extent extent, uint64_t offset, uint64_t bytes) {
  MNEMO_CHECK(offset + bytes <= extents_[extent].bytes);
  return At(extent) + offset;
}

Ticket CpuRecordMemory::Upload(Extent /*extent*/, uint64_t /*offset*/, uint64_t /*bytes*/) { return 0; }

Ticket CpuRecordMemory::Copy(Extent from, Extent to) {
  std::memcpy(At(to), At(from), extents_[from].bytes);
  return 0;
}

bool CpuRecordMemory::Arrived(Ticket /*ticket*/) { return true; }

absl::Status CpuRecordMemory::Read(Extent extent, uint64_t offset, std::span<uint8_t> out) {
  MNEMO_CHECK(offset + out.size() <= extents_[extent].bytes);
  std::memcpy(out.data(), At(extent) + offset, out.size());
  return absl::OkStatus();
}

ResidentIndex& CpuRecordMemory::IndexOf(IndexKey key) const {
  MNEMO_CHECK(Find(key) != nullptr);
  return *indexes_[key.owner][key.index_id];
}

void CpuRecordMemory::OpenIndex(IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                                const IndexKey* /*forked_from*/) {
  MNEMO_CHECK(Find(key) == nullptr);
  if (key.owner >= indexes_.size()) indexes_.resize(size_t{key.owner} + 1);
  std::vector<std::unique_ptr<ResidentIndex>>& of_owner = indexes_[key.owner];
  if (key.index_id >= of_owner.size()) of_owner.resize(size_t{key.index_id} + 1);
  auto index = std::make_unique<ResidentIndex>();
  index->at = {spec, layout().block_bytes(spec.record_format, spec.dim)};
  index->generation = generation;
  index->pages.reserve(spec.max_tokens / layout::kPageTokens);
  index->kv_pages.reserve(index->at.ValueBytes() != 0 ? spec.max_tokens / layout::kPageTokens : 0);
  index->tokens.resize(spec.layer_slots);
  index->kv_tokens.resize(spec.layer_slots);
  of_owner[key.index_id] = std::move(index);
}

void CpuRecordMemory::PublishPages(IndexKey key, ExtentKind kind, uint32_t first_page,
                                   std::span<const Extent> pages) {
  ResidentIndex& index = IndexOf(key);
  std::vector<const uint8_t*>& list = kind == ExtentKind::kRecords ? index.pages : index.kv_pages;
  MNEMO_CHECK(first_page <= list.size());
  list.resize(first_page);
  for (const Extent extent : pages) list.push_back(At(extent));
}

void CpuRecordMemory::PublishTokens(IndexKey key, ExtentKind kind, uint32_t first_slot,
                                    std::span<const uint32_t> tokens) {
  ResidentIndex& index = IndexOf(key);
  std::vector<uint32_t>& counts = kind == ExtentKind::kRecords ? index.tokens : index.kv_tokens;
  MNEMO_CHECK(first_slot + tokens.size() <= counts.size());
  std::copy(tokens.begin(), tokens.end(), counts.begin() + first_slot);
}

void CpuRecordMemory::CloseIndex(IndexKey key) {
  IndexOf(key);
  indexes_[key.owner][key.index_id].reset();
}

}  // namespace mnemo::memory_device::cpu
