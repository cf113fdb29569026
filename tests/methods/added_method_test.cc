// A method that this file alone describes: configuration, command line, front end and worker know it.
#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>

#include "client/cli/request_options.h"
#include "config/config.h"
#include "server/frontend/attention_check.h"
#include "server/memory/methods/method.h"
#include "server/worker/engine_fixture.h"

namespace mnemo::testing {
namespace {

using Catch::Matchers::Contains;
using memory::methods::AttentionSettings;
using memory::methods::Method;

constexpr auto kNumber = static_cast<AttentionSettings::Method>(90);

// Tokens in two stages, of which the first one keeps half as much again as the budget.
const Method kHalfAgain = {
    .id = kNumber,
    .name = "half_again",
    .key_bits = memory::methods::KeyBits::kFixed,
    .two_stages = true,
    .steps =
        [](const AttentionSettings& settings, const memory::methods::MethodOptions&) {
          memory::methods::MethodSteps steps;
          steps.retrieval.first_stage_tokens = settings.first_stage_tokens;
          return steps;
        },
    .fill =
        [](const memory::methods::GivenSettings& given, const memory::methods::SettingsDefaults&,
           AttentionSettings* settings) {
          settings->first_stage_tokens = given.first_stage_tokens.value_or(settings->token_budget * 3 / 2);
        },
    .check =
        [](const AttentionSettings& settings) {
          if (settings.token_budget % 2 == 0) return absl::OkStatus();
          return InvalidArgument("attention.token_budget: {} is odd", settings.token_budget);
        }};
// The table of settings is made once, so that the method is known from before main.
const memory::methods::AddedMethod kAdded(&kHalfAgain);

TEST_CASE("the configuration takes the method's name and documents it") {
  for (const config::KeyDoc& doc : config::Schema()) {
    if (doc.key == "attention.default_method" || doc.key == "attention.sparse_method")
      CHECK_THAT(doc.allowed, Contains("half_again"));
    if (doc.key == "attention.first_stage_tokens") CHECK_THAT(doc.text, Contains("cascade and half_again"));
  }
  config::LoadOptions options;
  options.overrides = {{"attention.default_method", "half_again"}};
  const auto config = config::Load(options);
  REQUIRE(config.status().ToString() == "OK");
  CHECK(config->attention.default_method == "half_again");
}

TEST_CASE("the command line takes the method's name and sends its number") {
  CLI::App app;
  cli::RequestOptions options;
  cli::AddRequestOptions(&app, &options, {});
  CHECK_THAT(app.help(), Contains("token_topk, cascade or half_again"));
  app.parse("--attention half_again");
  v1::GenerateRequest request;
  client::CallOptions call;
  REQUIRE(cli::ApplyRequestOptions(options, &request, &call).ok());
  CHECK(static_cast<int>(request.attention().method()) == 90);
}

TEST_CASE("the front end resolves and checks the method as it says itself") {
  v1::GenerateRequest request;
  request.mutable_attention()->set_method(static_cast<v1::AttentionMethod>(90));
  request.mutable_attention()->set_token_budget(400);
  internal::v1::Submit submit;
  REQUIRE(frontend::FillAttention(request, {}, &submit).ok());
  CHECK(submit.attention().method() == 90);
  CHECK(submit.attention().first_stage_tokens() == 600);
  request.mutable_attention()->set_token_budget(401);
  CHECK(frontend::FillAttention(request, {}, &submit).message() == "attention.token_budget: 401 is odd");
  request.mutable_attention()->set_token_budget(400);
  frontend::AttentionServing serving;
  serving.why_dense_only = "it is small";
  CHECK_THAT(std::string(frontend::FillAttention(request, serving, &submit).message()),
             Contains("ATTENTION_METHOD_HALF_AGAIN does not work with the model: it is small"));
}

TEST_CASE("the worker runs the method, checks it and reports its name") {
  worker::FixtureOptions options;
  options.device = "cpu";
  options.engine.kv_pages = 100;
  worker::EngineFixture fixture(options);
  worker::EngineRequest request;
  for (int i = 0; i < 300; ++i) request.prompt.push_back(i * 7 % 256);
  request.max_tokens = 20;
  request.attention = {.method = kNumber, .token_budget = 128, .keep_first = 4, .first_stage_tokens = 192};
  const worker::EngineResult result = fixture.Run(request);
  CHECK(result.tokens.size() == 20);
  REQUIRE_FALSE(result.last.memory_steps.empty());
  for (const memory::MemoryStepStat& step : result.last.memory_steps) CHECK(step.method == "half_again");
  request.attention.token_budget = 127;
  CHECK(fixture.engine().Submit(request).message() == "attention.token_budget: 127 is odd");
}

}  // namespace
}  // namespace mnemo::testing
