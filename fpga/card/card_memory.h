#pragma once

// Record memory of a card: records in card memory, page lists beside them, index table and token counts in
// the port's host memory, K and V in this process.

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/memory/extent_pool.h"
#include "devices/memory/record_memory.h"
#include "fpga/card/card_port.h"
#include "fpga/card/card_registers.h"
#include "fpga/card/host_parts.h"
#include "fpga/card/space_allocator.h"
#include "proto/layout/card.h"

namespace mnemo::card {

// An index as operations see it.
struct CardIndexState {
  memory_device::ExtentLayout at;
  uint16_t generation = 0;
  uint32_t shift = 0;
  std::optional<uint32_t> number;  // in the card's table; none: the card had no room for it
  uint64_t list_beat = 0;
  uint64_t list_beats = 0;
  uint64_t tokens_unit = 0;  // of the area of tokens
  uint64_t tokens_units = 0;
  std::vector<memory_device::Extent> pages;
  std::vector<const uint8_t*> kv_pages;  // never reallocated
  std::vector<uint32_t> tokens;          // by slot
  std::vector<uint32_t> kv_tokens;
};

class CardMemory final : public memory_device::RecordMemory {
 public:
  CardMemory() { Stop(); }
  ~CardMemory() override;
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;

  // Begins empty on a card; what was there before is forgotten. The port outlives the next Start or Stop.
  void Start(CardPort* port, std::vector<ChannelRange> channels, const HostParts& parts);
  // Forgets everything; until the next Start there is no memory.
  void Stop();
  // The first error of the port since Start. Then nothing arrives any more.
  const absl::Status& status() const { return status_; }

  // Index tables of direct queues, beside the driver's: entry n, at `offset` of host memory, is that of
  // indexes[n] until this is closed. All of them have a number.
  void OpenDirectTable(uint64_t offset, std::span<const memory_device::IndexKey> indexes);
  void CloseDirectTable(uint64_t offset);

  // nullptr when there is none. With a number, if there is room for it by now.
  const CardIndexState* Find(memory_device::IndexKey key);
  // For tests: beats of extents in a channel, where an extent lies, and what lists and table have left.
  uint64_t used_beats(uint32_t channel) const { return extents_of_[channel].used(); }
  std::pair<uint32_t, uint64_t> PlaceOf(memory_device::Extent extent) const {
    return {pieces_[extent].channel, pieces_[extent].beat};
  }
  uint64_t free_list_beats() const { return lists_.free(); }
  uint64_t free_numbers() const { return numbers_.free(); }
  uint64_t list_space_beats() const { return list_space_; }

  const memory_device::ResidentLayout& layout() const override;
  // As many extents in every channel, since an index has its pages in all of them.
  uint64_t record_capacity_bytes() const override;
  memory_device::Extent Allocate(memory_device::ExtentKind kind, memory_device::IndexKey key, uint32_t page,
                                 uint64_t bytes) override;
  void Release(memory_device::Extent extent) override;
  uint8_t* Stage(memory_device::Extent extent, uint64_t offset, uint64_t bytes) override;
  memory_device::Ticket Upload(memory_device::Extent extent, uint64_t offset, uint64_t bytes) override;
  memory_device::Ticket Copy(memory_device::Extent from, memory_device::Extent to) override;
  bool Arrived(memory_device::Ticket ticket) override;
  absl::Status Read(memory_device::Extent extent, uint64_t offset, std::span<uint8_t> out) override;
  void OpenIndex(memory_device::IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                 const memory_device::IndexKey* forked_from) override;
  void PublishPages(memory_device::IndexKey key, memory_device::ExtentKind kind, uint32_t first_page,
                    std::span<const memory_device::Extent> pages) override;
  void PublishTokens(memory_device::IndexKey key, memory_device::ExtentKind kind, uint32_t first_slot,
                     std::span<const uint32_t> tokens) override;
  void CloseIndex(memory_device::IndexKey key) override;

 private:
  struct Piece {
    bool used = false;
    memory_device::ExtentKind kind{};
    uint64_t bytes = 0;
    uint32_t channel = 0;       // records
    uint64_t beat = 0;          // records: from the channel's base
    uint8_t* memory = nullptr;  // values
  };
  struct FreeBytes {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };
  using Buffer = std::unique_ptr<uint8_t, FreeBytes>;

  uint32_t channels() const { return static_cast<uint32_t>(channels_.size()); }
  CardIndexState& IndexOf(memory_device::IndexKey key);
  memory_device::Extent NewNumber(const Piece& piece);
  uint32_t ChooseShift() const;
  // Gives an index its number, list and tokens, and tells the card of it; does nothing when there is no room.
  void Place(CardIndexState* index);
  void GiveUpPlace(CardIndexState* index);
  // Writes the list's entries of pages from `first_page` on.
  void WriteList(const CardIndexState& index, uint32_t first_page);
  // The list's entry of a channel and row; 0 where there is no page.
  uint32_t EntryOf(const CardIndexState& index, uint32_t channel, uint64_t row) const;
  void WriteTokens(const CardIndexState& index);
  void WriteTableEntry(const CardIndexState& index, bool exists);
  uint64_t AddressOf(const Piece& piece) const;
  void Note(const absl::Status& status) { status_.Update(status); }

  CardPort* port_ = nullptr;
  std::vector<ChannelRange> channels_;
  HostParts parts_;
  absl::Status status_;
  std::vector<ChannelExtents> extents_of_;  // by channel
  uint64_t list_space_ = 0;
  uint64_t extent_space_ = 0;     // beats, of each channel
  SpaceAllocator lists_{0, 0};    // beats, the same in every channel
  SpaceAllocator numbers_{0, 0};  // of the table
  SpaceAllocator tokens_{0, 0};   // units
  memory_device::ExtentPool values_;
  std::vector<Piece> pieces_;
  std::vector<memory_device::Extent> spare_;  // numbers of extents
  std::map<std::pair<memory_device::Extent, uint64_t>, std::pair<uint64_t, Buffer>> staged_;
  std::vector<std::vector<std::unique_ptr<CardIndexState>>> indexes_;       // by owner and id
  std::vector<uint32_t> opened_;                                            // indexes by shift, forks too
  std::map<uint64_t, std::vector<std::optional<uint32_t>>> direct_tables_;  // by offset: numbers
  std::vector<uint8_t> buffer_;
};

}  // namespace mnemo::card
