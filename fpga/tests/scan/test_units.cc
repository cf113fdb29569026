// The arithmetic units of a lane: scorer against layout::ScoreTerm and AddScores, tables and plane sums
// against sums of codes, the base's dot product.

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <memory>
#include <random>

#include "Vunits_bench.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/numerics.h"
#include "verilated.h"

namespace mnemo::rtl_scan {
namespace {

using rtl_tests::Cases;

class Bench {
 public:
  explicit Bench(int seed) {
    context_.threads(1);
    context_.randReset(2);
    context_.randSeed(seed);
    top_ = std::make_unique<Vunits_bench>(&context_);
    Vunits_bench& p = *top_;
    p.clear = p.step = p.we = p.valid = p.dot_valid = 0;
    p.rst = 1;
    Clock();
    Clock();
    p.rst = 0;
  }
  ~Bench() { top_->final(); }

  Vunits_bench& pins() { return *top_; }
  void Clock() {
    top_->clk = 0;
    top_->eval();
    top_->clk = 1;
    top_->eval();
  }

 private:
  VerilatedContext context_;
  std::unique_ptr<Vunits_bench> top_;
};

struct Term {
  bool valid = false;
  int32_t dot = 0;
  uint32_t mantissa = 0;
  uint32_t shift1 = 0;
  uint32_t multiplier = 0;
  uint32_t shift2 = 0;
  int32_t base = 0;
  int32_t y = 0;
};

// A term as the card meets it: its dot product is one of `dim` codes.
Term RandomTerm(std::mt19937& rng) {
  constexpr int32_t kCodeMax[] = {1, 3, 7, 127};
  const int32_t code_max = kCodeMax[rng() % 4];
  const uint32_t dim = 16U << rng() % 6;
  const int32_t largest = 127 * code_max * static_cast<int32_t>(dim);
  const auto limit = static_cast<int32_t>(rng() % 3 == 0 ? 100U : static_cast<uint32_t>(largest));
  Term term;
  term.dot = rng() % 16 == 0 ? (rng() % 2 == 0 ? largest : -largest)
                             : static_cast<int32_t>(rng() % (2 * static_cast<uint32_t>(limit) + 1)) - limit;
  const uint32_t scale = rng() % 256;
  const uint32_t top = rng() % 2 == 0 ? scale >> 3 : rng() % 256;
  const uint32_t shift = rng() % 4 == 0 ? rng() % 256 : 105 + rng() % 64;
  const int32_t dot_shift = layout::DotShift(code_max, dim);
  term.multiplier = rng() % 16 == 0 ? 0 : 32768 + rng() % 32768;
  term.base =
      rng() % 8 == 0 ? (rng() % 2 == 0 ? 32767 : -32768) : static_cast<int32_t>(rng() % 65536) - 32768;
  term.y = layout::AddScores(term.base,
                             layout::ScoreTerm(term.dot, scale, top, dot_shift, term.multiplier, shift));
  // The shifts as numerics.h limits them.
  const int32_t below = layout::Clamp(static_cast<int32_t>(top) - static_cast<int32_t>(scale >> 3), 0, 31);
  term.mantissa = scale & 7;
  term.shift1 = static_cast<uint32_t>(layout::Clamp(dot_shift + below, 0, 31));
  term.shift2 = static_cast<uint32_t>(
      layout::Clamp(static_cast<int32_t>(shift) - 105 - dot_shift - static_cast<int32_t>(top), 0, 31));
  return term;
}

TEST_CASE("the scorer computes AddScores of ScoreTerm", "[units]") {
  Bench bench(1);
  Vunits_bench& p = bench.pins();
  std::mt19937 rng(1);
  std::deque<Term> terms;  // the youngest first
  const int64_t count = Cases(10) * int64_t{100000};
  int64_t wrong = 0;
  for (int64_t n = 0; n < count + 9; ++n) {
    terms.push_front(RandomTerm(rng));
    terms[0].valid = rng() % 4 != 0;
    const auto at = [&](size_t cycle) { return terms.size() > cycle ? terms[cycle] : Term{}; };
    p.moves = 0;
    for (size_t i = 0; i < 8; ++i) p.moves |= static_cast<uint8_t>((at(i + 1).valid ? 1U : 0U) << i);
    p.mantissa = static_cast<uint8_t>(terms[0].mantissa);
    p.fine1 = static_cast<uint8_t>(terms[0].shift1 & 7);
    p.dot2 = static_cast<uint32_t>(2 * at(1).dot) & 0x1FFFFFF;
    p.shift2 = static_cast<uint8_t>(at(2).shift2);
    p.coarse1 = static_cast<uint8_t>(at(3).shift1 >> 3);
    p.multiplier = static_cast<uint16_t>(at(3).multiplier);
    p.base = static_cast<uint16_t>(at(7).base);
    if (at(8).valid) {
      const int32_t sum = static_cast<int32_t>(uint32_t{p.limitless} << 15) >> 15;
      wrong += layout::SaturateI16(sum) != terms[8].y ? 1 : 0;
    }
    if (at(9).valid) {
      wrong += static_cast<int16_t>(p.y) != terms[9].y ? 1 : 0;
      wrong += static_cast<int16_t>(p.y_of_two) != terms[9].y ? 1 : 0;
    }
    if (terms.size() > 9) terms.pop_back();
    bench.Clock();
  }
  REQUIRE(wrong == 0);
}

// Builds the tables of 64 codes in a bank, in the order of table_control.
void BuildTables(Bench& bench, const std::array<int8_t, 64>& codes, int bank) {
  Vunits_bench& p = bench.pins();
  p.clear = 1;
  p.step = p.we = 0;
  bench.Clock();
  p.clear = 0;
  uint32_t gray = 0;
  for (uint32_t n = 0; n < 16; ++n) {
    const uint32_t next = (n + 1) ^ (n + 1) >> 1;
    const uint32_t changed = gray ^ next;
    const uint32_t word = changed == 1 ? 0 : changed == 2 ? 1 : changed == 4 ? 2 : 3;
    p.we = p.step = 1;
    p.write_bank = static_cast<uint8_t>(bank);
    p.write_at = static_cast<uint8_t>(gray);
    p.minus = (gray & changed) != 0;
    for (uint32_t i = 0; i < 16; ++i) {
      reinterpret_cast<uint8_t*>(&p.codes[0])[i] = static_cast<uint8_t>(codes[4 * i + word]);
    }
    bench.Clock();
    gray = next & 15;
  }
  p.we = p.step = 0;
}

TEST_CASE("a plane unit sums the codes whose bits are set", "[units]") {
  Bench bench(2);
  Vunits_bench& p = bench.pins();
  std::mt19937 rng(2);
  std::array<std::array<int8_t, 64>, 2> codes = {};
  for (int round = 0; round < 20 * Cases(10); ++round) {
    const int bank = round % 2;
    for (int8_t& code : codes[bank]) {
      code = static_cast<int8_t>(round % 5 == 0   ? -128
                                 : round % 5 == 1 ? 127
                                                  : static_cast<int>(rng() % 256) - 128);
    }
    BuildTables(bench, codes[bank], bank);
    std::deque<int32_t> wanted;
    for (int n = 0; n < 100; ++n) {
      const int used = round == 0 ? 0 : static_cast<int>(rng() % 2);
      const uint64_t bits = n == 0 ? ~uint64_t{0} : n == 1 ? 0 : uint64_t{rng()} << 32 | rng();
      p.bits = bits;
      p.bank = static_cast<uint8_t>(used);
      p.valid = 1;
      int32_t sum = 0;
      for (int i = 0; i < 64; ++i) sum += (bits >> i & 1) != 0 ? codes[used][i] : 0;
      wanted.push_front(sum);
      bench.Clock();
      if (wanted.size() == 3) {
        REQUIRE(static_cast<int32_t>(uint32_t{p.sum} << 18) >> 18 == wanted.back());
        REQUIRE(p.sum_apart == p.sum);
        wanted.pop_back();
      }
    }
    p.valid = 0;
    bench.Clock();
  }
}

TEST_CASE("the base's dot product", "[units]") {
  Bench bench(3);
  Vunits_bench& p = bench.pins();
  std::mt19937 rng(3);
  std::deque<std::array<int32_t, 2>> wanted;
  for (int round = 0; round < 200 * Cases(10); ++round) {
    const int steps = 8 << rng() % 3;
    std::array<int32_t, 2> sum = {};
    for (int n = 0; n < steps;) {
      p.dot_valid = rng() % 4 != 0;
      p.dot_first = n == 0;
      p.dot_last = n == steps - 1;
      int8_t base[8];
      int8_t codes[2][8];
      for (int i = 0; i < 8; ++i) {
        base[i] = static_cast<int8_t>(round % 4 == 0 ? -128 : static_cast<int>(rng() % 256) - 128);
        for (auto& of_query : codes) of_query[i] = static_cast<int8_t>(round % 8 == 0 ? -128 : rng());
      }
      std::memcpy(&p.dot_base, base, sizeof(base));
      std::memcpy(&p.dot_codes[0], codes, sizeof(codes));
      if (p.dot_valid) {
        for (int q = 0; q < 2; ++q) {
          for (int i = 0; i < 8; ++i) sum[q] += codes[q][i] * base[i];
        }
        if (++n == steps) wanted.push_back(sum);
      }
      bench.Clock();
      if (p.dot_done) {
        REQUIRE(!wanted.empty());
        const uint64_t dots = p.dots;
        REQUIRE(static_cast<int32_t>(static_cast<uint32_t>(dots) << 8) >> 8 == wanted.front()[0]);
        REQUIRE(static_cast<int32_t>(static_cast<uint32_t>(dots >> 24) << 8) >> 8 == wanted.front()[1]);
        wanted.pop_front();
      }
    }
  }
  REQUIRE(wanted.size() <= 1);
}

}  // namespace
}  // namespace mnemo::rtl_scan
