// The channels' model, driven by the linear reader of linear_reader.sv.

#include "fpga/sim/hbm_channel.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <memory>

#include "Vlinear_reader.h"
#include "fpga/sim/channel_pins.h"
#include "verilated.h"

namespace mnemo::sim {
namespace {

constexpr int kChannels = 2;
constexpr uint64_t kChannelBytes = 16 << 20;

class Reader {
 public:
  explicit Reader(const HbmOptions& options) {
    context_.threads(1);
    context_.randReset(2);
    context_.randSeed(static_cast<int>(options.seed));
    top_ = std::make_unique<Vlinear_reader>(&context_);
    memories_.reserve(kChannels);
    for (uint64_t i = 0; i < kChannels; ++i) {
      memories_.push_back(std::make_unique<SparseMemory>(Range{(i + 1) * kChannelBytes, kChannelBytes}, i));
      HbmOptions of_channel = options;
      of_channel.seed += i;
      channels.emplace_back(of_channel, memories_.back()->range(), memories_.back().get());
    }
    for (size_t i = 0; i < kChannels; ++i) SetFirst(i, memories_[i]->range().address);
    top_->take = (1 << kChannels) - 1;
    top_->start = 0;
    top_->rst = 1;
    Run(3);
    top_->rst = 0;
  }
  ~Reader() {
    Verilated::threadContextp(&context_);  // scopes leave the thread's context, which may be another's
    top_->final();
  }

  void SetFirst(size_t channel, uint64_t address) {
    std::memcpy(reinterpret_cast<uint8_t*>(&top_->first) + 5 * channel, &address, 5);
  }

  void Clock() {
    DriveChannels(*top_, std::span<const HbmChannel>(channels));
    top_->clk = 0;
    top_->eval();
    StepChannels(*top_, std::span<HbmChannel>(channels));
    top_->clk = 1;
    top_->eval();
  }
  void Run(int clocks) {
    for (int i = 0; i < clocks; ++i) Clock();
  }
  void Start(uint32_t bursts) {
    top_->bursts = bursts;
    top_->start = 1;
  }
  // Clocks until all bursts have come, at most `bound`.
  int Finish(uint32_t bursts, int bound) {
    Start(bursts);
    for (int clocks = 0; clocks < bound; ++clocks) {
      if (beats(0) == bursts * 64 && beats(1) == bursts * 64) return clocks;
      Clock();
    }
    return bound;
  }
  uint32_t beats(size_t channel) const { return static_cast<uint32_t>(top_->beats >> (32 * channel)); }
  uint64_t Sum(size_t channel) const {
    uint64_t sum = 0;
    std::memcpy(&sum, reinterpret_cast<const uint8_t*>(&top_->sum) + 8 * channel, 8);
    return sum;
  }
  uint64_t MemorySum(size_t channel, uint64_t bytes) const {
    std::vector<uint8_t> content(bytes);
    memories_[channel]->Read(memories_[channel]->range().address, content);
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes; at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, &content[at], 8);
      sum += word;
    }
    return sum;
  }

  SparseMemory& memory(size_t channel) { return *memories_[channel]; }
  Vlinear_reader& pins() { return *top_; }
  std::vector<HbmChannel> channels;

 private:
  VerilatedContext context_;
  std::unique_ptr<Vlinear_reader> top_;
  std::vector<std::unique_ptr<SparseMemory>> memories_;
};

TEST_CASE("a linear reader gets 92 +- 1 % of a channel's peak at any clock that can take it") {
  for (const int64_t clock_ps : {2222, 3333, 4000, 4444}) {
    for (const uint64_t seed : {1, 2}) {
      Reader reader({.clock_ps = clock_ps, .seed = seed});
      constexpr uint32_t kBursts = 400;
      const int clocks = reader.Finish(kBursts, 1'000'000);
      const double bytes_per_second =
          kBursts * 4096.0 / (static_cast<double>(clocks) * static_cast<double>(clock_ps) * 1e-12);
      CAPTURE(clock_ps, seed, bytes_per_second);
      CHECK(bytes_per_second / 14.4e9 > 0.91);
      CHECK(bytes_per_second / 14.4e9 < 0.93);
      CHECK(reader.channels[0].refreshes() > 20);
      CHECK(reader.channels[0].activations() > 1600);  // once a row
    }
  }
}

TEST_CASE("a slow port is the bound itself: a beat a clock, less the refreshes") {
  Reader reader({.clock_ps = 10'000});
  const int clocks = reader.Finish(400, 1'000'000);
  CHECK(clocks >= 400 * 64);
  CHECK(clocks < 400 * 64 * 1.01);
}

TEST_CASE("data comes whole and in order under stalls of both sides, for any seed") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Reader reader({.seed = seed, .stall_percent = static_cast<uint32_t>(seed * 4)});
    std::mt19937 rng(static_cast<uint32_t>(seed));
    for (size_t i = 0; i < kChannels; ++i) {
      std::vector<uint8_t> bytes(40 * 4096 + 8);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rng());
      reader.memory(i).Write(reader.memory(i).range().address, bytes);
    }
    reader.Start(40);
    for (int clocks = 0;
         clocks < 100'000 && reader.channels[1].beats() + reader.channels[0].beats() < 2 * 40 * 64;
         ++clocks) {
      reader.pins().take = rng() % 4;
      reader.Clock();
    }
    for (size_t i = 0; i < kChannels; ++i) {
      CHECK(reader.beats(i) == 40 * 64);
      CHECK(reader.Sum(i) == reader.MemorySum(i, 40 * 4096));
      CHECK(reader.channels[i].rules().violations() == 0);
      CHECK(reader.channels[i].idle());
    }
  }
}

TEST_CASE("a single burst comes after the latency, and no more than open_bursts are taken") {
  Reader reader({.jitter_ps = 0, .open_bursts = 4});
  reader.Start(1);
  int clocks = 0;
  for (; reader.beats(0) == 0 && clocks < 1000; ++clocks) reader.Clock();
  CHECK(clocks * 4 > 100 + 14);  // nanoseconds: the latency and an activation
  CHECK(clocks * 4 < 100 + 14 + 40);

  Reader held({.open_bursts = 4});
  held.pins().take = 0;
  held.Start(100);
  held.Run(1000);
  CHECK(held.channels[0].bursts() == 4);
  CHECK(held.channels[0].beats() == 0);
}

TEST_CASE("rows of one bank cost their cycle, rows of many banks do not") {
  HbmOptions options{.refresh_every_ps = 1'000'000'000'000};
  SparseMemory memory({0, kChannelBytes}, 1);
  const auto clocks_of = [&](uint64_t stride) {
    HbmChannel channel(options, memory.range(), &memory);
    int clocks = 0;
    uint64_t asked = 0;
    for (; channel.beats() < 200 && clocks < 100'000; ++clocks) {
      const bool asks = asked < 200;
      const bool taken = asks && channel.ar_ready();
      channel.Step(asks, asked * stride, 0, true);
      asked += taken;
    }
    return clocks;
  };
  const int hits = clocks_of(64);
  const int banks = clocks_of(HbmChannel::kRowBytes);
  const int one_bank = clocks_of(HbmChannel::kRowBytes * HbmChannel::kBanks);
  CAPTURE(hits, banks, one_bank);
  CHECK(banks < hits * 3 / 2);
  CHECK(one_bank * 4 > 199 * 47);  // nanoseconds: the row cycle each
}

TEST_CASE("the n-th burst fails, or it and the later ones never come") {
  Reader error({.error_at = 3});
  error.Finish(8, 10'000);
  CHECK(error.pins().failed == 3);
  CHECK(error.beats(0) == 8 * 64);

  Reader stop({.stop_at = 3});
  stop.Finish(8, 10'000);
  CHECK(stop.beats(0) == 3 * 64);
  CHECK_FALSE(stop.channels[0].idle());
  CHECK(stop.pins().failed == 0);
}

TEST_CASE("addresses outside of the channel fail and are recorded") {
  Reader reader({});
  reader.SetFirst(0, 2 * kChannelBytes - 4096);  // its last burst, then one of the neighbour
  reader.Finish(2, 10'000);
  CHECK(reader.pins().failed == 1);
  REQUIRE(reader.channels[0].rules().violations() == 1);
  CHECK(reader.channels[0].rules().recorded()[0].address == 2 * kChannelBytes);
  CHECK(reader.channels[1].rules().violations() == 0);
}

TEST_CASE("ranges that a test allows bound what a channel may be asked for") {
  Reader reader({});
  reader.channels[1].rules().Allow({{2 * kChannelBytes, 3 * 4096}});
  reader.Finish(4, 10'000);
  CHECK(reader.channels[0].rules().violations() == 0);
  REQUIRE(reader.channels[1].rules().violations() == 1);
  CHECK(reader.channels[1].rules().recorded()[0].address == 2 * kChannelBytes + 3 * 4096);
}

}  // namespace
}  // namespace mnemo::sim
