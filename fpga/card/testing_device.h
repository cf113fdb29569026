#pragma once

// A card in software behind its driver, with an index table above it and a copy of all that was stored, for
// tests of the driver. Records and results are compared with those of proto/layout.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "devices/memory/index_table.h"
#include "devices/memory/testing/same_results.h"
#include "fpga/card/card_driver.h"
#include "fpga/card/model/model_port.h"

namespace mnemo::card {

// Wire records of an index, by slot and head, then page.
struct StoredIndex {
  layout::IndexSpec spec{};
  uint16_t generation = 0;
  std::vector<std::vector<std::vector<uint8_t>>> columns;

  uint32_t pages() const { return static_cast<uint32_t>(columns[0].size()); }
  uint32_t tokens() const { return pages() * layout::kPageTokens; }
};

// An operation with what the reference says of it.
struct Question {
  layout::Descriptor d{};
  uint32_t dim = 0;
  std::vector<uint8_t> payload;
  std::vector<uint8_t> result;
  std::vector<uint8_t> expected;

  // Whether the results are the expected ones.
  bool Answered() const { return memory_device::testing::SameResults(d, dim, result, expected); }
};

layout::IndexSpec SpecOf(uint32_t format, uint32_t dim, uint32_t pages, uint32_t slots = 1,
                         uint32_t heads = 2);

// The card's memory without its bound, so that a table over it promises more than there is.
class OvercommittedMemory final : public memory_device::RecordMemory {
 public:
  explicit OvercommittedMemory(memory_device::RecordMemory* memory) : memory_(memory) {}
  const memory_device::ResidentLayout& layout() const override { return memory_->layout(); }
  memory_device::Extent Allocate(memory_device::ExtentKind kind, memory_device::IndexKey key, uint32_t page,
                                 uint64_t bytes) override {
    return memory_->Allocate(kind, key, page, bytes);
  }
  void Release(memory_device::Extent extent) override { memory_->Release(extent); }
  uint8_t* Stage(memory_device::Extent extent, uint64_t offset, uint64_t bytes) override {
    return memory_->Stage(extent, offset, bytes);
  }
  memory_device::Ticket Upload(memory_device::Extent extent, uint64_t offset, uint64_t bytes) override {
    return memory_->Upload(extent, offset, bytes);
  }
  memory_device::Ticket Copy(memory_device::Extent from, memory_device::Extent to) override {
    return memory_->Copy(from, to);
  }
  bool Arrived(memory_device::Ticket ticket) override { return memory_->Arrived(ticket); }
  absl::Status Read(memory_device::Extent extent, uint64_t offset, std::span<uint8_t> out) override {
    return memory_->Read(extent, offset, out);
  }
  void OpenIndex(memory_device::IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                 const memory_device::IndexKey* forked_from) override {
    memory_->OpenIndex(key, generation, spec, forked_from);
  }
  void PublishPages(memory_device::IndexKey key, memory_device::ExtentKind kind, uint32_t first_page,
                    std::span<const memory_device::Extent> pages) override {
    memory_->PublishPages(key, kind, first_page, pages);
  }
  void PublishTokens(memory_device::IndexKey key, memory_device::ExtentKind kind, uint32_t first_slot,
                     std::span<const uint32_t> tokens) override {
    memory_->PublishTokens(key, kind, first_slot, tokens);
  }
  void CloseIndex(memory_device::IndexKey key) override { memory_->CloseIndex(key); }

 private:
  memory_device::RecordMemory* const memory_;
};

class TestDevice {
 public:
  using MakePort = std::function<absl::StatusOr<std::unique_ptr<CardPort>>()>;

  // Small memories, so that they become full: 2 channels of 256 KiB, 1 MiB of host memory, k up to 256.
  static model::ModelOptions SmallModel();
  static memory_device::MemoryDeviceOptions SmallOptions();
  static CardDriverOptions OnPort(MakePort make_port);

  // The card must come to be.
  explicit TestDevice(const model::ModelOptions& model = SmallModel(),
                      const memory_device::MemoryDeviceOptions& options = SmallOptions(),
                      CardDriverOptions card = OnPort(nullptr));

  CardDriver& driver() { return *driver_; }
  memory_device::IndexTable& table() { return *table_; }
  uint32_t owner() const { return owner_; }
  const std::map<uint32_t, StoredIndex>& stored() const { return stored_; }

  // Bulk operations return the completion's status; what succeeds is remembered. Append returns
  // kStatusDeviceFailed when the keys do not arrive; then Recover must follow.
  uint16_t Create(uint32_t id, const layout::IndexSpec& spec);
  uint16_t Append(uint32_t id, uint32_t pages);
  uint16_t Fork(uint32_t id, uint32_t from, uint32_t pages);
  uint16_t Truncate(uint32_t id, uint32_t pages);
  uint16_t Free(uint32_t id);

  // A random scan of an index that has pages.
  Question NewQuestion(uint32_t id);
  // Payload and expected results of a descriptor.
  Question QuestionOf(const layout::Descriptor& descriptor);
  // Submits all and polls. Fewer completions than questions: nothing came for many polls.
  std::vector<layout::Completion> Run(std::vector<Question>* questions);
  // All must be answered with the reference's results.
  void CheckAnswers(std::vector<Question>* questions);

  // Resets the device after a failure, as a service does. The card must come back, if need be without its
  // indexes.
  void Recover();

  // Index table, tokens, page lists and blocks are those of the stored indexes, and no extent is held that
  // none of them has.
  void CheckMemory();
  // Frees everything; the card's memory must be as it was at the start.
  void CheckNothingLeaks();

  std::mt19937 random{1};

 private:
  void ReadMemory(uint64_t address, std::span<uint8_t> bytes);
  void CheckEntry(const StoredIndex& index, const CardIndexState& state);

  CardPort* port_ = nullptr;  // the driver's
  std::unique_ptr<CardDriver> driver_;
  std::unique_ptr<OvercommittedMemory> memory_;
  std::unique_ptr<memory_device::IndexTable> table_;
  uint32_t owner_ = 0;
  std::map<uint32_t, StoredIndex> stored_;
  uint64_t free_list_beats_ = 0;
  uint64_t free_numbers_ = 0;
  memory_device::AppendJob job_;
};

}  // namespace mnemo::card
