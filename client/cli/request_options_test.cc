// The table of a request's options against the protocol, and every command against the table.
#include "client/cli/request_options.h"

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "client/testing/fake_server.h"
#include "client/testing/process.h"
#include "tests/support/temp_folder.h"

namespace mnemo::cli {
namespace {

using client::testing::FakeScript;
using client::testing::FakeServer;
using client::testing::MakeDelta;
using client::testing::MakeFinal;
using client::testing::ProcessResult;
using client::testing::RunProcess;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::json;

// Fields of absent features: the daemon refuses them by name.
const std::set<std::string> kNotYet = {"retrieval", "context_memory", "sampling.json_schema",
                                       "sampling.regex", "sampling.grammar"};

void CollectFields(const Descriptor* type, const std::string& prefix, std::set<std::string>* fields) {
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    const std::string path = prefix + field->name();
    if (kNotYet.count(path) > 0) continue;
    if (field->message_type() != nullptr && !field->is_map()) {
      CollectFields(field->message_type(), path + ".", fields);
    } else {
      fields->insert(path);
    }
  }
}

TEST_CASE("every field of a request has its option, and every option its field") {
  std::set<std::string> fields, in_table;
  CollectFields(v1::GenerateRequest::descriptor(), "", &fields);
  for (const auto& [field, option] : RequestFields()) in_table.insert(field);
  CHECK(in_table == fields);
}

// An option on the command line, and its part of the request in protobuf's text form.
struct Sample {
  std::string option;
  std::string value;  // empty: a flag
  std::string wanted;
};

std::vector<Sample> Samples(const testing::TempFolder& folder) {
  const std::string messages = folder.Write(
      "messages.json", R"([{"role": "assistant", "content": null, "tool_calls": [{"id": "c1"}]},)"
                       R"({"role": "tool", "content": "4", "name": "sum", "tool_call_id": "c1"}])");
  const std::string tools = folder.Write("tools.json", R"([{"type": "function"}])");
  return {{"--parse-special", "", "parse_special: true"},
          {"--add-special", "", "add_special: true"},
          {"--no-add-special", "", "add_special: false"},
          {"--chat", "", "chat {"},
          {"--system", "be brief", R"(role: "system" content: "be brief")"},
          {"--messages", messages,
           R"(tool_calls_json: "[{\"id\":\"c1\"}]" } messages { role: "tool" content: "4" name: "sum" )"
           R"(tool_call_id: "c1")"},
          {"--tools", tools, R"(tools_json: "[{\"type\":\"function\"}]")"},
          {"--template-arg", "thinking=false", R"(template_args { key: "thinking" value: "false" })"},
          {"--omit-generation-prompt", "", "omit_generation_prompt: true"},
          {"--continue-final-message", "", "continue_final_message: true"},
          {"--model", "fake", R"(model: "fake")"},
          {"--session", "s1", R"(session_id: "s1)"},
          {"--request-id", "r1", R"(request_id: "r1)"},
          {"--deadline", "60s", ""},
          {"--priority", "-3", "priority: -3"},
          {"--retry-overload", "1", ""},
          {"--max-tokens", "3", "max_tokens: 3"},
          {"--temperature", "0.5", "temperature: 0.5"},
          {"--top-k", "40", "top_k: 40"},
          {"--top-p", "0.5", "top_p: 0.5"},
          {"--min-p", "0.25", "min_p: 0.25"},
          {"--repetition-penalty", "1.5", "repetition_penalty: 1.5"},
          {"--presence-penalty", "-1", "presence_penalty: -1"},
          {"--frequency-penalty", "2", "frequency_penalty: 2"},
          {"--seed", "7", "seed: 7"},
          {"--stop", "[x]", R"(stop: "[x]")"},
          {"--stop-token-id", "300", "stop_token_ids: 300"},
          {"--ignore-eos", "", "ignore_eos: true"},
          {"--logit-bias", "5=-1.5", "logit_bias { key: 5 value: -1.5 }"},
          {"--logprobs", "2", "logprobs: 2"},
          {"--prompt-logprobs", "0", "prompt_logprobs: 0"},
          {"--prompt-logprobs-from", "3", "prompt_logprobs_from: 3"},
          {"--decode-from", "4", "decode_from: 4"},
          {"--include-special-tokens", "", "include_special_tokens: true"},
          {"--attention", "cascade", "method: ATTENTION_METHOD_CASCADE"},
          {"--budget", "512", "token_budget: 512"},
          {"--threshold", "0.5", "threshold: 0.5"},
          {"--keep-first", "1", "keep_first: 1"},
          {"--keep-last", "2", "keep_last: 2"},
          {"--reuse-interval", "3", "reuse_interval: 3"},
          {"--first-stage-tokens", "900", "first_stage_tokens: 900"},
          {"--key-bits", "4", "key_bits: 4"},
          {"--placement", "memory-service", "placement: PLACEMENT_MEMORY_SERVICE"}};
}

std::string TextOf(const v1::GenerateRequest& request) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(request, &text);
  return text;
}

struct Command {
  std::vector<std::string> arguments;
  std::string input;
  std::set<std::string> refused;  // by name, with a reason
};

// Answers in the way that `profile` needs as well.
FakeScript Script() {
  FakeScript script;
  script.generate = [](grpc::ServerContext*, const v1::GenerateRequest& request, FakeScript::Writer* writer) {
    const int tokens = std::max(request.sampling().max_tokens(), 2);
    for (int i = 0; i < tokens; ++i) writer->Write(MakeDelta(1, "x"));
    v1::GenerateResponse last = MakeFinal(v1::FINISH_REASON_LENGTH, 1, tokens);
    last.mutable_final()->mutable_timing()->mutable_decode()->set_nanos(1000);
    writer->Write(last);
    return grpc::Status::OK;
  };
  return script;
}

TEST_CASE("every command takes every option of a request, or refuses it by name with the reason") {
  testing::TempFolder folder;
  FakeServer server(Script());
  const std::string prompts = folder.Write("prompts", "one\ntwo\n");
  const std::set<std::string> chats = {"--chat",
                                       "--system",
                                       "--messages",
                                       "--tools",
                                       "--template-arg",
                                       "--omit-generation-prompt",
                                       "--continue-final-message"};
  std::set<std::string> of_profile = {"--parse-special",  "--add-special", "--no-add-special",
                                      "--max-tokens",     "--stop",        "--stop-token-id",
                                      "--retry-overload", "--attention",   "--placement"};
  of_profile.insert(chats.begin(), chats.end());
  const std::vector<Command> commands = {
      {{"generate"}, "text", {}},
      {{"chat"},
       "hello\n",
       {"--chat", "--parse-special", "--add-special", "--no-add-special", "--omit-generation-prompt",
        "--continue-final-message", "--logprobs", "--prompt-logprobs", "--prompt-logprobs-from"}},
      {{"bench", "-n", "1", "--prompts", prompts}, "", {"--retry-overload"}},
      {{"profile", "--contexts", "20", "--batches", "1", "--methods", "token_topk", "--placements", "inline",
        "--tokens", "3"},
       "",
       of_profile}};
  for (const Command& command : commands) {
    for (const Sample& sample : Samples(folder)) {
      std::vector<std::string> arguments = {MNEMO_PROGRAM, command.arguments[0], "--address",
                                            server.address()};
      arguments.insert(arguments.end(), command.arguments.begin() + 1, command.arguments.end());
      arguments.push_back(sample.option);
      if (!sample.value.empty()) arguments.push_back(sample.value);
      const size_t before = server.generate_requests().size();
      const ProcessResult result = RunProcess(arguments, command.input);
      INFO(command.arguments[0] << " " << sample.option << ": " << result.err);
      if (command.refused.count(sample.option) > 0) {
        CHECK(result.exit_code == 2);
        CHECK(result.err.find("mnemo: " + sample.option + ": not with this command: ") == 0);
        CHECK(server.generate_requests().size() == before);
        continue;
      }
      CHECK(result.exit_code == 0);
      const std::vector<v1::GenerateRequest> requests = server.generate_requests();
      REQUIRE(requests.size() > before);
      CHECK_THAT(TextOf(requests.back()), Catch::Contains(sample.wanted));
    }
  }
}

TEST_CASE("the samples are of all options of the table") {
  testing::TempFolder folder;
  std::set<std::string> sampled = {"prompt", "--token-ids"};
  for (const Sample& sample : Samples(folder)) sampled.insert(sample.option);
  for (const auto& [field, option] : RequestFields()) CHECK(sampled.count(option) == 1);
}

ProcessResult Bench(const FakeServer& server, std::vector<std::string> arguments) {
  std::vector<std::string> all = {MNEMO_PROGRAM, "bench", "--address", server.address(), "--json"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return RunProcess(all);
}

TEST_CASE("bench: seeds, sessions and names go by requests, and the report names the options") {
  FakeServer server({});
  const ProcessResult result =
      Bench(server, {"-n", "5", "--seed", "100", "--session", "load", "--sessions", "2", "--request-id", "b",
                     "--attention", "token_topk", "--budget", "256", "--stop", "a", "--stop", "b"});
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 5);
  for (size_t i = 0; i < 5; ++i) {
    CHECK(requests[i].sampling().seed() == 100 + i);
    CHECK(requests[i].session_id() == fmt::format("load-{}", i % 2));
    CHECK(requests[i].request_id() == fmt::format("b-{}", i));
    CHECK(requests[i].attention().token_budget() == 256);
  }
  const json options = json::parse(result.out)["run"]["options"];
  CHECK(options["attention"] == "token_topk");
  CHECK(options["budget"] == "256");
  CHECK(options["stop"] == json({"a", "b"}));
  CHECK(options["session"] == "load");
  const ProcessResult table = RunProcess({MNEMO_PROGRAM, "bench", "--address", server.address(), "-n", "1",
                                          "--attention", "cascade", "--key-bits", "4"});
  CHECK(table.out.find("requests with --attention cascade --key-bits 4\n") != std::string::npos);
  CHECK(Bench(server, {"-n", "1", "--sessions", "2"}).exit_code == 2);
  CHECK(Bench(server, {"-n", "1", "--chat"}).exit_code == 2);  // its prompts are token ids
  const ProcessResult plain = Bench(server, {"-n", "1"});
  CHECK(json::parse(plain.out)["run"]["options"].empty());
  CHECK_FALSE(server.generate_requests().back().has_attention());
}

TEST_CASE("bench: prompts of a file may be chats") {
  testing::TempFolder folder;
  FakeServer server({});
  const std::string prompts = folder.Write("prompts",
                                           "hello\n{\"messages\": [{\"role\": \"user\", \"content\": "
                                           "\"hi\"}], \"tools\": [1], \"max_tokens\": 3}\n");
  REQUIRE(Bench(server, {"-n", "2", "--prompts", prompts, "--system", "brief"}).exit_code == 0);
  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 2);
  REQUIRE(requests[0].chat().messages_size() == 2);
  CHECK(requests[0].chat().messages(0).content() == "brief");
  CHECK(requests[0].chat().messages(1).content() == "hello");
  REQUIRE(requests[1].chat().messages_size() == 2);
  CHECK(requests[1].chat().messages(1).content() == "hi");
  CHECK(requests[1].chat().tools_json() == "[1]");
  CHECK(requests[1].sampling().max_tokens() == 3);
}

TEST_CASE("messages and tools that are malformed are refused with file and key") {
  testing::TempFolder folder;
  FakeServer server({});
  const auto generate = [&](const std::string& option, const std::string& text) {
    const ProcessResult result = RunProcess(
        {MNEMO_PROGRAM, "generate", "--address", server.address(), option, folder.Write("file", text)}, "x");
    CHECK(result.exit_code == 2);
    return result.err;
  };
  for (const auto& [text, words] : std::vector<std::pair<std::string, std::string>>{
           {"not", "not JSON"},
           {"\"\xff\"", "not JSON"},
           {"[]", "holds no list of messages"},
           {"{}", "messages is missing"},
           {"[1]", "messages[0] is no object"},
           {R"([{"role": "user"}, {"content": "x"}])", "messages[1].role is missing"},
           {R"([{"role": 1}])", "messages[0].role is no text"},
           {R"([{"role": "user", "content": ["x"]}])", "messages[0].content is no text"},
           {R"([{"role": "user", "tool_calls": {}}])", "messages[0].tool_calls is no list"},
           {R"([{"role": "user", "text": "x"}])", "messages[0].text is unknown"},
           {R"({"messages": [{"role": "user"}], "tools": 1})", "tools is no list"}}) {
    INFO(text);
    CHECK_THAT(generate("--messages", text),
               Catch::Contains("--messages " + folder.path("file") + ": " + words));
  }
  CHECK_THAT(generate("--tools", "{}"), Catch::Contains("--tools " + folder.path("file")));
  const ProcessResult argument =
      RunProcess({MNEMO_PROGRAM, "generate", "--address", server.address(), "--template-arg", "x", "p"});
  CHECK(argument.exit_code == 2);
  CHECK_THAT(argument.err, Catch::Contains("--template-arg: 'x' is not NAME=VALUE"));
  CHECK(server.generate_requests().empty());
}

TEST_CASE("chat goes on from messages of a file, and saves what it was given") {
  testing::TempFolder folder;
  FakeServer server({});
  const std::string messages = folder.Write(
      "m.json", R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b",)"
                R"("tool_calls": [{"id": 1}]}], "tools": [{"type": "function"}]})");
  const std::string saved = folder.path("saved.json");
  const ProcessResult result = RunProcess({MNEMO_PROGRAM, "chat", "--address", server.address(), "--messages",
                                           messages, "--template-arg", "thinking=true", "--system", "s"},
                                          "c\n/save " + saved + "\n");
  CHECK(result.exit_code == 0);
  REQUIRE(server.generate_requests().size() == 1);
  const v1::Chat chat = server.generate_requests()[0].chat();
  REQUIRE(chat.messages_size() == 4);
  CHECK(chat.messages(0).role() == "system");
  CHECK(chat.messages(2).tool_calls_json() == R"([{"id":1}])");
  CHECK(chat.messages(3).content() == "c");
  CHECK(chat.tools_json() == R"([{"type":"function"}])");
  CHECK(chat.template_args().at("thinking") == "true");
  // The next pass takes the saved file.
  const ProcessResult again =
      RunProcess({MNEMO_PROGRAM, "generate", "--address", server.address(), "--messages", saved});
  CHECK(again.exit_code == 0);
  CHECK(server.generate_requests()[1].chat().messages_size() == 5);
}

TEST_CASE("profile: figures of a selection are for sparse attention alone") {
  FakeServer server(Script());
  const ProcessResult result = RunProcess({MNEMO_PROGRAM,
                                           "profile",
                                           "--address",
                                           server.address(),
                                           "--contexts",
                                           "20",
                                           "--batches",
                                           "2",
                                           "--methods",
                                           "dense,cascade",
                                           "--placements",
                                           "inline",
                                           "--tokens",
                                           "3",
                                           "--json",
                                           "--key-bits",
                                           "4",
                                           "--keep-last",
                                           "9",
                                           "--session",
                                           "p"});
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  CHECK(json::parse(result.out)["run"]["options"]["key-bits"] == "4");
  std::set<std::string> sessions;
  for (const v1::GenerateRequest& request : server.generate_requests()) {
    const bool dense = request.attention().method() == v1::ATTENTION_METHOD_DENSE;
    CHECK(request.attention().has_key_bits() == !dense);
    CHECK(request.attention().has_keep_last() == !dense);
    CHECK(request.sampling().temperature() == 0.0f);
    sessions.insert(request.session_id());
  }
  CHECK(sessions == std::set<std::string>{"p-0", "p-1"});
}

TEST_CASE("tokenize takes chats, and refuses what only generating has") {
  testing::TempFolder folder;
  FakeServer server({});
  const auto tokenize = [&](std::vector<std::string> arguments) {
    std::vector<std::string> all = {MNEMO_PROGRAM, "tokenize", "--address", server.address()};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProcess(all, "x");
  };
  CHECK(tokenize({"--parse-special"}).exit_code == 0);
  const std::string tools = folder.Write("tools.json", "[1]");
  CHECK(tokenize({"--system", "s", "--tools", tools, "--template-arg", "a=1"}).exit_code == 0);
  const std::vector<v1::TokenizeRequest> asked = server.tokenize_requests();
  REQUIRE(asked.size() == 2);
  CHECK(asked[0].text() == "x");
  CHECK(asked[0].parse_special());
  REQUIRE(asked[1].chat().messages_size() == 2);
  CHECK(asked[1].chat().messages(0).content() == "s");
  CHECK(asked[1].chat().messages(1).content() == "x");
  CHECK(asked[1].chat().tools_json() == "[1]");
  CHECK(asked[1].chat().template_args().at("a") == "1");
  for (const char* option : {"--top-k", "--logprobs", "--budget", "--session", "--deadline", "--token-ids"}) {
    const ProcessResult result = tokenize({option, "1"});
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(std::string("mnemo: ") + option + ": not with this command: ") == 0);
  }
  CHECK(tokenize({"--chat", "--add-special"}).exit_code == 2);
}

}  // namespace
}  // namespace mnemo::cli
