#include "server/frontend/attention_check.h"

#include <catch2/catch.hpp>
#include <functional>

#include "server/memory/methods/method.h"

namespace mnemo::frontend {
namespace {

using Catch::Matchers::Contains;

constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;

constexpr auto kDense = v1::ATTENTION_METHOD_DENSE;
constexpr auto kPageBound = v1::ATTENTION_METHOD_PAGE_BOUND;
constexpr auto kBlockMean = v1::ATTENTION_METHOD_BLOCK_MEAN;
constexpr auto kTokenTopk = v1::ATTENTION_METHOD_TOKEN_TOPK;
constexpr auto kCascade = v1::ATTENTION_METHOD_CASCADE;

v1::GenerateRequest With(v1::AttentionMethod method) {
  v1::GenerateRequest request;
  request.mutable_attention()->set_method(method);
  return request;
}

absl::StatusOr<internal::v1::Submit> Fill(const v1::GenerateRequest& request,
                                          const AttentionServing& serving = {}) {
  internal::v1::Submit submit;
  MNEMO_RETURN_IF_ERROR(FillAttention(request, serving, &submit));
  return submit;
}

// A model with an index for its heads.
model::ModelConfig Model() {
  model::ModelConfig model;
  model.layers = 4;
  model.layer_is_windowed.assign(4, false);
  model.head_dim = 64;
  return model;
}

struct Case {
  const char* name;
  v1::AttentionMethod method;
  std::function<void(v1::Attention*)> change;
  absl::StatusCode code;
  std::string names;  // what the message must contain
};

// Each bound: the last value inside and the first outside.
const std::vector<Case>& BoundCases() {
  static const std::vector<Case> cases = {
      {"keep_first 0", kTokenTopk, [](auto* a) { a->set_keep_first(0); }, kOk, ""},
      {"keep_first -1", kTokenTopk, [](auto* a) { a->set_keep_first(-1); }, kInvalid,
       "attention.keep_first: -1 is out of range; allowed: [0, 1024]"},
      {"keep_first 1024", kPageBound, [](auto* a) { a->set_keep_first(1024); }, kOk, ""},
      {"keep_first 1025", kPageBound, [](auto* a) { a->set_keep_first(1025); }, kInvalid, "[0, 1024]"},
      {"keep_last 4096", kTokenTopk, [](auto* a) { a->set_keep_last(4096); }, kOk, ""},
      {"keep_last 4097", kTokenTopk, [](auto* a) { a->set_keep_last(4097); }, kInvalid,
       "attention.keep_last: 4097 is out of range; allowed: [0, 4096]"},
      {"keep_last -1", kTokenTopk, [](auto* a) { a->set_keep_last(-1); }, kInvalid, "attention.keep_last"},
      {"reuse 1", kBlockMean, [](auto* a) { a->set_reuse_interval(1); }, kOk, ""},
      {"reuse 0", kBlockMean, [](auto* a) { a->set_reuse_interval(0); }, kInvalid,
       "attention.reuse_interval: 0 is out of range; allowed: [1, 64]"},
      {"reuse 64", kBlockMean, [](auto* a) { a->set_reuse_interval(64); }, kOk, ""},
      {"reuse 65", kBlockMean, [](auto* a) { a->set_reuse_interval(65); }, kInvalid, "reuse_interval"},
      {"budget least", kTokenTopk, [](auto* a) { a->set_token_budget(68); }, kOk, ""},
      {"budget below", kTokenTopk, [](auto* a) { a->set_token_budget(67); }, kInvalid,
       "attention.token_budget: 67 is out of range; allowed: [68, 2147483647], at least keep_first + "
       "keep_last + 64"},
      {"budget for what is kept", kTokenTopk,
       [](auto* a) { a->set_keep_first(10), a->set_keep_last(20), a->set_token_budget(94); }, kOk, ""},
      {"budget below what is kept", kTokenTopk,
       [](auto* a) { a->set_keep_first(10), a->set_keep_last(20), a->set_token_budget(93); }, kInvalid,
       "[94, "},
      {"negative budget", kCascade, [](auto* a) { a->set_token_budget(-1); }, kInvalid,
       "token_budget: -1 is out of range; allowed: [68, 2147483647]"},
      {"first stage", kCascade, [](auto* a) { a->set_token_budget(512), a->set_first_stage_tokens(512); },
       kOk, ""},
      {"first stage below", kCascade,
       [](auto* a) { a->set_token_budget(512), a->set_first_stage_tokens(511); }, kInvalid,
       "attention.first_stage_tokens: 511 is out of range; allowed: [512, 2147483647], at least"},
      {"bits 4", kTokenTopk, [](auto* a) { a->set_key_bits(4); }, kOk, ""},
      {"bits 8", kTokenTopk, [](auto* a) { a->set_key_bits(8); }, kOk, ""},
      {"bits 3", kTokenTopk, [](auto* a) { a->set_key_bits(3); }, kInvalid,
       "attention.key_bits: 3 is out of range; allowed: 2, 4 or 8"},
      {"bits 0", kCascade, [](auto* a) { a->set_key_bits(0); }, kInvalid, "attention.key_bits"},
      {"cascade 2", kCascade, [](auto* a) { a->set_key_bits(2); }, kOk, ""},
      {"cascade 4", kCascade, [](auto* a) { a->set_key_bits(4); }, kInvalid,
       "attention.key_bits: 4 is out of range with ATTENTION_METHOD_CASCADE; allowed: 2, as its first stage "
       "reads the plane of signs"},
      {"cascade 8", kCascade, [](auto* a) { a->set_key_bits(8); }, kInvalid, "attention.key_bits: 8"},
      {"inline", kTokenTopk, [](auto* a) { a->set_placement(v1::PLACEMENT_WORKER); }, kOk, ""},
      {"placement 3", kTokenTopk, [](auto* a) { a->set_placement(static_cast<v1::Placement>(3)); }, kInvalid,
       "attention.placement: 3"},
      {"no service", kTokenTopk, [](auto* a) { a->set_placement(v1::PLACEMENT_MEMORY_SERVICE); }, kFailed,
       "attention.placement"},
  };
  return cases;
}

// Fields that a method does not use may be there, within their ranges; a threshold may not.
const std::vector<Case>& UnusedCases() {
  static const std::vector<Case> cases = {
      {"threshold", kTokenTopk, [](auto* a) { a->set_threshold(0.5f); }, kInvalid, "attention.threshold"},
      {"threshold", kBlockMean, [](auto* a) { a->set_threshold(0.5f); }, kInvalid, "attention.threshold"},
      {"threshold", kDense, [](auto* a) { a->set_threshold(0.5f); }, kInvalid, "attention.threshold"},
      {"key_bits", kPageBound, [](auto* a) { a->set_key_bits(2); }, kOk, ""},
      {"key_bits", kBlockMean, [](auto* a) { a->set_key_bits(3); }, kInvalid, "attention.key_bits"},
      {"key_bits", kDense, [](auto* a) { a->set_key_bits(5); }, kInvalid, "attention.key_bits"},
      {"stage", kTokenTopk, [](auto* a) { a->set_first_stage_tokens(4096); }, kOk, ""},
      {"stage", kPageBound, [](auto* a) { a->set_first_stage_tokens(0); }, kInvalid, "first_stage_tokens"},
      {"budget", kDense, [](auto* a) { a->set_token_budget(512); }, kOk, ""},
      {"budget", kDense, [](auto* a) { a->set_token_budget(-1); }, kInvalid, "attention.token_budget"},
      {"keep_first", kDense, [](auto* a) { a->set_keep_first(4); }, kOk, ""},
      {"keep_first", kDense, [](auto* a) { a->set_keep_first(1025); }, kInvalid, "attention.keep_first"},
      {"keep_last", kDense, [](auto* a) { a->set_keep_last(4097); }, kInvalid, "attention.keep_last"},
      {"reuse", kDense, [](auto* a) { a->set_reuse_interval(65); }, kInvalid, "attention.reuse_interval"},
      {"placement", kDense, [](auto* a) { a->set_placement(v1::PLACEMENT_WORKER); }, kOk, ""},
      {"placement -1 of dense", kDense, [](auto* a) { a->set_placement(static_cast<v1::Placement>(-1)); },
       kInvalid, "attention.placement: -1"},
  };
  return cases;
}

void CheckAll(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    CAPTURE(c.name, v1::AttentionMethod_Name(c.method));
    v1::GenerateRequest request = With(c.method);
    c.change(request.mutable_attention());
    const auto filled = Fill(request);
    CHECK(filled.status().code() == c.code);
    CHECK_THAT(std::string(filled.status().message()), Contains(c.names));
  }
}

}  // namespace

TEST_CASE("attention: every bound, from both sides") { CheckAll(BoundCases()); }

TEST_CASE("attention: a field that the method does not use has its range checked") {
  CheckAll(UnusedCases());
}

TEST_CASE("attention: the table of methods and the protocol know the same names and numbers") {
  const auto* const values = v1::AttentionMethod_descriptor();
  CHECK(static_cast<size_t>(values->value_count()) == memory::methods::AllNames().size() + 1);  // UNSPECIFIED
  for (const std::string_view name : memory::methods::AllNames()) {
    CAPTURE(name);
    const auto id = *memory::methods::MethodNamed(name);
    CHECK(v1::AttentionMethod_Name(static_cast<v1::AttentionMethod>(id)) ==
          memory::methods::ProtocolName(id));
  }
  CHECK(static_cast<int>(memory::AttentionSettings::Placement::kMemoryService) == v1::Placement_MAX);
}

TEST_CASE("attention: methods that need weights say which, unknown numbers are refused") {
  for (const auto& [method, code, words] : std::vector<std::tuple<int, absl::StatusCode, std::string>>{
           {v1::ATTENTION_METHOD_BLOCK_GATE, kUnimplemented, "weights of a trained gate"},
           {v1::ATTENTION_METHOD_TOKEN_INDEXER, kUnimplemented, "weights of a trained indexer"},
           {99, kInvalid, "99 is no known method"},
           {-1, kInvalid, "-1 is no known method"}}) {
    const auto filled = Fill(With(static_cast<v1::AttentionMethod>(method)));
    CHECK(filled.status().code() == code);
    CHECK_THAT(std::string(filled.status().message()), Contains("attention.method: ") && Contains(words));
  }
}

TEST_CASE("attention: what the request leaves out comes from the configuration") {
  AttentionServing serving;
  serving.has_memory_service = true;
  SECTION("dense attention has no settings") {
    CHECK_FALSE(Fill({}, serving)->has_attention());
    CHECK_FALSE(Fill(With(kDense), serving)->has_attention());
  }
  SECTION("no method named") {
    v1::GenerateRequest request;
    request.mutable_attention()->set_placement(v1::PLACEMENT_MEMORY_SERVICE);
    const internal::v1::Attention made = Fill(request, serving)->attention();
    CHECK(made.method() == kTokenTopk);
    CHECK(made.token_budget() == 1024);
    CHECK(made.keep_first() == 4);
    CHECK(made.keep_last() == 0);
    CHECK(made.reuse_interval() == 1);
    CHECK(made.key_bits() == 2);
    CHECK(made.first_stage_tokens() == 0);
    CHECK(made.placement() == v1::PLACEMENT_MEMORY_SERVICE);
  }
  SECTION("another configuration") {
    serving.defaults = {.default_method = "page_bound",
                        .sparse_method = "cascade",
                        .token_budget = 300,
                        .keep_first = 0,
                        .keep_last = 7,
                        .reuse_interval = 3,
                        .first_stage_tokens = 800,
                        .key_bits = 8};
    CHECK(Fill({}, serving)->attention().method() == kPageBound);
    v1::GenerateRequest request;
    request.mutable_attention();
    internal::v1::Attention made = Fill(request, serving)->attention();
    CHECK(made.method() == kCascade);
    CHECK(made.token_budget() == 300);
    CHECK(made.keep_first() == 0);
    CHECK(made.keep_last() == 7);
    CHECK(made.reuse_interval() == 3);
    CHECK(made.first_stage_tokens() == 800);
    CHECK(made.key_bits() == 2);  // what cascade reads
    CHECK(Fill(With(kTokenTopk), serving)->attention().key_bits() == 8);
    request.mutable_attention()->set_token_budget(900);  // above the configured first stage
    CHECK(Fill(request, serving)->attention().first_stage_tokens() == 900);
  }
  SECTION("the first stage follows the budget") {
    v1::GenerateRequest request = With(kCascade);
    request.mutable_attention()->set_token_budget(500);
    CHECK(Fill(request, serving)->attention().first_stage_tokens() == 2000);
    request.mutable_attention()->set_token_budget(2'000'000'000);
    CHECK(Fill(request, serving)->attention().first_stage_tokens() == 2147483647);
  }
  SECTION("the budget gives way to what is to be kept") {
    v1::GenerateRequest request = With(kTokenTopk);
    request.mutable_attention()->set_keep_last(4096);
    CHECK(Fill(request, serving)->attention().token_budget() == 4096 + 4 + 64);
  }
}

TEST_CASE("attention: a model that no index can be made of takes dense attention alone, and says why") {
  model::ModelConfig model = Model();
  const config::Config config;
  CHECK(MakeAttentionServing(config, model).why_dense_only.empty());
  std::string words;
  SECTION("no power of two") { model.head_dim = 80, words = "80 dimensions"; }
  SECTION("too small") { model.head_dim = 8, words = "8 dimensions"; }
  SECTION("too large") { model.head_dim = 1024, words = "1024 dimensions"; }
  SECTION("no layer left") {
    model.layer_is_windowed = {true, false, true, false}, words = "dense_layers, 2";
  }
  AttentionServing serving = MakeAttentionServing(config, model);
  const auto filled = Fill(With(kTokenTopk), serving);
  CHECK(filled.status().code() == kUnimplemented);
  CHECK_THAT(std::string(filled.status().message()), Contains("attention.method") && Contains(words));
  CHECK(Fill(With(kDense), serving).ok());
  CHECK(CheckDefaultMethod(serving).ok());
  serving.defaults.default_method = "token_topk";
  CHECK(CheckDefaultMethod(serving).code() == kInvalid);
}

}  // namespace mnemo::frontend
