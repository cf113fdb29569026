#include "fpga/card/model/testing_card.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "fpga/card/block.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/ring.h"
#include "proto/layout/validate.h"

namespace mnemo::card::model {
namespace {

using layout::kPageTokens;

float Normal(std::mt19937& random) { return std::normal_distribution<float>(0.0F, 1.0F)(random); }

// Keys of one of four kinds: ordinary, all equal, zeros with one spike, few values (many ties).
std::vector<float> Keys(uint32_t dim, std::mt19937& random) {
  std::vector<float> keys(size_t{kPageTokens} * dim);
  const uint32_t kind = random() % 8;
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = kind < 5    ? Normal(random)
              : kind == 5 ? 0.25F
              : kind == 6 ? 0.0F
                          : static_cast<float>(random() % 2) - 0.5F;
  }
  if (kind == 6) {
    keys[random() % keys.size()] = 1000.0F;
  }
  return keys;
}

}  // namespace

TestCard::TestCard(const ModelOptions& options, const TestIndex& index, std::mt19937& random, uint32_t first)
    : index_(index), first_(first) {
  auto port = ModelPort::Make(options);
  REQUIRE(port.ok());
  port_ = *std::move(port);
  StorePages(random);
  SetUpQueue();
  SetRegister(layout::kCardRegPeriod, 1024);
  SetRegister(layout::kCardRegControl, layout::kCardControlRun);
}

uint64_t TestCard::ChannelAddress(uint32_t lane) {
  return uint64_t{Register(layout::kCardRegChannels + 8 * lane)} * layout::kCardBeatBytes;
}

void TestCard::StorePages(std::mt19937& random) {
  const uint32_t channels = Register(layout::kCardRegShape) & 0xFF;
  const layout::CardBlock block = layout::CardBlockOf(index_.format, index_.dim);
  const uint32_t blocks = index_.layer_slots * index_.heads;
  std::vector<uint32_t> used(channels);
  for (uint32_t page = 0; page < index_.tokens / kPageTokens; ++page) {
    const uint32_t lane = (page + index_.shift) % channels;
    // Extents lie in any order, with gaps.
    const uint32_t extent = kFirstExtent + blocks * block.beats * (used[lane] ^ 1U) + random() % 2;
    used[lane] += 2;
    for (uint32_t n = 0; n < blocks; ++n) {
      const std::vector<float> keys = Keys(index_.dim, random);
      std::vector<uint8_t> record(layout::RecordBytes(index_.format, index_.dim));
      layout::MakeRecord({keys.data(), size_t{index_.dim} * 4, layout::kFormatF32}, index_.dim, index_.format,
                         record);
      std::vector<uint8_t> stored(size_t{block.beats} * layout::kCardBeatBytes);
      StoreCardBlock(record, index_.format, index_.dim, stored);
      const uint64_t beat = extent + uint64_t{n} * block.beats;
      REQUIRE(port_->Write(ChannelAddress(lane) + beat * layout::kCardBeatBytes, stored).ok());
      records_.push_back(std::move(record));
    }
    SetExtent(page, extent);
  }
  layout::CardIndex entry{};
  entry.generation = kGeneration;
  entry.exists = 1;
  entry.record_format = static_cast<uint8_t>(index_.format);
  entry.layer_slots = static_cast<uint16_t>(index_.layer_slots);
  entry.heads = static_cast<uint16_t>(index_.heads);
  entry.dim = static_cast<uint16_t>(index_.dim);
  entry.shift = static_cast<uint8_t>(index_.shift);
  entry.max_tokens = 1 << 20;
  entry.list_beat = kListBeat;
  entry.block_beats = block.beats;
  entry.tokens_address = Address(kTokensAt);
  SetIndex(entry);
  for (uint32_t slot = 0; slot < index_.layer_slots; ++slot) {
    std::memcpy(host() + kTokensAt + 4 * slot, &index_.tokens, 4);
  }
}

void TestCard::SetExtent(uint32_t page, uint32_t extent) {
  const uint32_t channels = Register(layout::kCardRegShape) & 0xFF;
  const uint32_t row = (page + index_.shift) / channels;
  uint8_t bytes[4];
  std::memcpy(bytes, &extent, 4);
  const uint64_t at = ChannelAddress((page + index_.shift) % channels) + kListBeat * 64 + 4 * uint64_t{row};
  REQUIRE(port_->Write(at, bytes).ok());
}

void TestCard::SetIndex(const layout::CardIndex& entry) {
  std::memcpy(host() + kTableAt + kIndexId * sizeof(entry), &entry, sizeof(entry));
}

layout::CardIndex TestCard::Entry() const {
  layout::CardIndex entry;
  std::memcpy(&entry, host() + kTableAt + kIndexId * sizeof(entry), sizeof(entry));
  return entry;
}

std::vector<const uint8_t*> TestCard::Records(uint32_t slot, uint32_t head) const {
  std::vector<const uint8_t*> records;
  const size_t blocks = size_t{index_.layer_slots} * index_.heads;
  for (size_t n = slot * index_.heads + head; n < records_.size(); n += blocks) {
    records.push_back(records_[n].data());
  }
  return records;
}

uint32_t TestCard::Register(uint32_t offset) {
  const auto value = port_->ReadRegister(offset);
  REQUIRE(value.ok());
  return *value;
}

void TestCard::SetRegister(uint32_t offset, uint32_t value) {
  REQUIRE(port_->WriteRegister(offset, value).ok());
}

void TestCard::SetPair(uint32_t offset, uint64_t value, uint32_t queue) {
  SetQueue(offset, static_cast<uint32_t>(value), queue);
  SetQueue(offset + 4, static_cast<uint32_t>(value >> 32), queue);
}

void TestCard::SetUpQueue(uint32_t queue) {
  queues_[queue] = {.head = first_, .tail = first_};
  const uint64_t at = queue * kRingBytes;
  for (const uint64_t ring : {kRingAt + at, kCompletionsAt + at}) {
    layout::RingHeader header{};
    header.magic = MNEMO_RING_MAGIC;
    header.slots = kSlots;
    header.slot_bytes = layout::kUnitBytes;
    header.head = header.tail = first_;
    std::memcpy(host() + ring, &header, sizeof(header));
  }
  SetPair(layout::kCardQueueRing, Address(kRingAt + at), queue);
  SetPair(layout::kCardQueueCompletions, Address(kCompletionsAt + at), queue);
  SetPair(layout::kCardQueueRegion0, Address(kRegionAt), queue);
  SetPair(layout::kCardQueueTable, Address(kTableAt), queue);
  SetQueue(layout::kCardQueueHead, first_, queue);
  SetQueue(layout::kCardQueueSlots, kSlots, queue);
  SetQueue(layout::kCardQueueLength0, kRegionUnits, queue);
  SetQueue(layout::kCardQueueRegions, 1 | kEpoch << 16, queue);
  SetQueue(layout::kCardQueueSeq, kFirstSeq, queue);
  SetQueue(layout::kCardQueueIndexes, 4, queue);
  SetQueue(layout::kCardQueueOps, 1U << layout::kOpScoreSelect, queue);
  SetQueue(layout::kCardQueueFormats, 0x3E, queue);
  SetQueue(layout::kCardQueueScoreOps, Register(layout::kCardRegScoreOps), queue);
  SetQueue(layout::kCardQueueMaxGroup, 64 | 8 << 16, queue);
  SetQueue(layout::kCardQueueMaxK, 16384, queue);
  SetQueue(layout::kCardQueueEnable, 1, queue);
}

layout::Descriptor TestCard::NewDescriptor(uint32_t queue) const {
  layout::Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.epoch = kEpoch;
  d.seq = queues_[queue].next_seq;
  d.index_id = kIndexId;
  d.index_generation = kGeneration;
  d.heads = static_cast<uint8_t>(index_.heads);
  d.group = 1;
  d.queries = 1;
  d.score_op = index_.format == layout::kFormatBounds  ? layout::kScorePageBound
               : index_.format == layout::kFormatMeans ? layout::kScoreBlockMean
                                                       : layout::kScoreDot;
  d.group_op = index_.format == layout::kFormatBounds ? layout::kGroupPlainMax : layout::kGroupMax;
  d.select_op = layout::kSelectTopK;
  d.format = static_cast<uint8_t>(index_.format);
  d.end = index_.tokens;
  d.k = 1;
  d.payload_offset = kPayloadAt;
  d.result_offset = kResultAt;
  SetLengths(&d);
  return d;
}

void TestCard::SetLengths(layout::Descriptor* descriptor) const {
  const layout::IndexInfo info = {.dim = static_cast<uint16_t>(index_.dim)};
  descriptor->payload_length = static_cast<uint32_t>(layout::PayloadBytes(*descriptor, info) / 64);
  descriptor->result_length = static_cast<uint32_t>(layout::ResultBytes(*descriptor, info) / 64);
}

void TestCard::Ring(const layout::Descriptor& descriptor, uint32_t queue) {
  QueueState& of = queues_[queue];
  uint8_t* ring = host() + kRingAt + queue * kRingBytes;
  std::memcpy(ring + sizeof(layout::RingHeader) + (of.head % kSlots) * sizeof(descriptor), &descriptor,
              sizeof(descriptor));
  ++of.head;
  ++of.next_seq;
  std::memcpy(ring + offsetof(layout::RingHeader, head), &of.head, sizeof(of.head));
  SetQueue(layout::kCardQueueHead, of.head, queue);
}

bool TestCard::Take(layout::Completion* completion, uint32_t queue) {
  const uint8_t* ring = host() + kCompletionsAt + queue * kRingBytes;
  uint32_t head;
  std::memcpy(&head, ring + offsetof(layout::RingHeader, head), sizeof(head));
  uint32_t& tail = queues_[queue].tail;
  if (head == tail) {
    return false;
  }
  std::memcpy(completion, ring + sizeof(layout::RingHeader) + (tail % kSlots) * sizeof(*completion),
              sizeof(*completion));
  ++tail;
  return true;
}

layout::Completion TestCard::Run(const layout::Descriptor& descriptor) {
  Ring(descriptor);
  port_->Advance();
  layout::Completion completion{};
  REQUIRE(Take(&completion));
  return completion;
}

void FillQueries(uint32_t group, uint32_t dim, uint32_t format, std::mt19937& random, uint8_t* block) {
  std::vector<float> queries(size_t{group} * dim);
  const uint32_t kind = random() % 6;
  for (size_t i = 0; i < queries.size(); ++i) {
    queries[i] = kind == 0 ? 0.0F : kind == 1 && i >= dim ? queries[i - dim] : Normal(random);
  }
  const float scale = std::exp2(static_cast<float>(random() % 12) - 8.0F);
  // Only a weighted ReLU looks at them.
  std::vector<int16_t> weights(group);
  for (int16_t& weight : weights) {
    weight = static_cast<int16_t>(random());
  }
  layout::MakeQueryBlock(queries, group, dim, format, scale, weights,
                         {block, layout::QueryBlockBytes(group, dim)});
  if (kind != 2) {
    return;
  }
  // Values that no quantiser makes: any byte as code, multiplier and shift.
  for (uint32_t i = 0; i < group * dim; ++i) {
    block[i] = static_cast<uint8_t>(random());
  }
  for (uint32_t g = 0; g < group; ++g) {
    layout::QueryParam param{};
    param.multiplier = static_cast<uint16_t>(random());
    param.shift = static_cast<uint8_t>(random());
    param.weight = static_cast<int16_t>(random() % 2 == 0 ? -32768 : 32767);
    std::memcpy(block + layout::QueryParamOffset(group, dim) + g * sizeof(param), &param, sizeof(param));
  }
}

}  // namespace mnemo::card::model
