#include "fpga/tests/faults/peer.h"

#include <absl/status/status.h>

#include <cstddef>
#include <cstring>
#include <iterator>
#include <random>
#include <utility>
#include <vector>

#include "devices/memory/testing/same_results.h"
#include "proto/layout/payload.h"
#include "proto/layout/ring.h"
#include "proto/layout/validate.h"

namespace mnemo::card_faults {

using layout::Completion;
using layout::Descriptor;
using layout::kUnitBytes;
using layout::RingHeader;

namespace {

constexpr uint64_t kStride = 32 << 10;  // of a queue's areas
constexpr uint64_t kGap = 192;          // between them

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
}
template <typename T>
std::span<uint8_t> BytesOf(T& value) {
  return {reinterpret_cast<uint8_t*>(&value), sizeof(value)};
}

// To a value at a bound, or to any.
void AlterField(std::mt19937& random, Descriptor* d) {
  struct Field {
    size_t offset;
    size_t bytes;
  };
#define MNEMO_TEST_FIELD(type, name, at) {at, sizeof(type)},
  static constexpr Field kFields[] = {MNEMO_DESCRIPTOR_FIELDS(MNEMO_TEST_FIELD)};
#undef MNEMO_TEST_FIELD
  const Field& field = kFields[random() % std::size(kFields)];
  uint32_t value = 0;
  uint8_t* const at = reinterpret_cast<uint8_t*>(d) + field.offset;
  std::memcpy(&value, at, field.bytes);
  const uint32_t values[] = {
      value + 1, value - 1, 0, 0xFFFFFFFF, static_cast<uint32_t>(random()), value ^ 1U << random() % 32};
  value = values[random() % std::size(values)];
  std::memcpy(at, &value, field.bytes);
}

}  // namespace

Peer::Peer(Stand* stand, uint32_t number, Place place, bool poll, uint32_t first_index)
    : stand_(stand), number_(number), head_(first_index), collected_(first_index), next_seq_(first_index) {
  const card::CardSpace space = stand->driver().direct_spaces()[place == Place::kHost ? 0 : 1];
  uint64_t at = space.address + (number - 1) * kStride;
  const auto take = [&](uint64_t bytes) {
    const uint64_t address = at;
    at += bytes + kGap;
    return address;
  };
  const uint64_t ring_bytes = sizeof(RingHeader) + uint64_t{kSlots} * kUnitBytes;
  queue_.slots = kSlots;
  queue_.ring = take(ring_bytes);
  queue_.completions = take(ring_bytes);
  queue_.poll = poll;
  for (int n = 0; n < 2; ++n) queue_.regions.push_back({take(kSlots * kSlotBytes), kSlots * kSlotBytes});
  for (uint32_t n = 0; n < Stand::kIndexes; ++n) queue_.indexes.push_back({stand->owner(), n});
  queue_.epoch = static_cast<uint16_t>(0x500 + number);
  queue_.index = first_index;
}

absl::Status Peer::Attach() {
  head_ = collected_ = next_seq_ = queue_.index;
  under_way_.clear();
  MNEMO_ASSIGN_OR_RETURN(granted_, stand_->driver().AttachQueue(number_, queue_));
  return absl::OkStatus();
}

void Peer::Read(uint64_t address, std::span<uint8_t> to) const {
  card::CardPort& port = stand_->port();
  if (address >= port.host_address()) {
    std::memcpy(to.data(), port.host_memory().data() + (address - port.host_address()), to.size());
  } else {
    MNEMO_CHECK(port.Read(address, to).ok());
  }
}

void Peer::Write(uint64_t address, std::span<const uint8_t> from) {
  card::CardPort& port = stand_->port();
  if (address >= port.host_address()) {
    std::memcpy(port.host_memory().data() + (address - port.host_address()), from.data(), from.size());
  } else {
    MNEMO_CHECK(port.Write(address, from).ok());
  }
}

uint32_t Peer::Word(uint64_t address) const {
  uint32_t value = 0;
  Read(address, BytesOf(value));
  return value;
}

void Peer::SetWord(uint64_t address, uint32_t value) { Write(address, BytesOf(std::as_const(value))); }

bool Peer::closed() const {
  return Word(queue_.ring + offsetof(RingHeader, closed)) == 1 &&
         Word(queue_.completions + offsetof(RingHeader, closed)) == 1;
}

Descriptor Peer::Good(const Query& query) const {
  const uint32_t slot = head_ % kSlots;
  Descriptor d = query.d;
  d.epoch = granted_.epoch;
  d.seq = next_seq_;
  d.index_generation = stand_->Info(d.index_id, 0).generation;
  d.payload_region = 0;
  d.result_region = 1;
  d.payload_offset = d.result_offset = static_cast<uint32_t>(slot * kSlotBytes / kUnitBytes);
  d.payload_length = static_cast<uint32_t>(query.payload.size() / kUnitBytes);
  d.result_length = static_cast<uint32_t>(query.wanted.size() / kUnitBytes);
  return d;
}

layout::Verdict Peer::VerdictOf(const Descriptor& d) const {
  layout::Limits limits{.granted = granted_, .ring_kind = layout::kRingQuery, .next_seq = next_seq_};
  const uint64_t bytes[] = {queue_.regions[0].bytes, queue_.regions[1].bytes};
  limits.region_bytes = bytes;
  const layout::IndexInfo info =
      d.index_id < Stand::kIndexes ? stand_->Info(d.index_id, d.layer_slot) : layout::IndexInfo{};
  return layout::Validate(d, limits, info, {});
}

void Peer::Push(const Query& query, const Descriptor& d) {
  MNEMO_CHECK(HasRoom() && query.payload.size() <= kSlotBytes && query.wanted.size() <= kSlotBytes);
  const Descriptor good = Good(query);
  Write(queue_.regions[0].address + uint64_t{good.payload_offset} * kUnitBytes, query.payload);
  Write(queue_.ring + sizeof(RingHeader) + uint64_t{head_ % kSlots} * kUnitBytes, BytesOf(d));
  under_way_.push_back({.query = query,
                        .d = d,
                        .verdict = VerdictOf(d),
                        .good = std::memcmp(&d, &good, sizeof d) == 0,
                        .by_slot = next_seq_ == head_ && d.seq == head_});
  if (d.seq == next_seq_) ++next_seq_;
  ++head_;
}

void Peer::PushGarbage() {
  std::mt19937& random = stand_->random();
  const Query query = stand_->NewQuery(/*direct=*/true);
  const Descriptor good = Good(query);
  Descriptor d = good;
  // A served descriptor must keep to its slot, since the results of others are still to be read.
  do {
    d = good;
    if (random() % 4 == 0) {
      for (uint8_t& byte : BytesOf(d)) byte = static_cast<uint8_t>(random());
      if (random() % 2 == 0) d.seq = good.seq;
    } else {
      AlterField(random, &d);
    }
  } while (VerdictOf(d).status == layout::kStatusOk &&
           (d.result_region != good.result_region || d.result_offset != good.result_offset ||
            d.result_length * uint64_t{kUnitBytes} > kSlotBytes));
  Push(query, d);
}

void Peer::RingHead(uint32_t head) {
  SetWord(queue_.ring + offsetof(RingHeader, head), head);
  // A queue that polls needs no doorbell, and a reset may have ended the other ones.
  if (!queue_.poll && stand_->driver().attached(number_)) {
    MNEMO_CHECK(stand_->driver().RingQueue(number_, head).ok());
  }
}

bool Peer::Check(const Sent& sent, const Completion& completion) {
  if (completion.seq != sent.d.seq || completion.index_id != sent.d.index_id) return false;
  if (sent.verdict.status != layout::kStatusOk) {
    ++refused_;
    return completion.status == sent.verdict.status && completion.detail == sent.verdict.detail;
  }
  if (!sent.good) {  // altered to something else that is served, or that the card lacks
    ++refused_;
    return completion.status == layout::kStatusOk || completion.status == layout::kStatusUnsupported;
  }
  std::vector<uint8_t> result(sent.query.wanted.size());
  Read(queue_.regions[1].address + uint64_t{sent.d.result_offset} * kUnitBytes, result);
  ++right_;
  return completion.status == layout::kStatusOk &&
         memory_device::testing::SameResults(sent.d, Stand::kDim, result, sent.query.wanted);
}

uint32_t Peer::Collect() {
  if (!stand_->driver().attached(number_)) return 0;
  uint32_t count = 0;
  for (; !under_way_.empty(); ++count) {
    const uint32_t head = Word(queue_.completions + offsetof(RingHeader, head));
    Completion completion;
    Read(queue_.completions + sizeof(RingHeader) + uint64_t{collected_ % kSlots} * kUnitBytes,
         BytesOf(completion));
    const Sent& front = under_way_.front();
    if (front.by_slot ? completion.seq != front.d.seq : head == collected_) break;
    const Sent sent = std::move(under_way_.front());
    under_way_.pop_front();
    if (!Check(sent, completion)) ++wrong_;
    ++collected_;
  }
  // The head may lack the last one; it has no more than there were descriptors, nor one that no slot has.
  const uint32_t head = Word(queue_.completions + offsetof(RingHeader, head));
  if (collected_ - head > 1) ++wrong_;
  SetWord(queue_.completions + offsetof(RingHeader, tail), collected_);
  return count;
}

std::vector<card::CardSpace> Peer::Spaces() {
  const uint64_t ring_bytes = sizeof(RingHeader) + uint64_t{kSlots} * kUnitBytes;
  const uint64_t table = stand_->driver().direct_spaces()[0].address - card::DirectQueues::kTableBytes +
                         uint64_t{number_ - 1} * card::DirectQueues::kIndexes * sizeof(layout::CardIndex);
  std::vector<card::CardSpace> spaces = {{queue_.ring, ring_bytes},
                                         {queue_.completions, ring_bytes},
                                         {table, queue_.indexes.size() * sizeof(layout::CardIndex)}};
  spaces.insert(spaces.end(), queue_.regions.begin(), queue_.regions.end());
  for (uint64_t n = 0; n < queue_.indexes.size(); ++n) {
    layout::CardIndex entry;
    Read(table + n * sizeof(entry), BytesOf(entry));
    spaces.push_back({entry.tokens_address, entry.layer_slots * sizeof(uint32_t)});
  }
  return spaces;
}

}  // namespace mnemo::card_faults
