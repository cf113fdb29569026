// The numeric invariant: the same tokens and the same bits of every logprob whatever else happens in the
// engine.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "server/worker/engine_fixture.h"

namespace mnemo::worker {
namespace {

// Requests that share prefixes, cross the attention's splits of 512 positions, score, sample and decode in
// all ways. Ids are their places in the list.
std::vector<EngineRequest> Requests(int vocabulary) {
  std::mt19937 random(20);
  const auto id = [&] { return static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary)); };
  std::vector<int32_t> shared(700);
  for (int32_t& token : shared) token = id();
  std::vector<EngineRequest> requests;
  for (uint64_t number = 0; number < 32; ++number) {
    EngineRequest request;
    request.id = number;
    const size_t common = std::vector<size_t>{0, 64, 100, 130}[random() % 4];
    request.prompt.assign(shared.begin(), shared.begin() + static_cast<ptrdiff_t>(common));
    for (size_t own = 1 + random() % 80; own > 0; --own) request.prompt.push_back(id());
    if (number % 16 == 3) request.prompt.assign(shared.begin(), shared.begin() + 500 + random() % 150);
    request.max_tokens = static_cast<int32_t>(number % 8 == 5 ? 0 : 1 + random() % 40);
    if (number % 16 == 3) request.max_tokens = 30;
    request.logprobs = 3;
    if (number % 4 == 1) {
      request.prompt_logprobs = 2;
      request.prompt_logprobs_from = static_cast<int32_t>(random() % request.prompt.size());
    }
    if (number % 5 == 2) request.decode_from = static_cast<int32_t>(1 + random() % request.prompt.size());
    if (number % 2 == 0) {
      request.sampling.temperature = 1.5f;
      request.sampling.seed = number;
      request.sampling.top_p = 0.9f;
    } else {
      request.sampling.temperature = 0;
    }
    if (number % 3 == 0) {
      request.sampling.repetition_penalty = 1.2f;
      request.sampling.frequency_penalty = 0.5f;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

// The same with an attention method each, budgets smaller than most of the contexts.
std::vector<EngineRequest> SparseRequests(int vocabulary) {
  using M = memory::AttentionSettings::Method;
  std::vector<EngineRequest> requests = Requests(vocabulary);
  std::mt19937 random(21);
  for (EngineRequest& request : requests) {
    memory::AttentionSettings& attention = request.attention;
    attention.method = std::vector<M>{M::kDense,   M::kTokenTopk, M::kTokenTopk,
                                      M::kCascade, M::kPageBound, M::kBlockMean}[random() % 6];
    attention.keep_first = std::vector<int>{0, 4, 20}[random() % 3];
    attention.keep_last = std::vector<int>{0, 30}[random() % 2];
    attention.token_budget =
        attention.keep_first + attention.keep_last + 64 + static_cast<int>(random() % 80);
    attention.reuse_interval = std::vector<int>{1, 1, 3, 8}[random() % 4];
    attention.key_bits = attention.method == M::kTokenTopk ? std::vector<int>{2, 4, 8}[random() % 3] : 2;
    attention.first_stage_tokens = 2 * attention.token_budget;
  }
  return requests;
}

FixtureOptions Options(const std::string& device) {
  FixtureOptions options;
  options.device = device;
  options.engine.max_batch_rows = 512;
  options.engine.max_running = 1;
  options.engine.max_waiting = 64;
  options.engine.kv_pages = 200;
  return options;
}

// Runs each request alone, from an empty cache, in one piece.
std::vector<EngineResult> Alone(const std::string& device, const std::vector<EngineRequest>& requests) {
  FixtureOptions options = Options(device);
  options.engine.prefix_cache = false;
  EngineFixture fixture(options);
  std::vector<EngineResult> results;
  for (const EngineRequest& request : requests) results.push_back(fixture.Run(request));
  return results;
}

struct Summary {
  int cached_tokens = 0;
  int preemptions = 0;
};

Summary RunTogether(EngineFixture* fixture, const std::vector<EngineRequest>& requests, uint32_t attempt,
                    const std::vector<EngineResult>& expected) {
  for (EngineRequest request : requests) {
    request.attempt = attempt;
    REQUIRE(fixture->engine().Submit(request).ok());
  }
  Summary summary;
  for (size_t i = 0; i < requests.size(); ++i) {
    const EngineResult result = fixture->sink().Wait(requests[i].id, attempt);
    CAPTURE(i);
    CHECK(result.broken == "");
    CHECK(result.last.finish == expected[i].last.finish);
    CHECK(SameTokens(result.prompt_tokens, expected[i].prompt_tokens));
    const auto sent = static_cast<ptrdiff_t>(requests[i].generated.size());
    CHECK(SameTokens(result.tokens, {expected[i].tokens.begin() + sent, expected[i].tokens.end()}));
    summary.cached_tokens += result.last.cached_prompt_tokens;
    summary.preemptions += result.last.preemptions;
  }
  CHECK(fixture->engine().Stats().kv_pages_used == 0);
  return summary;
}

// The same requests, cut off after a random number of output tokens.
std::vector<EngineRequest> Replays(std::vector<EngineRequest> requests,
                                   const std::vector<EngineResult>& whole, std::mt19937* random) {
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> ids = whole[i].Ids();
    const auto sent = static_cast<ptrdiff_t>((*random)() % (ids.size() + 1));
    requests[i].generated.assign(ids.begin(), ids.begin() + sent);
  }
  return requests;
}

}  // namespace

TEST_CASE("tokens and logprobs do not depend on chunk, batch, threads, prefix hits, preemption or replay") {
  for (const std::string& device : DeviceKindNames()) {
    const std::vector<EngineRequest> requests = Requests(259);
    const std::vector<EngineResult> expected = Alone(device, requests);
    for (const EngineResult& result : expected) REQUIRE(result.broken == "");
    std::mt19937 random(7);
    int combination = 0;
    for (const int threads : {1, 2}) {
      for (const int rows : {1, 7, 512}) {
        for (const int batch : {1, 8, 32}) {
          if (combination++ % MNEMO_TEST_REDUCTION != 0) continue;
          CAPTURE(device, rows, batch, threads);
          FixtureOptions options = Options(device);
          options.engine.max_batch_rows = rows;
          options.engine.max_running = batch;
          options.threads = threads;
          EngineFixture fixture(options);
          const Summary cold = RunTogether(&fixture, requests, 0, expected);
          const Summary warm = RunTogether(&fixture, requests, 1, expected);
          CHECK(warm.cached_tokens > cold.cached_tokens);
          CHECK(warm.preemptions == 0);
          const std::vector<EngineRequest> replays = Replays(requests, expected, &random);
          RunTogether(&fixture, replays, 2, expected);
          if (batch == 1) continue;
          // A pool that hardly holds the longest request, so that others are preempted at random places.
          options.engine.kv_pages = 12;
          options.engine.reserve_tokens = 1;
          EngineFixture tight(options);
          CHECK(RunTogether(&tight, requests, 0, expected).preemptions > 0);
          if (rows == 7) RunTogether(&tight, replays, 1, expected);
        }
      }
    }
  }
}

TEST_CASE("the invariant holds for every attention method") {
  for (const std::string& device : DeviceKindNames()) {
    const std::vector<EngineRequest> requests = SparseRequests(259);
    const std::vector<EngineResult> expected = Alone(device, requests);
    const std::vector<EngineResult> dense = Alone(device, Requests(259));
    size_t changed = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      REQUIRE(expected[i].broken == "");
      changed += SameTokens(expected[i].tokens, dense[i].tokens) ? 0 : 1;
    }
    CHECK(changed > requests.size() / 8);  // the selections do select
    std::mt19937 random(8);
    for (const auto& [rows, batch, threads] :
         {std::tuple(1, 8, 2), std::tuple(7, 32, 1), std::tuple(512, 8, 2)}) {
      CAPTURE(device, rows, batch, threads);
      FixtureOptions options = Options(device);
      options.engine.max_batch_rows = rows;
      options.engine.max_running = batch;
      options.threads = threads;
      EngineFixture fixture(options);
      RunTogether(&fixture, requests, 0, expected);
      const std::vector<EngineRequest> replays = Replays(requests, expected, &random);
      RunTogether(&fixture, replays, 1, expected);
      CHECK(fixture.engine().Stats().memory.inline_indexes == 0);
      CHECK(fixture.engine().Stats().memory.inline_bytes == 0);
      options.engine.kv_pages = 12;
      options.engine.reserve_tokens = 1;
      EngineFixture tight(options);
      CHECK(RunTogether(&tight, requests, 0, expected).preemptions > 0);
    }
  }
}

TEST_CASE("the invariant holds for sliding windows too") {
  for (const std::string& device : DeviceKindNames()) {
    CAPTURE(device);
    FixtureOptions options = Options(device);
    options.architecture = "gemma3";
    const std::vector<EngineRequest> requests = Requests(259);
    std::vector<EngineResult> expected;
    {
      EngineFixture alone(options);
      for (const EngineRequest& request : requests) expected.push_back(alone.Run(request));
    }
    options.engine.max_batch_rows = 33;
    options.engine.max_running = 8;
    options.engine.kv_pages = 12;
    options.engine.reserve_tokens = 1;
    EngineFixture fixture(options);
    CHECK(RunTogether(&fixture, requests, 0, expected).preemptions > 0);
  }
}

}  // namespace mnemo::worker
