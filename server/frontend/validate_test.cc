#include "server/frontend/validate.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "server/frontend/status_text.h"
#include "server/frontend/testing/tiny_served_model.h"
#include "server/model/text_stream.h"

namespace mnemo::frontend {
namespace {

using Catch::Matchers::Contains;
using v1::GenerateRequest;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kContext = 1024;

const ServedModel& Model() {
  static const auto* model = testing::LoadTiny().release();
  return *model;
}

GenerateRequest Prompt(const std::string& text = "hello") {
  GenerateRequest request;
  request.set_prompt(text);
  return request;
}

absl::StatusOr<Submission> Check(const GenerateRequest& request, int limit = 0) {
  return Validate(request, Model(), {}, limit, {.seed = 99, .request_id = "drawn"});
}

struct Case {
  std::string name;
  std::function<void(GenerateRequest*)> change;
  absl::StatusCode code;  // kOk: accepted
  std::string names;      // what the message must contain
};

v1::Sampling* S(GenerateRequest* request) { return request->mutable_sampling(); }
v1::Output* O(GenerateRequest* request) { return request->mutable_output(); }
v1::Attention* A(GenerateRequest* request) { return request->mutable_attention(); }

constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// Each bound: the last value inside and the first outside, or what comes nearest.
const std::vector<Case>& FloatCases() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> made;
    const auto add = [&made](const std::string& field, void (v1::Sampling::*set)(float), float value,
                             absl::StatusCode code) {
      made.push_back({fmt::format("{} = {}", field, value),
                      [set, value](GenerateRequest* r) { (S(r)->*set)(value); }, code, field});
    };
    const auto range = [&](const std::string& field, void (v1::Sampling::*set)(float), float low, float high,
                           bool low_is_open) {
      add(field, set, low, low_is_open ? kInvalid : kOk);
      add(field, set, std::nextafter(low, -kInfinity), kInvalid);
      add(field, set, std::nextafter(low, kInfinity), kOk);
      add(field, set, high, kOk);
      add(field, set, std::nextafter(high, kInfinity), kInvalid);
      for (const float bad : {kNan, kInfinity, -kInfinity}) add(field, set, bad, kInvalid);
    };
    range("temperature", &v1::Sampling::set_temperature, 0, 5, false);
    range("top_p", &v1::Sampling::set_top_p, 0, 1, true);
    range("min_p", &v1::Sampling::set_min_p, 0, 1, false);
    range("repetition_penalty", &v1::Sampling::set_repetition_penalty, 0, 10, true);
    range("presence_penalty", &v1::Sampling::set_presence_penalty, -2, 2, false);
    range("frequency_penalty", &v1::Sampling::set_frequency_penalty, -2, 2, false);
    return made;
  }();
  return cases;
}

void Bias(GenerateRequest* request, int32_t id, float value) {
  (*S(request)->mutable_logit_bias())[id] = value;
}

void Stops(GenerateRequest* request, int count, size_t bytes) {
  for (int i = 0; i < count; ++i) S(request)->add_stop(std::string(bytes, 's'));
}

const std::vector<Case>& SamplingCases() {
  static const std::vector<Case> cases = {
      {"top_k -1", [](auto* r) { S(r)->set_top_k(-1); }, kInvalid, "top_k"},
      {"top_k 0", [](auto* r) { S(r)->set_top_k(0); }, kOk, ""},
      {"max_tokens -1", [](auto* r) { S(r)->set_max_tokens(-1); }, kInvalid, "max_tokens"},
      {"max_tokens 0", [](auto* r) { S(r)->set_max_tokens(0); }, kOk, ""},
      {"max_tokens all", [](auto* r) { S(r)->set_max_tokens(kContext - 5); }, kOk, ""},
      {"max_tokens past", [](auto* r) { S(r)->set_max_tokens(kContext - 4); }, kInvalid, "context"},
      {"16 stops", [](auto* r) { Stops(r, 16, 256); }, kOk, ""},
      {"17 stops", [](auto* r) { Stops(r, 17, 1); }, kInvalid, "stop: 17 strings; at most 16"},
      {"empty stop", [](auto* r) { Stops(r, 1, 0); }, kInvalid, "stop[0]"},
      {"long stop", [](auto* r) { Stops(r, 1, 257); }, kInvalid, "[1, 256]"},
      {"stop id", [](auto* r) { S(r)->add_stop_token_ids(258); }, kOk, ""},
      {"stop id past", [](auto* r) { S(r)->add_stop_token_ids(259); }, kInvalid, "stop_token_ids[0]"},
      {"stop id -1", [](auto* r) { S(r)->add_stop_token_ids(-1); }, kInvalid, "stop_token_ids"},
      {"bias", [](auto* r) { Bias(r, 0, -100); }, kOk, ""},
      {"bias past", [](auto* r) { Bias(r, 0, 100.01f); }, kInvalid, "logit_bias[0]"},
      {"bias NaN", [](auto* r) { Bias(r, 0, kNan); }, kInvalid, "logit_bias"},
      {"bias id past", [](auto* r) { Bias(r, 259, 1); }, kInvalid, "logit_bias"},
      {"bias id -1", [](auto* r) { Bias(r, -1, 1); }, kInvalid, "logit_bias"},
      {"1,025 biases",
       [](auto* r) {
         for (int i = 0; i < 1025; ++i) Bias(r, i, 1);
       },
       kInvalid, "at most 1024"},
      {"json_schema", [](auto* r) { S(r)->set_json_schema("{}"); }, kUnimplemented, "json_schema"},
      {"regex", [](auto* r) { S(r)->set_regex("a"); }, kUnimplemented, "regex"},
      {"grammar", [](auto* r) { S(r)->set_grammar(""); }, kUnimplemented, "grammar"},
  };
  return cases;
}

const std::vector<Case>& OutputCases() {
  static const std::vector<Case> cases = {
      {"logprobs 0", [](auto* r) { O(r)->set_logprobs(0); }, kOk, ""},
      {"logprobs 20", [](auto* r) { O(r)->set_logprobs(20); }, kOk, ""},
      {"logprobs 21", [](auto* r) { O(r)->set_logprobs(21); }, kInvalid, "output.logprobs"},
      {"logprobs -1", [](auto* r) { O(r)->set_logprobs(-1); }, kInvalid, "output.logprobs"},
      {"prompt_logprobs 21", [](auto* r) { O(r)->set_prompt_logprobs(21); }, kInvalid, "prompt_logprobs"},
      {"from -1", [](auto* r) { O(r)->set_prompt_logprobs_from(-1); }, kInvalid, "prompt_logprobs_from"},
      {"from last",
       [](auto* r) {
         O(r)->set_prompt_logprobs(1);
         O(r)->set_prompt_logprobs_from(4);
       },
       kOk, ""},
      {"from past",
       [](auto* r) {
         O(r)->set_prompt_logprobs(1);
         O(r)->set_prompt_logprobs_from(5);
       },
       kInvalid, "prompt_logprobs_from"},
      {"decode_from 0", [](auto* r) { O(r)->set_decode_from(0); }, kInvalid, "decode_from"},
      {"decode_from 5", [](auto* r) { O(r)->set_decode_from(5); }, kOk, ""},
      {"decode_from 6", [](auto* r) { O(r)->set_decode_from(6); }, kInvalid, "[1, 5]"},
  };
  return cases;
}

const std::vector<Case>& FeatureCases() {
  static const std::vector<Case> cases = {
      {"dense", [](auto* r) { A(r)->set_method(v1::ATTENTION_METHOD_DENSE); }, kOk, ""},
      {"empty attention", [](auto* r) { A(r); }, kOk, ""},
      {"token_topk", [](auto* r) { A(r)->set_method(v1::ATTENTION_METHOD_TOKEN_TOPK); }, kOk, ""},
      {"indexer", [](auto* r) { A(r)->set_method(v1::ATTENTION_METHOD_TOKEN_INDEXER); }, kUnimplemented,
       "attention.method"},
      {"budget", [](auto* r) { A(r)->set_token_budget(67); }, kInvalid, "attention.token_budget"},
      {"retrieval", [](auto* r) { r->mutable_retrieval(); }, kUnimplemented, "retrieval"},
      {"context_memory", [](auto* r) { r->mutable_context_memory(); }, kUnimplemented, "context_memory"},
  };
  return cases;
}

const std::vector<Case>& InputCases() {
  static const std::vector<Case> cases = {
      {"none", [](auto* r) { r->clear_prompt(); }, kInvalid, "input"},
      {"empty prompt", [](auto* r) { r->set_prompt(""); }, kInvalid, "prompt"},
      {"whole context", [](auto* r) { r->set_prompt(std::string(kContext, 'x')); }, kOk, ""},
      {"past the context", [](auto* r) { r->set_prompt(std::string(kContext + 1, 'x')); }, kInvalid,
       "context"},
      {"megabytes", [](auto* r) { r->set_prompt(std::string(8 << 20, 'x')); }, kInvalid,
       "cannot fit the context"},
      {"ids", [](auto* r) { r->mutable_token_ids()->add_ids(258); }, kOk, ""},
      {"empty ids", [](auto* r) { r->mutable_token_ids(); }, kInvalid, "token_ids"},
      {"id past", [](auto* r) { r->mutable_token_ids()->add_ids(259); }, kInvalid, "token_ids.ids[0]"},
      {"id -1", [](auto* r) { r->mutable_token_ids()->add_ids(-1); }, kInvalid, "token_ids"},
      {"add_special with ids",
       [](auto* r) {
         r->mutable_token_ids()->add_ids(1);
         r->set_add_special(false);
       },
       kInvalid, "add_special"},
      {"parse_special with ids",
       [](auto* r) {
         r->mutable_token_ids()->add_ids(1);
         r->set_parse_special(true);
       },
       kInvalid, "parse_special"},
      {"model", [](auto* r) { r->set_model("no such"); }, absl::StatusCode::kNotFound, "'no such'"},
      {"session", [](auto* r) { r->set_session_id("aZ09._-"); }, kOk, ""},
      {"long session", [](auto* r) { r->set_session_id(std::string(65, 'a')); }, kInvalid, "session_id"},
      {"blank session", [](auto* r) { r->set_session_id("a b"); }, kInvalid, "session_id"},
      {"request id", [](auto* r) { r->set_request_id(std::string(128, '~')); }, kOk, ""},
      {"long request id", [](auto* r) { r->set_request_id(std::string(129, 'a')); }, kInvalid, "128"},
      {"request id with DEL", [](auto* r) { r->set_request_id("\x7f"); }, kInvalid, "request_id"},
      {"request id with UTF-8", [](auto* r) { r->set_request_id("\xc3\xa9"); }, kInvalid, "request_id"},
  };
  return cases;
}

void RunCases(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    INFO(c.name);
    GenerateRequest request = Prompt();
    c.change(&request);
    const auto valid = Check(request);
    CHECK(valid.status().code() == c.code);
    CHECK_THAT(std::string(valid.status().message()), Contains(c.names));
  }
}

TEST_CASE("every bound of a request is checked and named") {
  for (const Case& c : FloatCases()) {
    INFO(c.name);
    GenerateRequest request = Prompt();
    c.change(&request);
    const auto valid = Check(request);
    CHECK(valid.status().code() == c.code);
    if (c.code != kOk) CHECK_THAT(std::string(valid.status().message()), Contains(c.names));
  }
  RunCases(SamplingCases());
  RunCases(OutputCases());
  RunCases(FeatureCases());
  RunCases(InputCases());
}

TEST_CASE("defaults are those of generation.proto") {
  const auto valid = Check(Prompt("abc"));
  REQUIRE(valid.ok());
  const internal::v1::Submit& submit = valid->submit;
  CHECK(submit.sampling().temperature() == 1.0f);
  CHECK(submit.sampling().top_k() == 0);
  CHECK(submit.sampling().top_p() == 1.0f);
  CHECK(submit.sampling().min_p() == 0.0f);
  CHECK(submit.sampling().repetition_penalty() == 1.0f);
  CHECK(submit.sampling().presence_penalty() == 0.0f);
  CHECK(submit.sampling().frequency_penalty() == 0.0f);
  CHECK(submit.sampling().seed() == 99);
  CHECK(submit.request_id() == "drawn");
  CHECK(submit.max_tokens() == kContext - 3);
  CHECK(submit.lower_to_pool());
  CHECK(submit.logprobs() == -1);
  CHECK(submit.prompt_logprobs() == -1);
  CHECK(submit.decode_from() == 0);
  CHECK(std::vector<int32_t>(submit.prompt().begin(), submit.prompt().end()) == testing::Ids("abc"));
  CHECK(std::count(submit.end_ids().begin(), submit.end_ids().end(), testing::kEndId) == 1);
  CHECK_FALSE(valid->text.include_special_tokens);
  // Until mnemod has seen a token it cannot know that a stop string ends there.
  CHECK_FALSE(submit.at_once());
  GenerateRequest with_stop = Prompt("abc");
  S(&with_stop)->add_stop("b");
  CHECK(Check(with_stop)->submit.at_once());
}

TEST_CASE("what a request brings is taken over") {
  GenerateRequest request = Prompt("abc");
  request.set_request_id("mine");
  request.set_session_id("s1");
  request.set_priority(-3);
  S(&request)->set_seed(0);
  S(&request)->set_temperature(0);
  S(&request)->set_ignore_eos(true);
  for (const int id : {7, 5, 7}) S(&request)->add_stop_token_ids(id);
  Bias(&request, 9, 1.5f);
  Bias(&request, 3, -2.5f);
  const auto valid = Check(request);
  REQUIRE(valid.ok());
  const internal::v1::Submit& submit = valid->submit;
  CHECK(submit.request_id() == "mine");
  CHECK(submit.session_id() == "s1");
  CHECK(submit.priority() == -3);
  CHECK(submit.sampling().seed() == 0);
  CHECK(submit.sampling().temperature() == 0.0f);
  CHECK(std::vector<int32_t>(submit.end_ids().begin(), submit.end_ids().end()) == std::vector<int32_t>{5, 7});
  CHECK(valid->text.stop_token_ids == std::vector<int32_t>{5, 7});
  CHECK(std::vector<int32_t>(submit.bias_ids().begin(), submit.bias_ids().end()) ==
        std::vector<int32_t>{3, 9});
  CHECK(submit.bias_values(0) == -2.5f);
}

TEST_CASE("the server's limit bounds max_tokens and is its default") {
  CHECK(Check(Prompt(), 10)->submit.max_tokens() == 10);
  CHECK(Check(Prompt(), 10)->submit.lower_to_pool());
  GenerateRequest request = Prompt();
  S(&request)->set_max_tokens(10);
  CHECK_FALSE(Check(request, 10)->submit.lower_to_pool());
  S(&request)->set_max_tokens(11);
  const auto valid = Check(request, 10);
  CHECK(valid.status().code() == kInvalid);
  CHECK_THAT(std::string(valid.status().message()), Contains("limits.max_tokens"));
}

TEST_CASE("control-token text is text unless parse_special") {
  GenerateRequest request = Prompt("<|im_end|>");
  CHECK(Check(request)->submit.prompt_size() == 10);
  request.set_parse_special(true);
  REQUIRE(Check(request)->submit.prompt_size() == 1);
  CHECK(Check(request)->submit.prompt(0) == testing::kEndId);
}

TEST_CASE("chats are rendered and their fields checked") {
  GenerateRequest request;
  v1::Chat* chat = request.mutable_chat();
  CHECK_THAT(std::string(Check(request).status().message()), Contains("messages"));
  v1::Chat::Message* message = chat->add_messages();
  CHECK_THAT(std::string(Check(request).status().message()), Contains("messages[0].role"));
  message->set_role("user");
  message->set_content("a<|im_end|>b");
  const auto valid = Check(request);
  REQUIRE(valid.ok());
  const auto& ids = valid->submit.prompt();
  // The turn ends once: the text in the message cannot end it.
  CHECK(std::count(ids.begin(), ids.end(), testing::kEndId) == [&] {
    message->set_content("ab");
    const auto plain = Check(request);
    return std::count(plain->submit.prompt().begin(), plain->submit.prompt().end(), testing::kEndId);
  }());
  for (const auto& [name, change] : std::vector<std::pair<std::string, std::function<void()>>>{
           {"chat.tools_json: ", [&] { chat->set_tools_json("{}"); }},
           {"chat.tools_json[0]: ", [&] { chat->set_tools_json("[\"a\"]"); }},
           {"chat.messages[0].tool_calls_json: ", [&] { message->set_tool_calls_json("[{]"); }},
           {"chat.template_args[\"messages\"]: ",
            [&] { (*chat->mutable_template_args())["messages"] = "[]"; }}}) {
    const GenerateRequest saved = request;
    change();
    CHECK(Check(request).status().code() == kInvalid);
    CHECK_THAT(std::string(Check(request).status().message()), Catch::Matchers::StartsWith(name));
    request = saved;
    chat = request.mutable_chat();
    message = chat->mutable_messages(0);
  }
  // A role is the template's business; a tool's answer has its fields.
  message->set_role("tool");
  message->set_tool_call_id("1");
  CHECK(Check(request).ok());
}

TEST_CASE("a message's name renders as the models' templates render it: not at all") {
  GenerateRequest request;
  v1::Chat::Message* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("a");
  const auto without = Check(request);
  REQUIRE(without.ok());
  message->set_name("Ada");
  const auto with = Check(request);
  REQUIRE(with.ok());
  CHECK(std::ranges::equal(without->submit.prompt(), with->submit.prompt()));
}

TEST_CASE("a chat of a great many short messages counts as a long text, and is refused unrendered") {
  GenerateRequest request;
  for (int i = 0; i <= Model().context_tokens; ++i) request.mutable_chat()->add_messages()->set_role("user");
  CHECK(TextBytes(request) > size_t{4} * static_cast<size_t>(Model().context_tokens));
  CHECK_THAT(std::string(Check(request).status().message()),
             Contains("chat.messages: ") && Contains("cannot fit the context"));
}

TEST_CASE("add_special and parse_special do not go with a chat") {
  v1::TokenizeRequest request;
  v1::Chat::Message* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("a");
  CHECK(EncodeForTokenize(request, Model()).ok());
  request.set_add_special(true);
  CHECK_THAT(std::string(EncodeForTokenize(request, Model()).status().message()), Contains("add_special"));
  request.set_add_special(false);
  request.set_parse_special(true);
  CHECK_THAT(std::string(EncodeForTokenize(request, Model()).status().message()), Contains("parse_special"));
}

TEST_CASE("features leave out what is refused") {
  const std::vector<std::string> features = Features(Model(), false);
  for (const char* name : {"chat", "omit_generation_prompt", "continue_final_message", "template_args",
                           "name", "tool_call_id", "tool_calls_json", "tools_json"}) {
    CHECK(std::find(features.begin(), features.end(), name) != features.end());
  }
  for (const char* refused : {"attention", "retrieval", "context_memory", "constraint"}) {
    CHECK(std::find(features.begin(), features.end(), refused) == features.end());
  }
  const std::vector<std::string> more = Features(Model(), true);
  CHECK(std::is_sorted(more.begin(), more.end()));
  for (const char* name : {"attention", "token_budget", "placement"}) {
    CHECK(std::find(more.begin(), more.end(), name) != more.end());
  }
}

TEST_CASE("status messages are valid UTF-8 and bounded") {
  CHECK(model::IsValidUtf8(StatusMessage(absl::InvalidArgumentError("a\xff\xfe z"))));
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "\xc3\xa9";
  const std::string cut = StatusMessage(absl::InternalError("x" + text));
  CHECK(cut.size() <= kMaxStatusMessageBytes);
  CHECK(model::IsValidUtf8(cut));
  CHECK(Quoted("a\nb") == "'a?b'");
  CHECK(Quoted(std::string(1000, 'a')).size() < 80);
}

TEST_CASE("configured names and end tokens") {
  config::Config::Model settings;
  settings.name = "mine";
  settings.end_token_ids = {65};
  settings.context_tokens = 128;
  const auto model = testing::LoadTiny(settings);
  CHECK(model->name == "mine");
  CHECK(model->end_ids == std::vector<int32_t>{65});
  CHECK(model->context_tokens == 128);
  const auto valid = Validate(Prompt(std::string(129, 'x')), *model, {}, 0, {});
  CHECK_THAT(std::string(valid.status().message()), Contains("128"));
}

}  // namespace
}  // namespace mnemo::frontend
