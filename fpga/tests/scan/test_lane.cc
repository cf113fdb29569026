// The whole lane: its rate, stops, faults and events.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "fpga/tests/testing/cases.h"
#include "lane_bench.h"

namespace mnemo::rtl_scan {
namespace {

using rtl_tests::Cases;

struct Format {
  const char* name;
  uint32_t format;
  Scan scan;
};
constexpr Format kFormats[] = {
    {"2 bits", layout::kFormatCodes2, Scan::kCodes}, {"4 bits", layout::kFormatCodes4, Scan::kCodes},
    {"8 bits", layout::kFormatCodes8, Scan::kCodes}, {"sign stage", layout::kFormatCodes2, Scan::kSign},
    {"bounds", layout::kFormatBounds, Scan::kParts}, {"bounds of pages", layout::kFormatBounds, Scan::kFold},
    {"means", layout::kFormatMeans, Scan::kParts},   {"means of pages", layout::kFormatMeans, Scan::kPageRow},
};

uint32_t CardSegments(uint32_t format, uint32_t dim) {
  return layout::CardBlockOf(format, dim).vector_elements / 64;
}

// Cycles from the first beat to the last score for pages of one lane, without stalls from outside.
uint64_t CyclesOf(const Format& format, uint32_t dim, uint32_t group, uint32_t rows, bool relu,
                  uint64_t& beats) {
  const Shape& shape = kLaneShape;
  std::mt19937 rng(dim + group);
  Channel channel;
  const CaseOptions options{.format = format.format,
                            .scan = format.scan,
                            .dim = dim,
                            .group = group,
                            .pages = rows * shape.channels,
                            .relu = relu,
                            .whole = true};
  const Case scan = MakeCase(shape, options, channel, rng);
  LaneBench bench(channel, options.lane, 1);
  bench.Add(scan);
  REQUIRE(bench.Finish({.latency = 60}, 100000) == "");
  beats = bench.beats();
  return bench.last_score() - bench.first_beat();
}

TEST_CASE("a lane takes a beat a cycle", "[lane]") {
  std::string table;
  for (const Format& format : kFormats) {
    for (const uint32_t dim : {64U, 128U, 256U}) {
      constexpr uint32_t kRows = 100;
      uint64_t beats = 0;
      const uint64_t cycles = CyclesOf(format, dim, 4, kRows, false, beats);
      table += std::string(format.name) + ", dim " + std::to_string(dim) + ": " + std::to_string(beats) +
               " beats, " + std::to_string(cycles) + " cycles\n";
      const uint64_t scorers = format.scan == Scan::kCodes || format.scan == Scan::kSign ? 16 * kRows : kRows;
      INFO(table);
      // Once: the way through the lane, and 32 cycles to store and build each segment's tables of 4 queries.
      const uint64_t segments = CardSegments(format.format, dim);
      REQUIRE(cycles <= std::max(beats, scorers) + 120 + 32 * segments);
    }
  }
  WARN(table);
}

TEST_CASE("arithmetic alone bounds a weighted ReLU of 64 queries", "[lane]") {
  constexpr uint32_t kRows = 16;
  constexpr uint64_t kPasses = 16;
  std::string table;
  for (const Format& format : {kFormats[0], kFormats[2]}) {
    uint64_t beats = 0;
    // The queries' way into the lane apart.
    const uint64_t start = CyclesOf(format, 128, 64, kRows, true, beats);
    const uint64_t cycles = CyclesOf(format, 128, 64, 2 * kRows, true, beats) - start;
    // The planes of a page go through once a pass.
    const layout::CardBlock block = layout::CardBlockOf(format.format, 128);
    const uint64_t planes = kPasses * kRows * block.planes * block.plane_beats;
    table += std::string(format.name) + ": " + std::to_string(cycles) + " cycles, planes alone " +
             std::to_string(planes) + "\n";
    INFO(table);
    CHECK(cycles <= planes + planes / 20);
  }
  WARN(table);
}

TEST_CASE("rank codes of weighted ReLU wait for a slow selection", "[lane]") {
  const Shape& shape = kLaneShape;
  for (uint32_t group : {4, 5, 16}) {
    std::mt19937 rng(group);
    Channel channel;
    const CaseOptions options{.format = layout::kFormatCodes2,
                              .scan = Scan::kCodes,
                              .dim = 64,
                              .group = group,
                              .pages = 12 * shape.channels,
                              .relu = true,
                              .whole = true};
    const Case scan = MakeCase(shape, options, channel, rng);
    LaneBench bench(channel, options.lane, 1);
    bench.Add(scan);
    REQUIRE(bench.Finish({.scores = 15}, 200000) == "");
  }
}

TEST_CASE("a lane stops within its bursts", "[lane]") {
  const Shape& shape = kLaneShape;
  for (int seed = 1; seed <= Cases(20); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    CaseOptions options = RandomOptions(shape, rng);
    options.pages = 40;
    options.whole = true;
    const Case scan = MakeCase(shape, options, channel, rng);
    LaneBench bench(channel, options.lane, static_cast<uint32_t>(seed));
    const Pace pace = RandomPace(rng);
    INFO(Describe(options));
    for (int again = 0; again < 3; ++again) {
      bench.Add(scan);
      const uint64_t after = 1 + rng() % 500;
      for (uint64_t n = 0; n < after && bench.error().empty(); ++n) bench.Step(pace);
      bench.pins().stop = 1;
      bench.Step(pace);
      // An address that was offered is taken, and no other.
      uint64_t asked = bench.bursts() + (bench.pins().ar_valid ? 1 : 0);
      for (int n = 0; n < 20000 && bench.pins().open; ++n) bench.Step(pace);
      REQUIRE(bench.pins().open == 0);
      REQUIRE(bench.open_bursts() == 0);
      REQUIRE(bench.bursts() <= asked);
      REQUIRE(bench.pins().fault == 0);
      for (int n = 0; n < 50; ++n) bench.Step(pace);
      REQUIRE(bench.bursts() <= asked);
      REQUIRE(bench.error() == "");
      bench.Reset();
    }
    bench.Add(scan);
    REQUIRE(bench.Finish(pace, 400000) == "");
  }
}

TEST_CASE("a wrong response is a fault, and stops the lane", "[lane]") {
  const Shape& shape = kLaneShape;
  for (int seed = 1; seed <= Cases(20); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    CaseOptions options = RandomOptions(shape, rng);
    options.pages = 40;
    options.whole = true;
    options.listed = false;
    const Case scan = MakeCase(shape, options, channel, rng);
    LaneBench bench(channel, options.lane, static_cast<uint32_t>(seed));
    const Pace pace = RandomPace(rng);
    bench.Add(scan);
    bench.error_in = 1 + rng() % (scan.block_beats / 2 + 1);
    INFO(Describe(options));
    for (int n = 0; n < 20000 && (bench.pins().fault == 0 || bench.pins().open); ++n) bench.Step(pace);
    REQUIRE(bench.pins().fault == 2);
    REQUIRE(bench.pins().open == 0);
    const uint64_t asked = bench.bursts();
    for (int n = 0; n < 200; ++n) bench.Step(pace);
    REQUIRE(bench.pins().fault == 2);
    REQUIRE(bench.bursts() == asked);
    REQUIRE_FALSE(bench.Done());
    REQUIRE(bench.error() == "");
    bench.Reset();
    REQUIRE(bench.pins().fault == 0);
    bench.Add(scan);
    REQUIRE(bench.Finish(pace, 400000) == "");
  }
}

TEST_CASE("beats outside of the channel are a fault, and are not read", "[lane]") {
  const Shape& shape = kLaneShape;
  for (int seed = 1; seed <= Cases(40); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    CaseOptions options = RandomOptions(shape, rng);
    options.pages = 80;
    options.whole = true;
    options.listed = false;
    Case scan = MakeCase(shape, options, channel, rng);
    const auto length = static_cast<uint32_t>(channel.beats.size());
    const uint32_t row = 1 + rng() % (options.pages / shape.channels - 2);
    const uint32_t beats = std::max(scan.job.first_beats, scan.job.second_at + scan.job.second_beats);
    // The first extent that is too high, high ones, and a page list that lies outside.
    const uint32_t least = length + 1 - beats - scan.job.block_beat;
    const uint32_t extents[] = {least, least + static_cast<uint32_t>(seed), 0xFFFFFFFF,
                                0x80000000U + static_cast<uint32_t>(seed)};
    std::memcpy(&channel.beats[scan.job.list_beat + row / 16][row % 16 * 4], &extents[seed % 4], 4);
    if (seed % 8 == 7) scan.job.list_beat = rng() % 2 == 0 ? length : 0xFFFFFFF0;
    LaneBench bench(channel, options.lane, static_cast<uint32_t>(seed));
    const Pace pace = RandomPace(rng);
    bench.Add(scan);
    INFO("seed " << seed << " " << Describe(options));
    for (int n = 0; n < 100000 && (bench.pins().fault == 0 || bench.pins().open); ++n) bench.Step(pace);
    REQUIRE(bench.error() == "");
    REQUIRE(bench.pins().fault == 4);
    REQUIRE(bench.pins().open == 0);
    for (int n = 0; n < 200; ++n) bench.Step(pace);
    REQUIRE(bench.pins().fault == 4);
    REQUIRE_FALSE(bench.Done());
    REQUIRE(bench.error() == "");
  }
}

TEST_CASE("a lane tells what it waits for", "[lane]") {
  const Shape& shape = kLaneShape;
  std::mt19937 rng(5);
  Channel channel;
  const CaseOptions options{.pages = 80, .whole = true};
  const Case scan = MakeCase(shape, options, channel, rng);
  LaneBench bench(channel, 0, 1);
  bench.Add(scan);
  REQUIRE(bench.Finish({}, 100000) == "");
  REQUIRE(bench.events().beat == bench.beats());
  REQUIRE(bench.events().busy > 0);
  REQUIRE(bench.events().bank == 0);
  REQUIRE(bench.pins().ev_busy == 0);
  const LaneEvents before = bench.events();
  bench.Add(scan);
  REQUIRE(bench.Finish({.data = 20}, 100000) == "");
  REQUIRE(bench.events().memory - before.memory > before.memory + 300);
  const LaneEvents slow = bench.events();
  bench.Add(scan);
  REQUIRE(bench.Finish({.scores = 20}, 100000) == "");
  REQUIRE(bench.events().bank - slow.bank > 500);
  REQUIRE(bench.events().scorers > slow.scorers + 100);
  const LaneEvents late = bench.events();
  bench.Add(scan);
  REQUIRE(bench.Finish({.queries = 1}, 100000) == "");
  REQUIRE(bench.events().tables - late.tables > 100);
}

TEST_CASE("a lane is not busy with a job that waits for its list", "[lane]") {
  std::mt19937 rng(6);
  Channel channel;
  const Case listed = MakeCase(kLaneShape, {.pages = 40, .listed = true}, channel, rng);
  const Case ranged = MakeCase(kLaneShape, {.pages = 40, .whole = true}, channel, rng);
  LaneBench bench(channel, 0, 1);
  bench.Add(listed);
  for (int n = 0; n < 1000; ++n) bench.Step({.lists = 0});
  REQUIRE(bench.events().busy == 0);
  REQUIRE(bench.events().memory == 0);
  REQUIRE(bench.Finish({}, 100000) == "");
  const uint64_t with_list = bench.events().busy;
  REQUIRE(with_list >= bench.beats());

  bench.Add(ranged);
  REQUIRE(bench.Finish({}, 100000) == "");
  const uint64_t with_range = bench.events().busy - with_list;
  bench.Add(ranged);
  bench.Add(listed);
  for (int n = 0; n < 10000; ++n) bench.Step({.lists = 0});
  REQUIRE(bench.pins().ev_busy == 0);
  REQUIRE(bench.events().busy >= with_list + 2 * with_range - 100);
  REQUIRE(bench.events().busy <= with_list + 2 * with_range + 100);
  REQUIRE(bench.Finish({}, 100000) == "");
}

}  // namespace
}  // namespace mnemo::rtl_scan
