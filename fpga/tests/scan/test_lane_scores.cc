// The whole lane against layout::Scores: all formats, dims, groups and shapes of jobs, back to back, with
// random stalls on each handshake.

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fpga/tests/testing/cases.h"
#include "lane_bench.h"

namespace mnemo::rtl_scan {
namespace {

using rtl_tests::Cases;

// Scores of a case that the bench compares.
uint64_t ScoresOf(const Case& scan) {
  uint64_t count = 0;
  for (const ScoreBeat& beat : scan.scores) {
    count += beat.codes ? beat.y.size()
                        : uint64_t{beat.queries} * static_cast<uint64_t>(std::popcount(beat.counts));
  }
  return count;
}

TEST_CASE("a lane gives the scores of the reference", "[lane]") {
  const Shape& shape = kLaneShape;
  std::map<std::pair<uint32_t, Scan>, uint64_t> compared;  // by record format and scan
  for (int seed = 1; seed <= Cases(60); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    const uint32_t lane = rng() % shape.channels;
    std::vector<Case> cases;
    uint64_t total = 0;
    std::string text = "seed " + std::to_string(seed) + "\n";
    const uint32_t jobs = 1 + rng() % 6;
    for (uint32_t i = 0; i < jobs; ++i) {
      CaseOptions options = RandomOptions(shape, rng);
      options.lane = lane;
      if (seed % 16 == 0) options.group = std::min(64U, 16 * shape.g);  // of 16 passes
      text += Describe(options);
      cases.push_back(MakeCase(shape, options, channel, rng));
      total += ScoresOf(cases.back());
      compared[{options.format, options.scan}] += ScoresOf(cases.back());
    }
    LaneBench bench(channel, lane, static_cast<uint32_t>(seed));
    for (const Case& scan : cases) bench.Add(scan);
    INFO(text);
    const std::string error = bench.Finish(RandomPace(rng), 400000);
    REQUIRE(error == "");
    REQUIRE(bench.open_bursts() == 0);
    REQUIRE(bench.compared() == total);
  }
  REQUIRE(compared.size() == 8);
  std::string table = "scores compared:\n";
  for (const auto& [what, count] : compared) {
    table += "  format " + std::to_string(what.first) + ", scan " +
             std::to_string(static_cast<int>(what.second)) + ": " + std::to_string(count) + "\n";
  }
  WARN(table);
}

// Scans of values behind scans of scores, as a weighted sum has them, and two in a row.
TEST_CASE("a lane gives the values of unit vectors, and the largest octave", "[lane]") {
  const Shape& shape = kLaneShape;
  for (int seed = 1; seed <= Cases(24); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    const uint32_t lane = rng() % shape.channels;
    std::vector<Case> cases;
    uint64_t total = 0;
    std::string text = "seed " + std::to_string(seed) + "\n";
    for (uint32_t i = 0; i < 5; ++i) {
      CaseOptions options = RandomOptions(shape, rng);
      options.lane = lane;
      options.pages = 1 + rng() % 6;
      if (i != 0 && (i != 2 || seed % 2 == 0)) {
        options.format = layout::kFormatCodes8;  // which weighted sums have
        options.scan = Scan::kCodes;
        options.relu = options.listed = false;
        options.part = 1 + i % 2;
        options.group = std::min({options.dim, 64U, 16 * shape.g});
      }
      text += Describe(options);
      cases.push_back(MakeCase(shape, options, channel, rng));
      total += ScoresOf(cases.back());
    }
    LaneBench bench(channel, lane, static_cast<uint32_t>(seed));
    for (const Case& scan : cases) bench.Add(scan);
    INFO(text);
    const std::string error = bench.Finish(RandomPace(rng), 400000);
    REQUIRE(error == "");
    REQUIRE(bench.compared() == total);
    if (cases.back().top_octave) REQUIRE(bench.pins().top == *cases.back().top_octave);
  }
}

}  // namespace
}  // namespace mnemo::rtl_scan
