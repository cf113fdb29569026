#include "command_rig.h"

#include <verilated.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "proto/layout/card.h"
#include "proto/layout/completion.h"
#include "proto/layout/numerics.h"
#include "proto/layout/payload.h"
#include "proto/layout/reference.h"
#include "proto/layout/ring.h"

namespace mnemo::rtl_command {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::RingHeader;

constexpr uint8_t kUntouched = 0xA5;
constexpr uint32_t kBeat = 64;
constexpr uint32_t kMaxTokens = 2048;

// A block of the last entries, as layout::ScoreSelect writes it.
Block LatestBlock(const Descriptor& d, uint32_t dim) {
  std::vector<uint8_t> bytes(layout::ResultBlockBytes(d.select_op, d.flags, d.k, dim));
  layout::ScoreSelect(d, {d.format, dim, {}}, nullptr, bytes);
  layout::ResultHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  Block block{
      .candidates = header.candidates, .last_rank = header.last_rank, .cut = false, .ids = {}, .ranks = {}};
  block.ids.resize(header.count);
  block.ranks.resize(header.count);
  if (header.count != 0) {
    std::memcpy(block.ids.data(), bytes.data() + sizeof header, header.count * sizeof(uint32_t));
  }
  return block;
}

}  // namespace

CommandRig::CommandRig(uint64_t seed) : random_(seed), timing_(seed + 2), memory_(64 << 20, seed + 1) {
  Verilated::defaultContextp()->threads(1);
  Verilated::randReset(2);
  Verilated::randSeed(static_cast<int>(seed));
  top_ = std::make_unique<Vcommand_bench>();
  memory_.observer().on_read = [this](uint64_t address, uint32_t beats) { OnRead(address, beats); };
  memory_.observer().on_write = [this](const HostMemory::Write& write) { OnWrite(write); };
  top_->rst = 1;
  top_->fault = 0;
  top_->s_awvalid = top_->s_wvalid = top_->s_bready = top_->s_arvalid = top_->s_rready = 0;
  top_->head_valid = top_->hit_valid = 0;
  Run(8);
  top_->rst = 0;
}

CommandRig::~CommandRig() { top_->final(); }

void CommandRig::Cycle() {
  const sim::HostPort& host = memory_.Drive();
  top_->ar_ready = host.ar_ready();
  top_->r_valid = host.r_valid();
  if (host.r_valid()) {
    top_->r_last = host.r_last();
    top_->r_resp = host.r_resp();
    std::memcpy(&top_->r_data[0], host.r_data(), kBeat);
  }
  top_->aw_ready = host.aw_ready();
  top_->w_ready = host.w_ready();
  top_->b_valid = host.b_valid();
  if (host.b_valid()) top_->b_resp = host.b_resp();
  top_->open = open_lanes;
  if (!order_.empty() && order_.front()->result_address != 0 && !order_.front()->body_written) {
    Taken& taken = *order_.front();
    if (OpenWriteWithin(taken.result_address, layout::ResultBytes(taken.d, taken.info))) {
      taken.open_cycle = top_->cycle;
    }
  }
  DriveStandIns();
  top_->clk = 0;
  top_->eval();
  ClockStandIns();
  // Before the first reset has ended signals are anything.
  if (!top_->rst)
    memory_.Clock({.ar_valid = static_cast<bool>(top_->ar_valid),
                   .ar_addr = top_->ar_addr,
                   .ar_len = static_cast<uint8_t>(top_->ar_len),
                   .r_ready = static_cast<bool>(top_->r_ready),
                   .aw_valid = static_cast<bool>(top_->aw_valid),
                   .aw_addr = top_->aw_addr,
                   .aw_len = static_cast<uint8_t>(top_->aw_len),
                   .w_valid = static_cast<bool>(top_->w_valid),
                   .w_data = reinterpret_cast<const uint8_t*>(&top_->w_data[0]),
                   .w_strb = top_->w_strb,
                   .w_last = static_cast<bool>(top_->w_last),
                   .b_ready = static_cast<bool>(top_->b_ready)});
  top_->clk = 1;
  top_->eval();
}

uint32_t CommandRig::Read(uint32_t offset) {
  top_->s_arvalid = 1;
  top_->s_araddr = offset & 0x1FFF;
  top_->s_rready = 0;
  bool taken = false;
  for (int cycle = 0; cycle < 5000; ++cycle) {
    top_->s_rready = timing_() % 2;
    top_->clk = 0;
    top_->eval();
    const bool asked = top_->s_arvalid && top_->s_arready;
    const bool answered = top_->s_rvalid && top_->s_rready;
    const uint32_t value = top_->s_rdata;
    if (answered) REQUIRE(taken);
    Cycle();
    if (asked) {
      taken = true;
      top_->s_arvalid = 0;
    }
    if (answered) {
      top_->s_rready = 0;
      return value;
    }
  }
  FAIL("no answer to a read of register " << offset);
  return 0;
}

void CommandRig::Write(uint32_t offset, uint32_t value, uint8_t strobes) {
  bool address = true;
  bool data = true;
  top_->s_awaddr = offset & 0x1FFF;
  top_->s_wdata = value;
  top_->s_wstrb = strobes;
  for (int cycle = 0; cycle < 5000; ++cycle) {
    top_->s_awvalid = address && (top_->s_awvalid || timing_() % 2 != 0);
    top_->s_wvalid = data && (top_->s_wvalid || timing_() % 2 != 0);
    top_->s_bready = timing_() % 2;
    top_->clk = 0;
    top_->eval();
    const bool address_taken = top_->s_awvalid && top_->s_awready;
    const bool data_taken = top_->s_wvalid && top_->s_wready;
    const bool answered = top_->s_bvalid && top_->s_bready;
    if (answered) REQUIRE((!address && !data));
    Cycle();
    address = address && !address_taken;
    data = data && !data_taken;
    if (!address) top_->s_awvalid = 0;
    if (!data) top_->s_wvalid = 0;
    if (answered) {
      top_->s_bready = 0;
      return;
    }
  }
  FAIL("no answer to a write of register " << offset);
}

void CommandRig::Open(uint32_t number, uint32_t slots, uint32_t first_index, bool poll) {
  TestQueue& queue = queues_[number];
  queue = {};
  queue.enabled = true;
  queue.poll = poll;
  queue.slots = slots;
  queue.limits = WideLimits({kRegionUnits, kRegionUnits});
  queue.limits.granted.epoch = static_cast<uint16_t>(random_());
  queue.head = queue.taken = queue.tail = queue.completed = first_index;
  queue.seq = queue.card_seq = static_cast<uint32_t>(random_());
  queue.ring = memory_.Take(sizeof(RingHeader) + slots * kBeat);
  queue.completions = memory_.Take(sizeof(RingHeader) + slots * kBeat);
  for (const uint64_t ring : {queue.ring, queue.completions}) {
    memory_.SetWord(ring + offsetof(RingHeader, head), first_index);
    memory_.SetWord(ring + offsetof(RingHeader, tail), first_index);
  }
  memory_.AllowReads(queue.ring + kBeat, 2 * kBeat);
  memory_.AllowReads(queue.ring + sizeof(RingHeader), slots * kBeat);
  memory_.AllowReads(queue.completions + offsetof(RingHeader, head), kBeat);
  memory_.AllowWrites(queue.ring + offsetof(RingHeader, tail), 4);
  memory_.AllowWrites(queue.completions + offsetof(RingHeader, head), 4);
  memory_.AllowWrites(queue.completions + sizeof(RingHeader), slots * kBeat);
  const uint32_t indexes = queue.limits.granted.max_indexes;
  queue.table_address = memory_.Take(indexes * kBeat);
  memory_.AllowReads(queue.table_address, indexes * kBeat);
  for (uint32_t id = 0; id < indexes; ++id) {
    TableIndex index = RandomIndex(random_, kMaxTokens);
    index.entry.tokens_address = memory_.Take(index.tokens.size() * 4);
    if (id == indexes - 1) index.entry.exists = 0;
    queue.table.push_back(index);
    StoreIndex(number, id);
  }
  QueueWords words = queue.limits.Words();
  const auto pair = [&](uint32_t offset, uint64_t address) {
    words[offset / 4] = static_cast<uint32_t>(address);
    words[offset / 4 + 1] = static_cast<uint32_t>(address >> 32);
  };
  for (uint32_t r = 0; r < 2; ++r) {
    queue.regions[r] = memory_.Take(uint64_t{kRegionUnits} * kBeat);
    memory_.AllowReads(queue.regions[r], uint64_t{kRegionUnits} * kBeat);
    memory_.AllowWrites(queue.regions[r], uint64_t{kRegionUnits} * kBeat);
  }
  pair(layout::kCardQueueRing, queue.ring);
  pair(layout::kCardQueueCompletions, queue.completions);
  pair(layout::kCardQueueRegion0, queue.regions[0]);
  pair(layout::kCardQueueRegion1, queue.regions[1]);
  pair(layout::kCardQueueTable, queue.table_address);
  words[layout::kCardQueueHead / 4] = first_index;
  words[layout::kCardQueueSlots / 4] = slots;
  words[layout::kCardQueuePoll / 4] = poll ? 1 : 0;
  words[layout::kCardQueueSeq / 4] = queue.seq;
  const uint32_t base = layout::kCardRegQueues + number * layout::kCardQueueBytes;
  for (uint32_t word = 1; word < words.size(); ++word) Write(base + word * 4, words[word]);
  Write(base + layout::kCardQueueEnable, 1);
}

void CommandRig::StoreIndex(uint32_t number, uint32_t id) {
  TestQueue& queue = queues_[number];
  TableIndex& index = queue.table[id];
  // Where the tokens of an index that does not exist would be nothing may be read.
  if (index.entry.exists == 0) index.entry.tokens_address = 0x123400;
  for (size_t slot = 0; slot < index.tokens.size() && index.entry.exists != 0; ++slot) {
    memory_.SetWord(index.entry.tokens_address + 4 * slot, index.tokens[slot]);
  }
  memory_.AllowReads(index.entry.tokens_address, (index.tokens.size() * 4 + kBeat - 1) / kBeat * kBeat);
  std::memcpy(memory_.At(queue.table_address + id * kBeat), &index.entry, kBeat);
}

bool CommandRig::HasRoom(uint32_t number) const {
  const TestQueue& queue = queues_[number];
  return queue.head - queue.completed < queue.slots;
}

Descriptor CommandRig::Make(uint32_t number, bool altered, uint32_t k, int flags) {
  TestQueue& queue = queues_[number];
  const auto id = static_cast<uint32_t>(random_() % (queue.table.size() - 1));
  Descriptor d = GoodDescriptor(random_, queue.limits, queue.table[id]);
  d.index_id = id;
  d.seq = queue.seq;
  if (k != 0) {
    d.k = k;
    if (d.k1 != 0) d.k1 = k + static_cast<uint32_t>(random_() % 100);
  }
  // The card does not order by rank.
  d.flags = static_cast<uint8_t>(d.flags & ~layout::kFlagByRank);
  if (flags >= 0) d.flags = static_cast<uint8_t>((d.flags & layout::kFlagPages64) | flags);
  const layout::IndexInfo info = queue.table[id].Info(d.layer_slot);
  d.payload_length = static_cast<uint32_t>(layout::PayloadBytes(d, info) / kBeat + random_() % 2);
  d.result_length = static_cast<uint32_t>(layout::ResultBytes(d, info) / kBeat + random_() % 2);
  d.result_region = static_cast<uint16_t>(random_() % 2);
  const auto take = [&](uint32_t region, uint32_t units) {
    if (queue.region_next[region] + units > kRegionUnits) queue.region_next[region] = 0;
    const uint32_t at = queue.region_next[region];
    queue.region_next[region] += units;
    return at;
  };
  d.payload_offset = take(0, d.payload_length);
  d.result_offset = take(d.result_region, d.result_length);
  uint8_t* payload = memory_.At(queue.regions[0] + uint64_t{d.payload_offset} * kBeat);
  for (uint64_t i = 0; i < uint64_t{d.payload_length} * kBeat; ++i) {
    payload[i] = static_cast<uint8_t>(random_());
  }
  std::memset(memory_.At(queue.regions[d.result_region] + uint64_t{d.result_offset} * kBeat), kUntouched,
              uint64_t{d.result_length} * kBeat);
  if (altered) {
    Descriptor bad = d;
    AlterField(random_, &bad);
    // Everything that is still good must not lie in the way of others.
    const bool moved = bad.payload_offset != d.payload_offset || bad.result_offset != d.result_offset ||
                       bad.payload_region != d.payload_region || bad.result_region != d.result_region ||
                       bad.seq != d.seq;
    if (!moved) return bad;
  }
  return d;
}

Descriptor CommandRig::Again(uint32_t number, Descriptor d) {
  d.seq = queues_[number].seq;
  std::memset(memory_.At(queues_[number].regions[d.result_region] + uint64_t{d.result_offset} * kBeat),
              kUntouched, uint64_t{d.result_length} * kBeat);
  return d;
}

void CommandRig::Submit(uint32_t number, const Descriptor& d) {
  TestQueue& queue = queues_[number];
  REQUIRE(HasRoom(number));
  std::memcpy(memory_.At(queue.ring + sizeof(RingHeader) + uint64_t{queue.head & (queue.slots - 1)} * kBeat),
              &d, sizeof d);
  ++queue.head;
  ++queue.seq;
}

void CommandRig::Ring(uint32_t number) {
  const TestQueue& queue = queues_[number];
  if (queue.poll) {
    memory_.SetWord(queue.ring + offsetof(RingHeader, head), queue.head);
  } else {
    Write(layout::kCardRegQueues + number * layout::kCardQueueBytes + layout::kCardQueueHead, queue.head);
  }
}

bool CommandRig::Drain(int cycles) {
  const auto busy = [&] {
    return std::any_of(queues_.begin(), queues_.end(), [](const TestQueue& queue) {
      return queue.enabled && (queue.completed != queue.head || queue.tail != queue.head);
    });
  };
  while (cycles-- > 0 && busy()) Cycle();
  while (cycles-- > 0 && !memory_.open_writes().empty()) Cycle();
  return !busy();
}

void CommandRig::Forget() {
  order_.clear();
  to_scan_.clear();
  to_load_.clear();
  to_select_.clear();
  beats_.clear();
  selecting_.clear();
  scored_.clear();
  scan_jobs_ = loaded_ = scans_ = 0;
  scan_left_ = -1;
  head_valid_ = hits_owed_ = hit_valid_ = false;
  for (TestQueue& queue : queues_) queue.enabled = false;
}

bool CommandRig::OpenWriteWithin(uint64_t address, uint64_t bytes) const {
  return std::any_of(
      memory_.open_writes().begin(), memory_.open_writes().end(), [&](const HostMemory::Write& write) {
        return write.address + write.beats.size() * kBeat > address && write.address < address + bytes;
      });
}

void CommandRig::OnRead(uint64_t address, uint32_t beats) {
  reads_.push_back(address);
  for (uint32_t number = 0; number < queues_.size(); ++number) {
    const TestQueue& queue = queues_[number];
    const uint64_t first = queue.ring + sizeof(RingHeader);
    if (queue.enabled && address >= first && address < first + uint64_t{queue.slots} * kBeat) {
      REQUIRE(beats == 1);
      TakeDescriptor(number, address);
    }
  }
}

void CommandRig::TakeDescriptor(uint32_t number, uint64_t address) {
  TestQueue& queue = queues_[number];
  REQUIRE(queue.taken != queue.head);
  REQUIRE(address == queue.ring + sizeof(RingHeader) + uint64_t{queue.taken & (queue.slots - 1)} * kBeat);
  ++queue.taken;
  taken_order_.push_back(number);
  auto taken = std::make_unique<Taken>();
  taken->queue = number;
  std::memcpy(&taken->d, memory_.At(address), sizeof taken->d);
  const Descriptor& d = taken->d;
  if (d.index_id < queue.table.size()) {
    taken->info = queue.table[d.index_id].Info(d.layer_slot);
    taken->entry = queue.table[d.index_id].entry;
  }
  taken->verdict = ExpectedVerdict(d, queue.limits, queue.card_seq, taken->info);
  if (d.seq == queue.card_seq) ++queue.card_seq;
  taken->taken_cycle = top_->cycle;
  if (taken->verdict.status == layout::kStatusOk) {
    const bool long_scan = LongScan(d);
    long_scans_ += long_scan ? 1 : 0;
    taken->result_address = queue.regions[d.result_region] + uint64_t{d.result_offset} * kBeat;
    const bool latest = d.select_op == layout::kSelectLatest;
    if (latest) taken->blocks.assign(uint64_t{d.queries} * d.heads, LatestBlock(d, taken->info.dim));
    taken->scored_cycle = taken->taken_cycle;
    for (uint32_t position = 0; position < d.queries && !latest; ++position) {
      for (uint32_t head = 0; head < d.heads; ++head) {
        Job job{taken.get(), position, head, long_scan, d.k1 != 0, d.select_op == layout::kSelectThreshold};
        for (; job.stage <= job.last_stage(); ++job.stage) {
          long_cascades_ += job.measured() && job.listed() ? 1 : 0;
          long_bounds_ += job.measured() && job.all_twice() ? 1 : 0;
          to_scan_.push_back(job);
          to_load_.push_back(job);
          to_select_.push_back(job);
        }
      }
    }
  }
  order_.push_back(std::move(taken));
}

void CommandRig::OnWrite(const HostMemory::Write& write) {
  const uint64_t strobes = write.beats[0].strobes;
  uint32_t word;
  std::memcpy(&word, write.beats[0].bytes, sizeof word);
  for (TestQueue& queue : queues_) {
    if (!queue.enabled) continue;
    if (write.address == queue.ring + offsetof(RingHeader, tail)) {
      REQUIRE(strobes == 0xF);
      REQUIRE(word == queue.tail + 1);
      REQUIRE(queue.tail != queue.taken);
      ++queue.tail;
    }
    const uint64_t slots = queue.completions + sizeof(RingHeader);
    if (write.address >= slots && write.address < slots + uint64_t{queue.slots} * kBeat) {
      REQUIRE(!order_.empty());
      Taken& taken = *order_.front();
      REQUIRE(&queue == &queues_[taken.queue]);
      REQUIRE(write.address == slots + uint64_t{queue.completed & (queue.slots - 1)} * kBeat);
      if (!taken.body_written) {
        // Only after the responses to all that comes before.
        REQUIRE(!OpenWriteWithin(write.address, kBeat));
        REQUIRE(strobes == ~uint64_t{0} >> 8);
        if (taken.result_address != 0) {
          // The area may be longer than the results, and then have the next descriptor's.
          REQUIRE(!OpenWriteWithin(taken.result_address, layout::ResultBytes(taken.d, taken.info)));
        }
        taken.body_written = true;
      } else {
        // Behind the body, at the same address.
        REQUIRE(strobes == uint64_t{0xFF} << 56);
        REQUIRE(!taken.status_written);
        taken.status_written = true;
      }
    }
    if (write.address == queue.completions + offsetof(RingHeader, head)) {
      REQUIRE(strobes == 0xF);
      REQUIRE(!order_.empty());
      REQUIRE(order_.front()->status_written);
      REQUIRE(&queue == &queues_[order_.front()->queue]);
      REQUIRE(!OpenWriteWithin(slots, uint64_t{queue.slots} * kBeat));
      REQUIRE(word == queue.completed + 1);
      CheckCompletion(queue, *order_.front());
      ++queue.completed;
      ++completions_;
      refused_ += order_.front()->verdict.status != layout::kStatusOk ? 1 : 0;
      order_.pop_front();
    }
  }
}

void CommandRig::CheckCompletion(TestQueue& queue, const Taken& taken) {
  const Descriptor& d = taken.d;
  Completion completion;
  std::memcpy(&completion,
              memory_.At(queue.completions + sizeof(RingHeader) +
                         uint64_t{queue.completed & (queue.slots - 1)} * kBeat),
              sizeof completion);
  Completion expected{};
  expected.index_id = d.index_id;
  expected.energy_uj = layout::kEnergyUnknown;
  expected.status = taken.verdict.status;
  expected.detail = taken.verdict.detail;
  expected.seq = d.seq;
  if (taken.verdict.status == layout::kStatusOk) {
    REQUIRE(taken.blocks.size() == uint64_t{d.queries} * d.heads);
    expected.watermark = taken.info.tokens;
    expected.bytes_read = taken.bytes_read;
    const uint64_t block_bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, taken.info.dim);
    for (size_t n = 0; n < taken.blocks.size(); ++n) {
      const Block& block = taken.blocks[n];
      const auto count = static_cast<uint32_t>(block.ids.size());
      std::vector<uint8_t> bytes(block_bytes, kUntouched);
      const layout::ResultHeader header{count, block.candidates, block.last_rank,
                                        block.cut ? uint32_t{layout::kResultCut} : 0};
      std::memcpy(bytes.data(), &header, sizeof header);
      expected.bytes_written += sizeof header + uint64_t{count} * 4;
      if (count != 0) std::memcpy(&bytes[sizeof header], block.ids.data(), uint64_t{count} * 4);
      if ((d.flags & layout::kFlagRanks) != 0) {
        if (count != 0)
          std::memcpy(&bytes[layout::RanksOffset(d.k)], block.ranks.data(), uint64_t{count} * 4);
        expected.bytes_written += uint64_t{count} * 4;
      }
      expected.count += count;
      INFO("block " << n << ", k " << d.k << ", count " << count << ", flags " << int{d.flags});
      REQUIRE(std::memcmp(memory_.At(taken.result_address + n * block_bytes), bytes.data(), block_bytes) ==
              0);
    }
    // Queue and score time run from the fetch to the last score, in two floors.
    const auto nanoseconds = [](uint64_t cycles) { return cycles * kPeriod / 256; };
    const uint64_t to_score = nanoseconds(taken.scored_cycle - taken.taken_cycle);
    const uint64_t told = uint64_t{completion.queue_ns} + completion.score_ns;
    CHECK(told >= to_score);
    // Latest entries wait for the descriptors before them alone.
    if (d.select_op != layout::kSelectLatest) CHECK(told <= to_score + nanoseconds(400));
    CHECK(completion.select_ns <= nanoseconds(top_->cycle - taken.scored_cycle));
    // The select time ends when all results have their responses.
    const uint32_t written = taken.open_cycle.value_or(taken.taken_cycle) - taken.taken_cycle;
    CHECK(told + completion.select_ns + nanoseconds(4) >= nanoseconds(written));
    expected.queue_ns = completion.queue_ns;
    expected.score_ns = completion.score_ns;
    expected.select_ns = completion.select_ns;
  }
  INFO("status " << completion.status << " detail " << completion.detail << ", expected " << expected.status
                 << " " << expected.detail << "; count " << completion.count << " " << expected.count);
  REQUIRE(std::memcmp(&completion, &expected, sizeof completion) == 0);
}

}  // namespace mnemo::rtl_command
