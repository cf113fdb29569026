#include "server/worker/request.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>

#include "server/worker/token_counts.h"

namespace mnemo::worker {
namespace {

EngineRequest Valid() {
  EngineRequest request;
  request.id = 1;
  request.prompt = {1, 2, 3};
  request.max_tokens = 5;
  return request;
}

}  // namespace

TEST_CASE("what the cache may serve") {
  EngineRequest spec = Valid();
  spec.prompt.assign(200, 1);
  const auto reuse_end = [](const EngineRequest& s) { return Request(s, 0, {}).reuse_end(); };
  CHECK(reuse_end(spec) == 199);  // the last token's logits are needed
  spec.decode_from = 64;
  CHECK(reuse_end(spec) == 64);
  spec.decode_from = 0;
  spec.prompt_logprobs = 0;
  CHECK(reuse_end(spec) == 0);
  spec.prompt_logprobs_from = 100;  // scored by the logits of position 99
  CHECK(reuse_end(spec) == 99);
  spec.prompt_logprobs_from = 200;
  CHECK(reuse_end(spec) == 199);
}

TEST_CASE("outcome of a request") {
  EngineRequest spec = Valid();
  spec.end_ids = {9, 7};
  spec.max_tokens = 2;
  Request request(spec, 0, {});
  request.Prepare();
  CHECK(request.Outcome() == EngineFinish::kNone);
  request.AppendOutput(1);
  CHECK(request.Outcome() == EngineFinish::kNone);
  SECTION("length") {
    request.AppendOutput(2);
    CHECK(request.Outcome() == EngineFinish::kLength);
  }
  SECTION("end token, even as the last one") {
    request.AppendOutput(7);
    CHECK(request.Outcome() == EngineFinish::kEndToken);
  }
  SECTION("scoring only") {
    spec.max_tokens = 0;
    Request score(spec, 1, {});
    CHECK(score.Outcome() == EngineFinish::kNone);
    score.pages.computed = 3;
    CHECK(score.Outcome() == EngineFinish::kLength);
  }
}

TEST_CASE("token counts agree with a map") {
  const uint64_t seed = GENERATE(1, 2, 3);
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  TokenCounts counts;
  counts.Reserve(500);
  std::map<int32_t, int32_t> expected;
  for (int i = 0; i < 500; ++i) {
    // Ids that fall together in a table of any power of two, and others.
    const int32_t id = static_cast<int32_t>(random() % 2 == 0 ? (random() % 50) << 16 : random() % 150000);
    if (i < 200) {
      counts.AddPrompt(id);
      expected.try_emplace(id, 0);
    } else {
      counts.AddOutput(id);
      ++expected[id];
    }
  }
  std::map<int32_t, int32_t> actual;
  for (const devices::TokenCount& count : counts.counts()) {
    CHECK(actual.emplace(count.id, count.in_output).second);
  }
  CHECK(actual == expected);
}

}  // namespace mnemo::worker
