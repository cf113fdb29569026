// The channel reader alone: the pages and beats of any jobs in order, bursts within the rules, room that is
// kept, page lists read ahead, stops and faults. The bench plays the channel and the page buffer, which gives
// room back at random.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "Vchannel_reader.h"
#include "fpga/tests/testing/cases.h"
#include "scan_case.h"
#include "verilated.h"

namespace mnemo::rtl_scan {
namespace {

using rtl_tests::Cases;

constexpr Shape kShape = {4, 4, 16};
constexpr uint32_t kRoom = 512;   // beats that the page buffer holds
constexpr uint32_t kPages = 32;   // page slots
constexpr uint32_t kBases = 32;   // beats of bases
constexpr uint32_t kBursts = 32;  // under way

struct Pace {
  uint32_t address = 100;  // percentages of cycles
  uint32_t data = 100;
  uint32_t jobs = 100;
  uint32_t frees = 100;
  uint64_t latency = 20;  // cycles
};

struct Page {
  bool none = false, first = false, last = false;
  uint32_t low = 0, high = 63;
  uint64_t mask = 0;
  bool listed = false;
  uint32_t bases = 0;
  std::vector<uint64_t> beats;  // of the channel
};

// Pages of a job in a lane, by the text of card_types.sv.
std::vector<Page> PagesOf(const Case& scan, const CaseOptions& options, const Channel& channel) {
  const ScanJob& job = scan.job;
  std::vector<Page> pages;
  const auto add = [&](uint32_t row) -> Page& {
    Page page;
    uint32_t extent;
    std::memcpy(&extent, &channel.beats[job.list_beat + row / 16][row % 16 * 4], sizeof extent);
    const uint64_t start = uint64_t{extent} + job.block_beat;
    for (uint32_t n = 0; n < job.first_beats; ++n) page.beats.push_back(start + n);
    for (uint32_t n = 0; n < job.second_beats; ++n) page.beats.push_back(start + job.second_at + n);
    page.bases = job.kind == 0 ? 1U << (job.vector_log2 - 6) : 0;
    pages.push_back(page);
    return pages.back();
  };
  if (job.listed) {
    for (const ListEntry& entry : scan.list) {
      if (entry.none) continue;
      Page& page = add(entry.row);
      page.listed = true;
      page.mask = entry.mask;
    }
  } else if (!job.none) {
    for (uint32_t at = job.first_page; at <= job.last_page; ++at) {
      if (at % kShape.channels != options.lane) continue;
      Page& page = add(at / kShape.channels);
      if (at == job.first_page) page.low = job.skip;
      if (at == job.last_page) page.high = job.last_entry;
    }
  }
  if (pages.empty()) pages.push_back({.none = true});
  pages.front().first = pages.back().last = true;
  return pages;
}

// Beats of the page list that the job needs, each once and in order.
std::vector<uint64_t> ListBeats(const Case& scan, uint32_t lane) {
  const ScanJob& job = scan.job;
  std::vector<uint64_t> beats;
  const auto need = [&](uint32_t row) {
    const uint64_t beat = job.list_beat + row / 16;
    if (beats.empty() || beats.back() != beat) beats.push_back(beat);
  };
  for (const ListEntry& entry : scan.list) {
    if (!entry.none) need(entry.row);
  }
  for (uint32_t at = job.first_page; !job.listed && !job.none && at <= job.last_page; ++at) {
    if (at % kShape.channels == lane) need(at / kShape.channels);
  }
  return beats;
}

class ReaderBench {
 public:
  ReaderBench(const Channel& channel, uint32_t lane, uint32_t seed) : channel_(channel), rng_(seed) {
    context_.threads(1);
    context_.randReset(2);
    context_.randSeed(static_cast<int>(seed));
    top_ = std::make_unique<Vchannel_reader>(&context_);
    top_->lane_id = static_cast<uint8_t>(lane);
    top_->base_beat = channel.base_beat;
    top_->length_beats = static_cast<uint32_t>(channel.beats.size());
    Reset();
  }
  ~ReaderBench() {
    Verilated::threadContextp(&context_);  // the model's destructor looks there for its context
    top_->final();
  }

  void Reset() {
    Vchannel_reader& p = *top_;
    p.job_valid = p.list_valid = p.ar_ready = p.r_valid = p.stop = 0;
    p.beat_peeled = p.beat_freed = p.base_freed = p.page_freed = p.job_done = 0;
    p.rst = 1;
    for (int i = 0; i < 3; ++i) Clock();
    p.rst = 0;
    jobs_.clear();
    entries_.clear();
    pages_.clear();
    lists_.clear();
    bursts_.clear();
    asked_.clear();
    coming_.clear();
    held_ = used_ = open_pages_ = bases_ = open_bases_ = done_pages_ = 0;
    ends_.clear();
    slot_ = 0;
    wanted_.clear();
  }

  void Add(const Case& scan, const CaseOptions& options) { Add(scan, options, channel_); }
  // The page lists of `lists` tell what to expect.
  void Add(const Case& scan, const CaseOptions& options, const Channel& lists) {
    jobs_.push_back(scan.job);
    entries_.insert(entries_.end(), scan.list.begin(), scan.list.end());
    for (const Page& page : PagesOf(scan, options, lists)) {
      pages_.push_back(page);
      wanted_.insert(wanted_.end(), page.beats.begin(), page.beats.end());
    }
    for (const uint64_t beat : ListBeats(scan, options.lane)) lists_.push_back(beat);
  }

  void Step(const Pace& pace);
  // Until all pages and beats have come; returns what is wrong.
  std::string Finish(const Pace& pace, int cycles = 200'000) {
    while (error.empty() && !(pages_.empty() && coming_.empty() && bursts_.empty() && lists_.empty())) {
      if (cycles-- == 0) return "the reader does not go on";
      Step(pace);
    }
    for (int n = 0; n < 50 && error.empty(); ++n) Step(pace);
    return error;
  }

  Vchannel_reader& pins() { return *top_; }
  uint64_t lists_asked() const { return lists_asked_; }
  uint64_t pages_told() const { return pages_told_; }
  uint64_t addresses() const { return addresses_; }
  size_t most_bursts() const { return most_bursts_; }
  size_t open_bursts() const { return bursts_.size(); }

  std::string error;
  uint64_t error_in = 0;  // the response of the n-th beat from now on is an error; 0: none

 private:
  struct Burst {
    uint64_t beat;
    uint32_t left;
    uint64_t due;
  };
  bool Chance(uint32_t percent) { return rng_() % 100 < percent; }
  void Clock() {
    top_->clk = 0;
    top_->eval();
    top_->clk = 1;
    top_->eval();
  }
  void Wrong(const std::string& what) {
    if (error.empty()) error = what;
  }
  void Offer(const Pace& pace);
  void GiveBack(const Pace& pace);
  void TakeAddress(const Pace& pace);
  void TakePage();
  void TakeBeat();

  const Channel& channel_;
  VerilatedContext context_;
  std::unique_ptr<Vchannel_reader> top_;
  std::mt19937 rng_;
  uint64_t cycle_ = 0;
  std::deque<ScanJob> jobs_;
  std::deque<ListEntry> entries_;
  std::deque<Page> pages_;       // that are to be told
  std::deque<uint64_t> wanted_;  // beats of blocks that are to be asked for
  std::deque<uint64_t> lists_;   // beats of lists that are to be asked for
  std::deque<Burst> bursts_;     // under way
  std::deque<uint64_t> asked_;   // beats of blocks under way
  std::deque<Page> coming_;      // told pages with beats to come
  std::deque<bool> ends_;        // complete pages that are not freed: the last of a job
  uint64_t held_ = 0;            // beats that came and have not left
  uint64_t used_ = 0;            // beats asked for and not given back
  uint64_t open_pages_ = 0;      // told and not freed
  uint64_t bases_ = 0;           // beats of bases that came
  uint64_t open_bases_ = 0;      // of told pages, not freed
  uint64_t done_pages_ = 0;
  uint32_t slot_ = 0;
  uint64_t lists_asked_ = 0;
  uint64_t pages_told_ = 0;
  uint64_t addresses_ = 0;
  size_t most_bursts_ = 0;
};

void ReaderBench::Offer(const Pace& pace) {
  Vchannel_reader& p = *top_;
  if (!p.job_valid && !jobs_.empty() && Chance(pace.jobs)) {
    PackJob(jobs_.front(), p.job);
    p.job_valid = 1;
  }
  if (!p.list_valid && !entries_.empty() && Chance(pace.jobs)) {
    PackEntry(entries_.front(), p.entry);
    p.list_valid = 1;
  }
  if (!p.r_valid && !bursts_.empty() && bursts_.front().due <= cycle_ && Chance(pace.data)) {
    std::memcpy(&p.r_data[0], channel_.beats[bursts_.front().beat].data(), layout::kCardBeatBytes);
    p.r_last = bursts_.front().left == 1;
    p.r_resp = error_in == 1 ? 2 : 0;
    error_in -= error_in != 0 ? 1 : 0;
    p.r_valid = 1;
  }
  p.ar_ready = Chance(pace.address);
}

// The page buffer: a beat may leave at once and another after its last pass.
void ReaderBench::GiveBack(const Pace& pace) {
  Vchannel_reader& p = *top_;
  const auto one_of = [&](uint64_t* count) {
    const bool gives = *count > 0 && Chance(pace.frees);
    *count -= gives ? 1 : 0;
    return gives;
  };
  p.beat_peeled = one_of(&held_);
  p.beat_freed = one_of(&held_);
  used_ -= p.beat_peeled + p.beat_freed;
  p.base_freed = one_of(&bases_);
  open_bases_ -= p.base_freed;
  p.page_freed = !ends_.empty() && Chance(pace.frees);
  p.job_done = p.page_freed && ends_.front();
  if (p.page_freed) {
    ends_.pop_front();
    --open_pages_;
  }
}

void ReaderBench::TakeAddress(const Pace& pace) {
  const Vchannel_reader& p = *top_;
  const uint64_t address = p.ar_addr;
  const uint32_t count = p.ar_len + 1U;
  ++addresses_;
  if (address % 64 != 0 || count > 64 || address / 4096 != (address + count * 64 - 1) / 4096) {
    return Wrong("a burst of " + std::to_string(count) + " beats at " + std::to_string(address));
  }
  const uint64_t beat = address / 64 - channel_.base_beat;
  if (address / 64 < channel_.base_beat || beat + count > channel_.beats.size()) {
    return Wrong("an address outside of the channel");
  }
  if (!lists_.empty() && lists_.front() == beat && count == 1 &&
      (wanted_.empty() || wanted_.front() != beat)) {
    lists_.pop_front();
    ++lists_asked_;
  } else {
    for (uint32_t n = 0; n < count; ++n) {
      if (wanted_.empty() || wanted_.front() != beat + n) return Wrong("a beat that is not the next one");
      wanted_.pop_front();
      asked_.push_back(beat + n);
    }
    used_ += count;
    if (used_ > kRoom) Wrong("more beats than there is room for");
  }
  bursts_.push_back({beat, count, cycle_ + pace.latency});
  most_bursts_ = std::max(most_bursts_, bursts_.size());
  if (bursts_.size() > kBursts) Wrong("more than 32 bursts");
}

void ReaderBench::TakePage() {
  const Vchannel_reader& p = *top_;
  ++pages_told_;
  if (pages_.empty()) return Wrong("a page of no job");
  const Page page = pages_.front();
  pages_.pop_front();
  const auto bits = [&](uint32_t at, uint32_t count) {
    return (p.page[at / 32] >> at % 32) & ((1U << count) - 1);
  };
  const uint64_t mask = p.page[0] | uint64_t{p.page[1]} << 32;
  if (bits(85, 1) != page.none || bits(84, 1) != page.first || bits(83, 1) != page.last ||
      bits(76, 5) != slot_) {
    return Wrong("none, first, last or slot of a page");
  }
  slot_ = (slot_ + 1) % kPages;
  if (!page.none && (page.listed ? mask != page.mask : bits(70, 6) != page.low || bits(64, 6) != page.high)) {
    return Wrong("entries of a page: " + std::to_string(bits(70, 6)) + " to " + std::to_string(bits(64, 6)) +
                 ", not " + std::to_string(page.low) + " to " + std::to_string(page.high));
  }
  open_bases_ += page.bases;
  if (++open_pages_ > kPages || open_bases_ > kBases) Wrong("more pages or bases than there are slots");
  if (page.none) {
    ends_.push_back(true);
  } else {
    coming_.push_back(page);
  }
}

void ReaderBench::TakeBeat() {
  const Vchannel_reader& p = *top_;
  if (coming_.empty()) return Wrong("a beat before its page");
  Page& page = coming_.front();
  if (asked_.empty() || asked_.front() != page.beats.front() ||
      std::memcmp(&p.beat[0], channel_.beats[page.beats.front()].data(), layout::kCardBeatBytes) != 0) {
    return Wrong("another beat");
  }
  asked_.pop_front();
  page.beats.erase(page.beats.begin());
  ++held_;
  if (!page.beats.empty()) return;
  bases_ += page.bases;
  ends_.push_back(page.last);
  coming_.pop_front();
}

void ReaderBench::Step(const Pace& pace) {
  Vchannel_reader& p = *top_;
  Offer(pace);
  GiveBack(pace);
  p.clk = 0;
  p.eval();
  const bool job = p.job_valid && p.job_ready;
  const bool entry = p.list_valid && p.list_ready;
  const bool data = p.r_valid && p.r_ready;
  if (p.r_valid && !p.r_ready) Wrong("data that has room waits");
  if (p.ar_valid && p.ar_ready) TakeAddress(pace);
  if (p.page_valid) TakePage();
  if (p.beat_valid) TakeBeat();
  p.clk = 1;
  p.eval();
  ++cycle_;
  if (job) {
    jobs_.pop_front();
    p.job_valid = 0;
  }
  if (entry) {
    entries_.pop_front();
    p.list_valid = 0;
  }
  if (!data) return;
  Burst& burst = bursts_.front();
  ++burst.beat;
  if (--burst.left == 0) bursts_.pop_front();
  p.r_valid = 0;
}

Pace RandomPace(std::mt19937& rng) {
  constexpr uint32_t kPercent[] = {100, 100, 70, 30, 5};
  const auto percent = [&] { return kPercent[rng() % 5]; };
  return {percent(), percent(), percent(), percent(), 1 + rng() % 200};
}

struct Made {
  Case scan;
  CaseOptions options;
};

Made MakeJob(Channel& channel, uint32_t lane, std::mt19937& rng) {
  Made made;
  made.options = RandomOptions(kShape, rng);
  made.options.lane = lane;
  made.options.random_bits = true;
  made.options.group = 1;
  made.scan = MakeCase(kShape, made.options, channel, rng);
  return made;
}

Made WholeJob(Channel& channel, uint32_t format, Scan kind, uint32_t dim, uint32_t rows, std::mt19937& rng) {
  Made made;
  made.options = {.format = format,
                  .scan = kind,
                  .dim = dim,
                  .group = 1,
                  .pages = rows * kShape.channels,
                  .whole = true,
                  .random_bits = true};
  made.scan = MakeCase(kShape, made.options, channel, rng);
  return made;
}

TEST_CASE("a reader brings the pages of its jobs in order, each beat once", "[reader]") {
  for (uint32_t seed = 1; seed <= Cases(60U); ++seed) {
    CAPTURE(seed);
    std::mt19937 rng(seed);
    Channel channel{.base_beat = rng() % 1000, .beats = {}};
    const uint32_t lane = rng() % kShape.channels;
    std::vector<Made> jobs(1 + rng() % 8);
    for (Made& one : jobs) one = MakeJob(channel, lane, rng);
    ReaderBench bench(channel, lane, seed);
    for (const Made& one : jobs) bench.Add(one.scan, one.options);
    REQUIRE(bench.Finish(RandomPace(rng)) == "");
    REQUIRE(bench.pins().open == 0);
    REQUIRE(bench.pins().fault == 0);
  }
}

TEST_CASE("a reader has up to 32 bursts under way, and reads page lists ahead", "[reader]") {
  std::mt19937 rng(1);
  Channel channel;
  const Made made = WholeJob(channel, layout::kFormatCodes2, Scan::kSign, 64, 120, rng);
  ReaderBench bench(channel, 0, 1);
  bench.Add(made.scan, made.options);
  const Pace slow{.latency = 600};
  for (int n = 0; n < 2500; ++n) bench.Step(slow);
  CHECK(bench.most_bursts() == kBursts);
  REQUIRE(bench.Finish(slow) == "");
  // Without room the pages stop, but not the rows behind them.
  bench.Reset();
  bench.Add(made.scan, made.options);
  const uint64_t pages = bench.pages_told();
  const uint64_t lists = bench.lists_asked();
  for (int n = 0; n < 3000; ++n) bench.Step({.frees = 0});
  const uint64_t told = bench.pages_told() - pages;
  CHECK(told < 60);
  CHECK((bench.lists_asked() - lists) * 16 >= told + 16);
  REQUIRE(bench.Finish({}) == "");
  // Bursts of 64 beats, and pages that do not fit twice.
  Channel large{.base_beat = 64, .beats = {}};
  const Made bytes = WholeJob(large, layout::kFormatCodes8, Scan::kCodes, 256, 30, rng);
  ReaderBench wide(large, 0, 1);
  wide.Add(bytes.scan, bytes.options);
  REQUIRE(wide.Finish({.frees = 50}) == "");
}

TEST_CASE("a reader holds up to 8 beats of the page list, one for each listed page", "[reader]") {
  std::mt19937 rng(2);
  Channel channel;
  Made made;
  made.options = {.format = layout::kFormatCodes2,
                  .scan = Scan::kCodes,
                  .dim = 16,
                  .group = 1,
                  .pages = 40 * 16 * kShape.channels,
                  .listed = true,
                  .whole = true,
                  .random_bits = true};
  made.scan = MakeCase(kShape, made.options, channel, rng);
  // Each page has its row in another beat of the list.
  std::vector<ListEntry> apart;
  for (const ListEntry& entry : made.scan.list) {
    if (apart.empty() || entry.row / 16 != apart.back().row / 16) apart.push_back(entry);
  }
  REQUIRE(apart.size() > 30);
  for (ListEntry& entry : apart) entry.last = false;
  apart.back().last = true;
  made.scan.list = apart;
  ReaderBench bench(channel, 0, 1);
  bench.Add(made.scan, made.options);
  constexpr Pace kNothingFreed{.frees = 0};
  for (int n = 0; n < 3000; ++n) bench.Step(kNothingFreed);
  // Beats of the list are asked for ahead of the pages that wait for room.
  REQUIRE(bench.pages_told() < apart.size());
  REQUIRE(bench.lists_asked() <= bench.pages_told() + 9);
  REQUIRE(bench.lists_asked() > bench.pages_told() + 6);
  REQUIRE(bench.Finish({}) == "");
  REQUIRE(bench.lists_asked() == apart.size());
}

TEST_CASE("a reader that is stopped ends its bursts and begins anew after a reset", "[reader]") {
  for (uint32_t seed = 1; seed <= Cases(30U); ++seed) {
    CAPTURE(seed);
    std::mt19937 rng(seed);
    Channel channel{.base_beat = rng() % 1000, .beats = {}};
    const Made made = WholeJob(channel, layout::kFormatCodes2, seed % 2 == 0 ? Scan::kSign : Scan::kCodes,
                               64U << rng() % 3, 40, rng);
    ReaderBench bench(channel, 0, seed);
    const Pace pace = RandomPace(rng);
    bench.Add(made.scan, made.options);
    for (uint32_t n = rng() % 600; n > 0; --n) bench.Step(pace);
    bench.pins().stop = 1;
    bench.Step(pace);
    const uint64_t asked = bench.addresses() + (bench.pins().ar_valid ? 1 : 0);
    bench.Step(pace);
    const uint64_t told = bench.pages_told();
    for (int n = 0; n < 60'000 && bench.pins().open; ++n) bench.Step(pace);
    REQUIRE(bench.pins().open == 0);
    REQUIRE(bench.open_bursts() == 0);
    for (int n = 0; n < 100; ++n) bench.Step(pace);
    REQUIRE(bench.addresses() <= asked);
    REQUIRE(bench.pages_told() == told);
    REQUIRE(bench.pins().fault == 0);
    REQUIRE(bench.error == "");
    bench.Reset();
    bench.Add(made.scan, made.options);
    REQUIRE(bench.Finish(pace) == "");
  }
}

TEST_CASE("errors of the channel and extents outside of it are faults of a reader", "[reader]") {
  for (uint32_t seed = 1; seed <= Cases(40U); ++seed) {
    CAPTURE(seed);
    std::mt19937 rng(seed);
    Channel channel{.base_beat = rng() % 1000, .beats = {}};
    Made made = WholeJob(channel, layout::kFormatCodes4, Scan::kCodes, 64, 40, rng);
    const bool response = seed % 2 == 0;
    const auto length = static_cast<uint32_t>(channel.beats.size());
    const Channel good = channel;
    const uint32_t row = 1 + rng() % 35;
    const uint32_t least = length + 1 - made.scan.job.first_beats - made.scan.job.block_beat;
    const uint32_t extents[] = {least, least + seed, 0xFFFF'FFFF, 0x8000'0000 + seed};
    if (!response) {
      // A good extent stands in the expectation, so that a read of the other is seen.
      std::memcpy(&channel.beats[made.scan.job.list_beat + row / 16][row % 16 * 4], &extents[seed / 2 % 4],
                  4);
    }
    ReaderBench bench(channel, 0, seed);
    bench.Add(made.scan, made.options, good);
    const Pace pace = RandomPace(rng);
    if (response) bench.error_in = 1 + rng() % 300;
    for (int n = 0; n < 100'000 && (bench.pins().fault == 0 || bench.pins().open); ++n) bench.Step(pace);
    REQUIRE(bench.pins().fault == (response ? 2 : 4));
    REQUIRE(bench.pins().open == 0);
    const uint64_t asked = bench.addresses();
    const uint64_t told = bench.pages_told();
    if (!response) REQUIRE(told <= row + 1);
    for (int n = 0; n < 200; ++n) bench.Step(pace);
    REQUIRE(bench.addresses() == asked);
    REQUIRE(bench.pages_told() == told);
    REQUIRE(bench.pins().fault == (response ? 2 : 4));
    REQUIRE(bench.error == "");
  }
}

}  // namespace
}  // namespace mnemo::rtl_scan
