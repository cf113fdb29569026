// The whole lane against layout::Scores: all formats, dims, groups and shapes of jobs, back to back, with
// random stalls on each handshake.

#include <catch2/catch.hpp>
#include <string>

#include "lane_bench.h"

namespace mnemo::rtl {
namespace {

std::string Describe(const CaseOptions& o) {
  return "format " + std::to_string(o.format) + " scan " + std::to_string(static_cast<int>(o.scan)) +
         " dim " + std::to_string(o.dim) + " group " + std::to_string(o.group) + " pages " +
         std::to_string(o.pages) + " lane " + std::to_string(o.lane) + " listed " + std::to_string(o.listed) +
         " random bits " + std::to_string(o.random_bits) + "\n";
}

// Runs the cases of one lane; returns what is wrong.
std::string Run(LaneBench& bench, const Pace& pace, uint64_t bound) {
  const uint64_t start = bench.cycles();
  while (!bench.Done() && bench.error().empty()) {
    if (bench.cycles() - start > bound) return "the lane does not go on";
    bench.Step(pace);
  }
  for (int i = 0; i < 50 && bench.error().empty(); ++i) bench.Step(pace);
  return bench.error();
}

TEST_CASE("a lane gives the scores of the reference", "[lane]") {
  const Shape shape;
  uint64_t compared = 0;
  for (int seed = getenv("SEED") ? atoi(getenv("SEED")) : 1; seed <= Cases(60); ++seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    Channel channel{.base_beat = rng() % 1000};
    const uint32_t lane = rng() % shape.channels;
    std::vector<Case> cases;
    std::string text = "seed " + std::to_string(seed) + "\n";
    const uint32_t jobs = 1 + rng() % 6;
    for (uint32_t i = 0; i < jobs; ++i) {
      CaseOptions options = RandomOptions(shape, rng);
      options.lane = lane;
      if (seed % 16 == 0) options.group = 64;
      text += Describe(options);
      cases.push_back(MakeCase(shape, options, channel, rng));
    }
    LaneBench bench(channel, lane, static_cast<uint32_t>(seed));
    for (const Case& scan : cases) bench.Add(scan);
    INFO(text);
    const std::string error = Run(bench, RandomPace(rng), 400000);
    REQUIRE(error == "");
    REQUIRE(bench.open_bursts() == 0);
    compared += bench.compared();
  }
  WARN("scores compared: " << compared);
}

}  // namespace
}  // namespace mnemo::rtl
