// The descriptor check in RTL, and that of the card in software, against layout::Validate.

#include <Vcheck_bench.h>
#include <verilated.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <random>

#include "fpga/card/model/command_model.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/payload.h"
#include "queue_limits.h"

namespace mnemo::rtl_command {
namespace {

using layout::Descriptor;
using layout::Verdict;

using rtl_tests::Cases;

class CheckRig {
 public:
  CheckRig() {
    Verilated::randReset(2);
    top_.rst = 1;
    top_.valid = top_.verdict_ready = 0;
    for (int i = 0; i < 4; ++i) Cycle();
    top_.rst = 0;
  }

  Verdict Check(std::mt19937_64& random, const Descriptor& d, const QueueWords& words, uint32_t next_seq,
                const TableIndex& index) {
    std::memcpy(&top_.descriptor[0], &d, sizeof d);
    std::memcpy(&top_.regs[0], words.data(), sizeof words);
    std::memcpy(&top_.index[0], &index.entry, sizeof index.entry);
    top_.next_seq = next_seq;
    top_.tokens = d.layer_slot < index.tokens.size() ? index.tokens[d.layer_slot] : 0;
    top_.valid = 1;
    for (int cycle = 0; cycle < 200; ++cycle) {
      top_.verdict_ready = random() % 2;
      top_.eval();
      const bool taken = top_.verdict_valid && top_.verdict_ready;
      REQUIRE(top_.ready == taken);
      const Verdict verdict{top_.status, top_.detail};
      payload_block_ = top_.payload_block;
      result_block_ = top_.result_block;
      long_scan_ = top_.long_scan != 0;
      Cycle();
      if (taken) {
        top_.valid = 0;
        if (random() % 2 != 0) Cycle();
        return verdict;
      }
    }
    FAIL("no verdict");
    return {};
  }

  uint32_t payload_block() const { return payload_block_; }
  uint32_t result_block() const { return result_block_; }
  bool long_scan() const { return long_scan_; }

 private:
  void Cycle() {
    top_.clk = 0;
    top_.eval();
    top_.clk = 1;
    top_.eval();
    top_.clk = 0;
    top_.eval();
  }

  Vcheck_bench top_;
  uint32_t payload_block_ = 0;
  uint32_t result_block_ = 0;
  bool long_scan_ = false;
};

// As the card in software decides.
Verdict ModelVerdict(const Descriptor& d, const QueueWords& words, uint32_t next_seq,
                     const TableIndex& index) {
  card::model::QueueRegisters queue;
  for (size_t n = 0; n < words.size(); ++n) queue.At(static_cast<uint32_t>(4 * n)) = words[n];
  const uint32_t tokens = d.layer_slot < index.tokens.size() ? index.tokens[d.layer_slot] : 0;
  return card::model::CheckDescriptor(
      d, queue, next_seq, index.entry, tokens,
      {.channels = kChannels, .queries = kPassQueries, .bank_words = kBankWords});
}

// Random fields that the operation needs anyway, so that later checks are reached.
void ChangeOperation(std::mt19937_64& random, Descriptor* d) {
  switch (random() % 8) {
    case 0:
      d->select_op = layout::kSelectThreshold;
      d->threshold = static_cast<int32_t>(random() % 140000) - 70000;
      break;
    case 1:
      d->select_op = layout::kSelectLatest;
      d->score_op = d->group_op = d->group = 0;
      d->k1 = 0;
      break;
    case 2:
      d->select_op = layout::kSelectWeightedSum;
      d->group = 1;
      d->group_op = layout::kGroupExp2Sum;
      d->k = d->k1 = d->flags = 0;
      d->result_length = 100;
      break;
    case 3:
      d->op = layout::kOpScoreGather;
      d->begin = d->end = 0;
      d->result_length = static_cast<uint32_t>(random() % 200000);
      break;
    case 4: {
      const Descriptor old = *d;
      *d = {};
      d->op = layout::kOpGather;
      d->epoch = old.epoch;
      d->seq = old.seq;
      d->index_id = old.index_id;
      d->index_generation = old.index_generation;
      d->layer_slot = old.layer_slot;
      d->first_head = old.first_head;
      d->heads = old.heads;
      d->format = static_cast<uint8_t>(16 + random() % 5);
      d->k = old.k;
      d->payload_length = static_cast<uint32_t>(random() % 200);
      d->result_offset = 300;
      d->result_length = static_cast<uint32_t>(random() % 20000);
      break;
    }
    case 5:
      d->score_op = layout::kScoreReluDot;
      d->group_op = layout::kGroupNone;
      break;
    case 6:
      d->group_op = layout::kGroupExp2Sum;
      d->threshold = static_cast<int32_t>(random() % 65600);
      break;
    default:
      d->threshold = static_cast<int32_t>(random());
  }
}

// A good descriptor but for one rule that random fields seldom reach, since others are broken before.
void BreakRareRule(std::mt19937_64& random, const QueueLimits& limits, const TableIndex& index,
                   Descriptor* d) {
  const auto rule = random() % 5;
  if (rule < 2) {  // a weighted sum of an unfit form, or of gathered entries
    d->select_op = layout::kSelectWeightedSum;
    d->score_op = layout::kScoreDot;
    d->group = 1;
    d->group_op = layout::kGroupExp2Sum;
    d->k = d->k1 = 0;
    d->flags = 0;
    const auto form = random() % 4;
    if (rule == 0 && form == 0) d->flags = static_cast<uint8_t>(1 + random() % 3);
    if (rule == 0 && form == 1) d->group_op = layout::kGroupMax;
    if (rule == 0 && form == 2) d->group = 2;
    if (rule == 0 && form == 3) d->k = 1;
    if (rule == 1) {
      d->op = layout::kOpScoreGather;
      d->begin = d->end = 0;
    }
  } else if (rule == 2) {  // a gather of nothing, or of too much
    *d = {.op = layout::kOpGather,
          .epoch = d->epoch,
          .seq = d->seq,
          .index_id = d->index_id,
          .index_generation = d->index_generation,
          .layer_slot = d->layer_slot,
          .first_head = d->first_head,
          .heads = d->heads,
          .format = index.entry.kv_format,
          .k = random() % 2 != 0 ? 0 : limits.granted.max_k + 1};
  } else if (rule == 3) {  // more entries than the card selects
    d->k = std::min<uint32_t>(limits.granted.max_k, 16384 + static_cast<uint32_t>(random() % 3));
    d->k1 = 0;
    d->result_length = 1U << 18;
  } else if (d->score_op == layout::kScoreDot) {  // a page of many passes
    d->group = static_cast<uint8_t>(std::min<uint32_t>(limits.granted.max_group, 30 + random() % 35));
    d->group_op = layout::kGroupMax;
    d->select_op = layout::kSelectTopK;
    d->threshold = 0;
    d->k1 = 0;
    d->begin = 0;
    d->end = index.tokens[d->layer_slot];
    d->payload_length = d->result_offset = 1U << 17;
  }
}

TEST_CASE("the check of a descriptor is layout::Validate's") {
  CheckRig rig;
  std::mt19937_64 random(20240611);
  std::map<std::pair<uint16_t, uint16_t>, uint64_t> seen;
  const uint64_t cases = Cases(uint64_t{40000});
  QueueLimits limits;
  TableIndex index;
  // Four times the tokens whose scores of one pass fill the banks.
  constexpr uint32_t kTokens = 4 * kChannels * kBankWords * 64 / 8;
  uint64_t long_scans = 0;
  for (uint64_t n = 0; n < cases; ++n) {
    if (n % 16 == 0) {
      limits = RandomLimits(random);
      index = RandomIndex(random, random() % 4 == 0 ? (1U << 31) : kTokens);
      if (random() % 16 == 0) index.entry.dim = 512;
      if (random() % 64 == 0) index.entry.exists = 0;
    }
    const auto next_seq = static_cast<uint32_t>(random());
    Descriptor d = GoodDescriptor(random, limits, index);
    d.seq = next_seq;
    d.index_id = static_cast<uint32_t>(random() % 8 == 0 ? random() % 16 : 0);
    const uint64_t kind = n % 32 == 1 ? 16 : random() % 16;
    if (kind < 4) ChangeOperation(random, &d);
    if (kind >= 2 && kind < 14) AlterField(random, &d);
    if (kind == 13) AlterField(random, &d);
    if (kind == 14) {
      for (uint32_t byte = 8; byte < sizeof d; ++byte) {
        reinterpret_cast<uint8_t*>(&d)[byte] = static_cast<uint8_t>(random());
      }
    }
    if (kind == 15 && random() % 2 != 0) {
      d.result_region = static_cast<uint16_t>(limits.region_bytes.size() - 1);
      d.result_offset = static_cast<uint32_t>(random() % (1 << 16));
    }
    if (kind == 16) BreakRareRule(random, limits, index, &d);
    const Verdict expected = ExpectedVerdict(d, limits, next_seq, index.Info(d.layer_slot));
    const Verdict verdict = rig.Check(random, d, limits.Words(), next_seq, index);
    INFO("case " << n << ": status " << verdict.status << " detail " << verdict.detail << ", expected "
                 << expected.status << " " << expected.detail);
    REQUIRE(verdict == expected);
    REQUIRE(ModelVerdict(d, limits.Words(), next_seq, index) == expected);
    ++seen[{verdict.status, verdict.detail}];
    if (verdict.status == layout::kStatusOk) {
      REQUIRE(rig.long_scan() == LongScan(d));
      long_scans += LongScan(d) ? 1 : 0;
      if (d.select_op != layout::kSelectLatest) {
        REQUIRE(rig.payload_block() * layout::kUnitBytes ==
                layout::QueryBlockBytes(d.group, index.entry.dim));
      }
      REQUIRE(rig.result_block() * layout::kUnitBytes ==
              layout::ResultBlockBytes(d.select_op, d.flags, d.k, index.entry.dim));
    }
  }
  CHECK(long_scans > cases / 1000);
  // Each verdict that a query ring can have, but for k1 and the like that only few cases reach, was seen.
  CHECK(seen[{layout::kStatusOk, layout::kNoDetail}] > cases / 50);
  for (const size_t offset : {0, 1, 8, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 28, 32, 36, 40, 52, 60}) {
    INFO("no bad field at " << offset);
    CHECK(seen.contains({layout::kStatusBadField, static_cast<uint16_t>(offset)}));
  }
  for (const size_t offset : {0, 1, 18, 19, 20, 21, 22, 28, 32, 36}) {
    INFO("nothing unsupported at " << offset);
    CHECK(seen.contains({layout::kStatusUnsupported, static_cast<uint16_t>(offset)}));
  }
  for (const size_t offset : {44, 46, 48, 56}) {
    INFO("no bad region at " << offset);
    CHECK(seen.contains({layout::kStatusBadRegion, static_cast<uint16_t>(offset)}));
  }
}

}  // namespace
}  // namespace mnemo::rtl_command
