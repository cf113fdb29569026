#include "fpga/card/card_memory.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "fpga/card/block.h"
#include "proto/layout/record.h"

namespace mnemo::card {

using layout::kCardBeatBytes;
using layout::kCardListRowsOfBeat;
using layout::kPageTokens;
using memory_device::Extent;
using memory_device::ExtentKind;
using memory_device::IndexKey;
using memory_device::kNoExtent;
using memory_device::ResidentLayout;
using memory_device::Ticket;

namespace {

// Page lists take this part of each channel: 2 KiB of blocks in 64 rows would need a hundredth of it.
constexpr uint64_t kListShare = 64;
constexpr uint64_t kLeastListBeats = 16;

}  // namespace

CardMemory::~CardMemory() { Stop(); }

void CardMemory::Start(CardPort* port, std::vector<ChannelRange> channels, const HostParts& parts) {
  Stop();
  port_ = port;
  channels_ = std::move(channels);
  parts_ = parts;
  uint64_t shortest = UINT64_MAX;
  for (const ChannelRange& channel : channels_) shortest = std::min(shortest, channel.length);
  list_space_ = std::min(shortest, std::max(kLeastListBeats, shortest / kListShare));
  extent_space_ = shortest - list_space_;
  lists_ = SpaceAllocator(0, list_space_);
  numbers_ = SpaceAllocator(0, parts.indexes);
  tokens_ = SpaceAllocator(0, parts.tokens_bytes / layout::kUnitBytes);
  for (const ChannelRange& channel : channels_) extents_of_.emplace_back(list_space_, channel.length);
  opened_.assign(channels_.size(), 0);
  std::memset(port->host_memory().data() + parts.table, 0, parts.indexes * sizeof(layout::CardIndex));
}

void CardMemory::Stop() {
  for (const Piece& piece : pieces_) {
    if (piece.memory != nullptr) values_.Release(piece.memory);
  }
  pieces_.clear();
  spare_.clear();
  staged_.clear();
  indexes_.clear();
  extents_of_.clear();
  channels_.clear();
  opened_.assign(1, 0);
  direct_tables_.clear();
  port_ = nullptr;
  status_ = absl::OkStatus();
}

const ResidentLayout& CardMemory::layout() const {
  static constexpr ResidentLayout kLayout = {
      .block_bytes = [](uint32_t record_format, uint32_t dim) -> uint64_t {
        return uint64_t{layout::CardBlockOf(record_format, dim).beats} * kCardBeatBytes;
      },
      .store_block =
          [](const uint8_t* record, uint32_t record_format, uint32_t dim, uint8_t* block) {
            StoreCardBlock({record, layout::RecordBytes(record_format, dim)}, record_format, dim,
                           {block, layout::CardBlockOf(record_format, dim).beats * size_t{kCardBeatBytes}});
          }};
  return kLayout;
}

uint64_t CardMemory::record_capacity_bytes() const {
  return uint64_t{channels()} * extent_space_ * kCardBeatBytes;
}

Extent CardMemory::NewNumber(const Piece& piece) {
  if (spare_.empty()) {
    spare_.push_back(static_cast<Extent>(pieces_.size()));
    pieces_.emplace_back();
  }
  const Extent extent = spare_.back();
  spare_.pop_back();
  pieces_[extent] = piece;
  return extent;
}

Extent CardMemory::Allocate(ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes) {
  Piece piece{.used = true, .kind = kind, .bytes = bytes};
  if (kind == ExtentKind::kValues) {
    piece.memory = values_.Allocate(bytes);
    return piece.memory == nullptr ? kNoExtent : NewNumber(piece);
  }
  CardIndexState& index = IndexOf(key);
  Place(&index);
  if (!index.number.has_value()) return kNoExtent;
  piece.channel = (page + index.shift) % channels();
  const std::optional<uint64_t> beat =
      extents_of_[piece.channel].Allocate(bytes / kCardBeatBytes, index.at.block_bytes / kCardBeatBytes);
  if (!beat.has_value()) return kNoExtent;
  piece.beat = *beat;
  return NewNumber(piece);
}

void CardMemory::Release(Extent extent) {
  Piece& piece = pieces_[extent];
  MNEMO_CHECK(piece.used);
  staged_.erase(staged_.lower_bound({extent, 0}), staged_.upper_bound({extent, UINT64_MAX}));
  if (piece.kind == ExtentKind::kValues) {
    values_.Release(piece.memory);
  } else {
    extents_of_[piece.channel].Release(piece.beat);
  }
  piece = {};
  spare_.push_back(extent);
}

uint64_t CardMemory::AddressOf(const Piece& piece) const {
  return (channels_[piece.channel].base + piece.beat) * kCardBeatBytes;
}

uint8_t* CardMemory::Stage(Extent extent, uint64_t offset, uint64_t bytes) {
  const Piece& piece = pieces_[extent];
  MNEMO_CHECK(offset + bytes <= piece.bytes);
  if (piece.kind == ExtentKind::kValues) return piece.memory + offset;
  Buffer buffer(static_cast<uint8_t*>(std::aligned_alloc(kCardBeatBytes, layout::PadToUnit(bytes))));
  uint8_t* const at = buffer.get();
  if (at != nullptr) staged_[{extent, offset}] = {bytes, std::move(buffer)};
  return at;
}

Ticket CardMemory::Upload(Extent extent, uint64_t offset, uint64_t bytes) {
  const Piece& piece = pieces_[extent];
  if (piece.kind == ExtentKind::kValues) return 0;
  const auto staged = staged_.extract({extent, offset});
  MNEMO_CHECK(!staged.empty() && staged.mapped().first == bytes);
  Note(port_->Write(AddressOf(piece) + offset, {staged.mapped().second.get(), bytes}));
  return 0;
}

Ticket CardMemory::Copy(Extent from, Extent to) {
  const Piece& source = pieces_[from];
  const Piece& target = pieces_[to];
  MNEMO_CHECK(source.bytes == target.bytes && source.kind == target.kind);
  if (source.kind == ExtentKind::kValues) {
    std::memcpy(target.memory, source.memory, source.bytes);
    return 0;
  }
  buffer_.resize(source.bytes);
  Note(port_->Read(AddressOf(source), buffer_));
  if (status_.ok()) Note(port_->Write(AddressOf(target), buffer_));
  return 0;
}

bool CardMemory::Arrived(Ticket /*ticket*/) { return status_.ok(); }

absl::Status CardMemory::Read(Extent extent, uint64_t offset, std::span<uint8_t> out) {
  const Piece& piece = pieces_[extent];
  MNEMO_CHECK(offset + out.size() <= piece.bytes);
  if (piece.kind == ExtentKind::kRecords) return port_->Read(AddressOf(piece) + offset, out);
  std::memcpy(out.data(), piece.memory + offset, out.size());
  return absl::OkStatus();
}

CardIndexState& CardMemory::IndexOf(IndexKey key) {
  MNEMO_CHECK(key.owner < indexes_.size() && key.index_id < indexes_[key.owner].size() &&
              indexes_[key.owner][key.index_id] != nullptr);
  return *indexes_[key.owner][key.index_id];
}

const CardIndexState* CardMemory::Find(IndexKey key) {
  if (key.owner >= indexes_.size() || key.index_id >= indexes_[key.owner].size()) return nullptr;
  CardIndexState* const index = indexes_[key.owner][key.index_id].get();
  if (index != nullptr) Place(index);
  return index;
}

uint32_t CardMemory::ChooseShift() const {
  uint32_t best = 0;
  const auto load = [&](uint32_t channel) {
    return std::tuple(extents_of_[channel].used(), opened_[channel], channel);
  };
  for (uint32_t channel = 1; channel < channels(); ++channel) {
    if (load(channel) < load(best)) best = channel;
  }
  return best;
}

void CardMemory::OpenIndex(IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                           const IndexKey* forked_from) {
  if (key.owner >= indexes_.size()) indexes_.resize(size_t{key.owner} + 1);
  const uint32_t shift = forked_from != nullptr ? IndexOf(*forked_from).shift : ChooseShift();
  std::vector<std::unique_ptr<CardIndexState>>& of_owner = indexes_[key.owner];
  if (key.index_id >= of_owner.size()) of_owner.resize(size_t{key.index_id} + 1);
  MNEMO_CHECK(of_owner[key.index_id] == nullptr);
  auto index = std::make_unique<CardIndexState>();
  index->at = {spec, layout().block_bytes(spec.record_format, spec.dim)};
  index->generation = generation;
  index->shift = shift;
  index->kv_pages.reserve(index->at.ValueBytes() != 0 ? spec.max_tokens / kPageTokens : 0);
  index->tokens.resize(spec.layer_slots);
  index->kv_tokens.resize(spec.layer_slots);
  ++opened_[index->shift];
  Place(index.get());
  of_owner[key.index_id] = std::move(index);
}

void CardMemory::Place(CardIndexState* index) {
  if (index->number.has_value() || port_ == nullptr) return;
  const uint64_t rows =
      (index->at.spec.max_tokens / kPageTokens + index->shift + channels() - 1) / channels();
  const uint64_t beats = (rows + kCardListRowsOfBeat - 1) / kCardListRowsOfBeat;
  const uint64_t units =
      layout::PadToUnit(index->tokens.size() * sizeof(uint32_t)) / uint64_t{layout::kUnitBytes};
  const std::optional<uint64_t> number = numbers_.Allocate(1);
  const std::optional<uint64_t> list = number.has_value() ? lists_.Allocate(beats) : std::nullopt;
  const std::optional<uint64_t> tokens = list.has_value() ? tokens_.Allocate(units) : std::nullopt;
  if (!tokens.has_value()) {
    if (list.has_value()) lists_.Release(*list, beats);
    if (number.has_value()) numbers_.Release(*number, 1);
    return;
  }
  index->number = static_cast<uint32_t>(*number);
  index->list_beat = *list;
  index->list_beats = beats;
  index->tokens_unit = *tokens;
  index->tokens_units = units;
  WriteList(*index, 0);
  WriteTokens(*index);
  WriteTableEntry(*index, true);
}

void CardMemory::GiveUpPlace(CardIndexState* index) {
  if (!index->number.has_value()) return;
  WriteTableEntry(*index, false);
  lists_.Release(index->list_beat, index->list_beats);
  tokens_.Release(index->tokens_unit, index->tokens_units);
  numbers_.Release(*index->number, 1);
  index->number.reset();
}

void CardMemory::WriteTableEntry(const CardIndexState& index, bool exists) {
  const layout::IndexSpec& spec = index.at.spec;
  layout::CardIndex entry{};
  if (exists) {
    entry.generation = index.generation;
    entry.exists = 1;
    entry.record_format = spec.record_format;
    entry.layer_slots = spec.layer_slots;
    entry.heads = spec.heads;
    entry.dim = spec.dim;
    entry.shift = static_cast<uint8_t>(index.shift);
    entry.kv_format = spec.kv_format;
    entry.max_tokens = spec.max_tokens;
    entry.list_beat = static_cast<uint32_t>(index.list_beat);
    entry.block_beats = layout::CardBlockOf(spec.record_format, spec.dim).beats;
    entry.tokens_address = port_->host_address() + parts_.tokens + index.tokens_unit * layout::kUnitBytes;
  }
  const auto write = [&](uint64_t table, uint64_t number) {
    std::memcpy(port_->host_memory().data() + table + number * sizeof(entry), &entry, sizeof(entry));
  };
  write(parts_.table, *index.number);
  for (auto& [table, numbers] : direct_tables_) {
    for (uint64_t n = 0; n < numbers.size(); ++n) {
      if (numbers[n] != index.number) continue;
      write(table, n);
      if (!exists) numbers[n].reset();
    }
  }
}

void CardMemory::OpenDirectTable(uint64_t offset, std::span<const IndexKey> indexes) {
  std::vector<std::optional<uint32_t>>& numbers = direct_tables_[offset];
  numbers.clear();
  for (const IndexKey key : indexes) numbers.push_back(IndexOf(key).number);
  for (const IndexKey key : indexes) WriteTableEntry(IndexOf(key), true);
}

void CardMemory::CloseDirectTable(uint64_t offset) { direct_tables_.erase(offset); }

void CardMemory::WriteTokens(const CardIndexState& index) {
  std::memcpy(port_->host_memory().data() + parts_.tokens + index.tokens_unit * layout::kUnitBytes,
              index.tokens.data(), index.tokens.size() * sizeof(uint32_t));
}

uint32_t CardMemory::EntryOf(const CardIndexState& index, uint32_t channel, uint64_t row) const {
  const uint64_t page = row * channels() + channel;
  return page >= index.shift && page - index.shift < index.pages.size()
             ? static_cast<uint32_t>(pieces_[index.pages[page - index.shift]].beat)
             : 0;
}

void CardMemory::WriteList(const CardIndexState& index, uint32_t first_page) {
  if (first_page >= index.pages.size()) return;
  const uint64_t first = uint64_t{first_page} + index.shift;
  const uint64_t last = index.pages.size() - 1 + index.shift;
  for (uint32_t channel = 0; channel < channels(); ++channel) {
    // Rows whose pages are within [first, last].
    const uint64_t first_row = first / channels() + (first % channels() > channel ? 1 : 0);
    const uint64_t end_row = last / channels() + (last % channels() >= channel ? 1 : 0);
    if (first_row >= end_row) continue;
    const uint64_t beat = first_row / kCardListRowsOfBeat;
    const uint64_t rows = (end_row + kCardListRowsOfBeat - 1) / kCardListRowsOfBeat * kCardListRowsOfBeat -
                          beat * kCardListRowsOfBeat;
    buffer_.resize(rows * sizeof(uint32_t));
    for (uint64_t row = 0; row < rows; ++row) {
      const uint32_t entry = EntryOf(index, channel, beat * kCardListRowsOfBeat + row);
      std::memcpy(buffer_.data() + row * sizeof(entry), &entry, sizeof(entry));
    }
    Note(port_->Write((channels_[channel].base + index.list_beat + beat) * kCardBeatBytes, buffer_));
  }
}

void CardMemory::PublishPages(IndexKey key, ExtentKind kind, uint32_t first_page,
                              std::span<const Extent> pages) {
  CardIndexState& index = IndexOf(key);
  if (kind == ExtentKind::kValues) {
    MNEMO_CHECK(first_page <= index.kv_pages.size());
    index.kv_pages.resize(first_page);
    for (const Extent extent : pages) index.kv_pages.push_back(pieces_[extent].memory);
    return;
  }
  MNEMO_CHECK(first_page <= index.pages.size());
  index.pages.resize(first_page);
  for (const Extent extent : pages) {
    MNEMO_CHECK(pieces_[extent].channel == (index.pages.size() + index.shift) % channels());
    index.pages.push_back(extent);
  }
  if (index.number.has_value()) WriteList(index, first_page);
}

void CardMemory::PublishTokens(IndexKey key, ExtentKind kind, uint32_t first_slot,
                               std::span<const uint32_t> tokens) {
  CardIndexState& index = IndexOf(key);
  std::vector<uint32_t>& counts = kind == ExtentKind::kRecords ? index.tokens : index.kv_tokens;
  MNEMO_CHECK(first_slot + tokens.size() <= counts.size());
  std::copy(tokens.begin(), tokens.end(), counts.begin() + first_slot);
  if (kind == ExtentKind::kRecords && index.number.has_value()) WriteTokens(index);
}

void CardMemory::CloseIndex(IndexKey key) {
  CardIndexState& index = IndexOf(key);
  GiveUpPlace(&index);
  --opened_[index.shift];
  indexes_[key.owner][key.index_id].reset();
}

}  // namespace mnemo::card
