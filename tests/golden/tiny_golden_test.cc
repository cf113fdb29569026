// Every architecture on a small random model: logits against transformers' on the same weights.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/golden/model_runner.h"
#include "tests/golden/tiny_spec.h"

namespace mnemo::golden {
namespace {

// Both sides round to float32 at every step, in another order; logits are of size 10.
constexpr float kTolerance = 2e-4f;

nlohmann::json ReadGolden() {
  std::ifstream file(MNEMO_GOLDEN_DIR "/tiny.json");
  return nlohmann::json::parse(file).at("cases");
}

}  // namespace

TEST_CASE("Logits of tiny models equal transformers'") {
  const nlohmann::json cases = ReadGolden();
  REQUIRE(cases.size() >= 10);
  for (const nlohmann::json& golden : cases) {
    const std::string label = golden.at("options").dump();
    INFO(label);
    const std::vector<std::byte> bytes = testing::TinyModel(TinyOptionsFromJson(golden.at("options")));
    const auto file = model::GgufFile::Parse(bytes, "tiny.gguf", {});
    REQUIRE(file.ok());
    const std::vector<int32_t> ids = golden.at("ids");
    const int count = static_cast<int>(ids.size());
    const auto runner = ModelRunner::Create(**file, {.kind = "reference"}, {.max_rows = count}, 1, count);
    REQUIRE(runner.status() == absl::OkStatus());
    const ModelRunner::Chunk chunk{0, ids};
    (*runner)->Forward({&chunk, 1});
    const std::vector<int32_t> rows = golden.at("positions");
    const std::vector<float> logits = (*runner)->Logits(rows);
    std::vector<float> expected;
    for (const nlohmann::json& row : golden.at("logits")) {
      for (const float value : row) expected.push_back(value);
    }
    REQUIRE(logits.size() == expected.size());
    float largest = 0;
    float spread = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(logits[i] - expected[i]));
      spread = std::max(spread, std::abs(expected[i]));
    }
    UNSCOPED_INFO("largest difference " << largest << ", largest logit " << spread);
    CHECK(spread > 1.0f);  // the model says something
    CHECK(largest < kTolerance);
  }
}

}  // namespace mnemo::golden
