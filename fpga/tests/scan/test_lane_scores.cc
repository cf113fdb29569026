// The whole lane against layout::Scores: all formats, dims, groups and shapes of jobs, back to back, with
// random stalls on each handshake.

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "fpga/tests/testing/cases.h"
#include "lane_bench.h"

namespace mnemo::rtl_scan {
namespace {

using rtl_tests::Cases;

TEST_CASE("a lane gives the scores of the reference", "[lane]") {
  const Shape& shape = kLaneShape;
  uint64_t compared = 0;
  for (int seed = 1; seed <= Cases(60); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    const uint32_t lane = rng() % shape.channels;
    std::vector<Case> cases;
    std::string text = "seed " + std::to_string(seed) + "\n";
    const uint32_t jobs = 1 + rng() % 6;
    for (uint32_t i = 0; i < jobs; ++i) {
      CaseOptions options = RandomOptions(shape, rng);
      options.lane = lane;
      if (seed % 16 == 0) options.group = std::min(64U, 16 * shape.g);  // of 16 passes
      text += Describe(options);
      cases.push_back(MakeCase(shape, options, channel, rng));
    }
    LaneBench bench(channel, lane, static_cast<uint32_t>(seed));
    for (const Case& scan : cases) bench.Add(scan);
    INFO(text);
    const std::string error = bench.Finish(RandomPace(rng), 400000);
    REQUIRE(error == "");
    REQUIRE(bench.open_bursts() == 0);
    compared += bench.compared();
  }
  WARN("scores compared: " << compared);
}

}  // namespace
}  // namespace mnemo::rtl_scan
