#include "server/worker/request_check.h"

#include <catch2/catch.hpp>
#include <limits>
#include <random>
#include <string>

#include "server/worker/request.h"

namespace mnemo::worker {
namespace {

EngineRequest Valid() {
  EngineRequest request;
  request.id = 1;
  request.prompt = {1, 2, 3};
  request.max_tokens = 5;
  return request;
}

constexpr RequestLimits kLimits{.vocabulary = 10, .context_tokens = 100, .kv_pages = 1};

}  // namespace

TEST_CASE("a request out of bounds is refused with field and bound") {
  EngineRequest request = Valid();
  REQUIRE(CheckRequest(request, kLimits).ok());
  std::string expected;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  SECTION("empty prompt") { request.prompt = {}, expected = "prompt is empty; allowed: 1 token and more"; }
  SECTION("long prompt") {
    request.prompt.assign(101, 1);
    expected = "prompt has 101 tokens; allowed: at most 100, the context";
  }
  SECTION("prompt id") { request.prompt[2] = 10, expected = "prompt[2] is 10; allowed: 0 to 9"; }
  SECTION("negative id") { request.prompt[0] = -1, expected = "prompt[0] is -1; allowed: 0 to 9"; }
  SECTION("generated id") { request.generated = {10}, expected = "generated[0] is 10; allowed: 0 to 9"; }
  SECTION("more generated than max_tokens") {
    request.generated.assign(6, 1);
    expected = "generated has 6 tokens; allowed: at most max_tokens, 5";
  }
  SECTION("max_tokens below 0") { request.max_tokens = -1, expected = "max_tokens is -1; allowed: 0 to 97"; }
  SECTION("max_tokens over the context") {
    request.max_tokens = 98;
    expected = "max_tokens is 98; allowed: 0 to 97, what a prompt of 3 leaves of the context of 100";
  }
  SECTION("more than the pool") {
    request.max_tokens = 63;
    expected = "need a KV cache of 65 positions; allowed: at most 64, the whole pool";
  }
  SECTION("temperature") {
    request.sampling.temperature = nan, expected = "temperature is nan; allowed: 0 to 5";
  }
  SECTION("top_k") { request.sampling.top_k = -1, expected = "top_k is -1; allowed: 0 and more"; }
  SECTION("top_p") { request.sampling.top_p = 0, expected = "top_p is 0; allowed: more than 0, up to 1"; }
  SECTION("min_p") { request.sampling.min_p = 2, expected = "min_p is 2; allowed: 0 to 1"; }
  SECTION("repetition_penalty") {
    request.sampling.repetition_penalty = 11;
    expected = "repetition_penalty is 11; allowed: 0 to 10";
  }
  SECTION("presence_penalty") {
    request.sampling.presence_penalty = -3;
    expected = "presence_penalty is -3; allowed: -2 to 2";
  }
  SECTION("bias") { request.bias = {{1, 101}}, expected = "logit_bias is 101; allowed: -100 to 100"; }
  SECTION("bias id") { request.bias = {{10, 1}}, expected = "logit_bias[0] is 10; allowed: 0 to 9"; }
  SECTION("bias twice") {
    request.bias = {{1, 1}, {1, 2}}, expected = "logit_bias names id 1 more than once";
  }
  SECTION("logprobs") { request.logprobs = 21, expected = "logprobs is 21; allowed: -1 to 20"; }
  SECTION("prompt_logprobs") {
    request.prompt_logprobs = -2, expected = "prompt_logprobs is -2; allowed: -1 to 20";
  }
  SECTION("prompt_logprobs_from") {
    request.prompt_logprobs_from = 4;
    expected = "prompt_logprobs_from is 4; allowed: 0 to 3";
  }
  SECTION("decode_from") { request.decode_from = 4, expected = "decode_from is 4; allowed: 0 to 3"; }
  const absl::Status status = CheckRequest(request, kLimits);
  if (expected.empty()) return;
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Catch::Contains(expected));
}

TEST_CASE("an attention method that the worker does not have is refused") {
  EngineRequest request = Valid();
  request.attention.method = memory::AttentionSettings::Method::kTokenTopk;
  request.attention.token_budget = 128;
  CHECK(CheckRequest(request, kLimits).code() == absl::StatusCode::kUnimplemented);
  RequestLimits limits = kLimits;
  limits.memory = {.layers = 2, .kv_heads = 2, .group = 2, .head_dim = 64, .softmax_scale = 0.125f};
  CHECK(CheckRequest(request, limits).ok());
  request.attention.token_budget = 1;
  CHECK(CheckRequest(request, limits).code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("the last token needs no place in the pool") {
  EngineRequest request = Valid();
  request.max_tokens = 62;  // 3 + 62 tokens, 64 positions
  CHECK(CheckRequest(request, kLimits).ok());
}

TEST_CASE("what the pool has no room for is taken from max_tokens where that is wanted") {
  EngineRequest request = Valid();
  request.max_tokens = 97;
  LowerToPool(kLimits, &request);
  CHECK(request.max_tokens == 97);  // the client's own is left for CheckRequest to refuse
  request.lower_to_pool = true;
  SECTION("what is left of the pool") {
    LowerToPool(kLimits, &request);
    CHECK(request.max_tokens == 62);
    CHECK(CheckRequest(request, kLimits).ok());
  }
  SECTION("what is left of the context, where that is less") {
    RequestLimits limits = kLimits;
    limits.kv_pages = 2;
    LowerToPool(limits, &request);
    CHECK(request.max_tokens == 97);
  }
  SECTION("one token of a prompt that fills the pool") {
    request.prompt.assign(64, 1);
    request.max_tokens = 36;
    LowerToPool(kLimits, &request);
    CHECK(request.max_tokens == 1);
    CHECK(CheckRequest(request, kLimits).ok());
  }
  SECTION("a prompt that does not fit is refused with its length") {
    request.prompt.assign(65, 1);
    request.max_tokens = 35;
    LowerToPool(kLimits, &request);
    CHECK_THAT(std::string(CheckRequest(request, kLimits).message()),
               Catch::Contains("need a KV cache of 65 positions; allowed: at most 64"));
  }
  SECTION("a replay from a worker with a larger pool is complete") {
    request.generated.assign(80, 1);
    LowerToPool(kLimits, &request);
    CHECK(request.generated.size() == 62);
    REQUIRE(CheckRequest(request, kLimits).ok());
    CHECK(Request(request, 0, {}).Outcome() == EngineFinish::kLength);
  }
  SECTION("a prompt that is only scored stays one") {
    request.max_tokens = 0;
    LowerToPool(kLimits, &request);
    CHECK(request.max_tokens == 0);
  }
  SECTION("what is wrong stays to be refused") {
    for (const int wrong : {-1, 98, std::numeric_limits<int>::max()}) {
      request.max_tokens = wrong;
      LowerToPool(kLimits, &request);
      CHECK(request.max_tokens == wrong);
    }
  }
}

TEST_CASE("max_tokens is lowered to the pool, or to what a resident sequence has, whatever the settings") {
  const uint64_t seed = GENERATE(1, 2, 3);
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  int lowered = 0;
  for (int i = 0; i < 5000; ++i) {
    RequestLimits limits{.vocabulary = 10,
                         .context_tokens = 20000,
                         .kv_pages = static_cast<int>(1 + random() % 200),
                         .extra_pages = static_cast<int>(random() % 300),
                         .any_placement_in_service = true};
    limits.memory = {.layers = 2, .kv_heads = 2, .group = 2, .head_dim = 64, .softmax_scale = 0.125f};
    EngineRequest request = Valid();
    request.prompt.assign(1 + random() % 6000, 1);
    request.max_tokens = static_cast<int32_t>(limits.context_tokens - request.prompt.size());
    request.attention.method = memory::AttentionSettings::Method::kTokenTopk;
    request.attention.token_budget = static_cast<int>(200 + random() % 8000);
    CAPTURE(limits.kv_pages, limits.extra_pages, request.prompt.size(), request.attention.token_budget);
    EngineRequest least = request;
    least.max_tokens = 1;
    request.lower_to_pool = true;
    LowerToPool(limits, &request);
    const absl::Status status = CheckRequest(request, limits);
    // Nothing is refused that would not have been refused with the smallest limit.
    if (!status.ok()) {
      CHECK(request.max_tokens == 1);
      CHECK_FALSE(CheckRequest(least, limits).ok());
      continue;
    }
    ++lowered;
    request.max_tokens += 1;  // and nothing is left unused
    CHECK_FALSE(CheckRequest(request, limits).ok());
  }
  CHECK(lowered > 1000);
}

}  // namespace mnemo::worker
