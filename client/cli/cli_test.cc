// The program against a server in this process: output, exit codes, signals.
#include <google/protobuf/text_format.h>
#include <signal.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/testing/fake_server.h"
#include "client/testing/process.h"
#include "client/testing/program.h"

namespace mnemo::client {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::FakeScript;
using testing::FakeServer;
using testing::MakeDelta;
using testing::MakeFinal;
using testing::Process;
using testing::ProcessResult;
using testing::RunProcess;

std::vector<std::string> Command(const FakeServer& server, const std::vector<std::string>& arguments) {
  return testing::CommandOf(MNEMO_PROGRAM, server, arguments);
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    char name[] = "/tmp/mnemo-cli-test-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << content;
    return path_ + "/" + name;
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(path_ + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_CASE("generate --json prints one object with text, ids, reason, usage and times in seconds") {
  FakeServer server({});
  const ProcessResult result = RunProcess(
      Command(server, {"generate", "--max-tokens", "4", "--temperature", "0", "--json", "h\xc3\xa4"}));
  CHECK(result.exit_code == 0);
  CHECK(result.err.empty());
  CHECK(std::count(result.out.begin(), result.out.end(), '\n') == 1);
  const json object = json::parse(result.out);
  CHECK(object["token_ids"] == json({'h', 0xc3, 0xa4, 'h'}));
  CHECK(object["finish_reason"] == "length");
  CHECK(object["usage"]["completion_tokens"] == 4);
  CHECK(object["timing"]["queue_seconds"] == Approx(0.001));
  CHECK(object["timing"]["total_seconds"] == Approx(1.0));
  CHECK(object["seed"] == 99);
  CHECK_FALSE(object.contains("logprobs"));
  REQUIRE(server.generate_requests().size() == 1);
  const v1::GenerateRequest request = server.generate_requests()[0];
  CHECK(request.prompt() == "h\xc3\xa4");
  CHECK(request.sampling().max_tokens() == 4);
  CHECK(request.sampling().temperature() == 0.0f);
  CHECK_FALSE(request.sampling().has_top_p());
  CHECK_FALSE(request.has_add_special());
}

TEST_CASE("generate streams exactly the text, and takes its prompt byte by byte") {
  FakeServer server({});
  const std::string text = std::string("a\0b\r\n  c\n", 9);
  CHECK(RunProcess(Command(server, {"generate"}), text).out == text);
  CHECK(RunProcess(Command(server, {"generate", "-"}), text).out == text);
  TemporaryFolder folder;
  CHECK(RunProcess(Command(server, {"generate", "--file", folder.Write("prompt", text)})).out == text);
  for (const v1::GenerateRequest& request : server.generate_requests()) CHECK(request.prompt() == text);
}

TEST_CASE("generate passes every option on") {
  FakeServer server({});
  const ProcessResult result = RunProcess(Command(server, {"generate",
                                                           "--model",
                                                           "fake",
                                                           "--session",
                                                           "s-1",
                                                           "--request-id",
                                                           "r 1",
                                                           "--priority",
                                                           "-3",
                                                           "--top-k",
                                                           "40",
                                                           "--top-p",
                                                           "0.5",
                                                           "--min-p",
                                                           "0.1",
                                                           "--seed",
                                                           "18446744073709551615",
                                                           "--repetition-penalty",
                                                           "1.5",
                                                           "--presence-penalty",
                                                           "-1",
                                                           "--frequency-penalty",
                                                           "2",
                                                           "--stop",
                                                           "[x]",
                                                           "--stop",
                                                           " y",
                                                           "--stop-token-id",
                                                           "7",
                                                           "--ignore-eos",
                                                           "--logit-bias",
                                                           "5=-1.5",
                                                           "--logit-bias",
                                                           "6=100",
                                                           "--logprobs",
                                                           "2",
                                                           "--prompt-logprobs",
                                                           "0",
                                                           "--prompt-logprobs-from",
                                                           "3",
                                                           "--decode-from",
                                                           "4",
                                                           "--include-special-tokens",
                                                           "--parse-special",
                                                           "--no-add-special",
                                                           "--json",
                                                           "--",
                                                           "-dash"}));
  INFO(result.err);
  REQUIRE(server.generate_requests().size() == 1);
  const v1::GenerateRequest request = server.generate_requests()[0];
  CHECK(request.prompt() == "-dash");
  CHECK(request.model() == "fake");
  CHECK(request.session_id() == "s-1");
  CHECK(request.request_id() == "r 1");
  CHECK(request.priority() == -3);
  const v1::Sampling& sampling = request.sampling();
  CHECK(sampling.top_k() == 40);
  CHECK(sampling.top_p() == 0.5f);
  CHECK(sampling.min_p() == 0.1f);
  CHECK(sampling.seed() == 18446744073709551615ULL);
  CHECK(sampling.repetition_penalty() == 1.5f);
  CHECK(sampling.presence_penalty() == -1.0f);
  CHECK(sampling.frequency_penalty() == 2.0f);
  REQUIRE(sampling.stop_size() == 2);
  CHECK(sampling.stop(0) == "[x]");
  CHECK(sampling.stop(1) == " y");
  REQUIRE(sampling.stop_token_ids_size() == 1);
  CHECK(sampling.stop_token_ids(0) == 7);
  CHECK(sampling.ignore_eos());
  CHECK(sampling.logit_bias().at(5) == -1.5f);
  CHECK(sampling.logit_bias().at(6) == 100.0f);
  CHECK(request.output().logprobs() == 2);
  CHECK(request.output().prompt_logprobs() == 0);
  CHECK(request.output().prompt_logprobs_from() == 3);
  CHECK(request.output().decode_from() == 4);
  CHECK(request.output().include_special_tokens());
  CHECK(request.parse_special());
  REQUIRE(request.has_add_special());
  CHECK_FALSE(request.add_special());
}

TEST_CASE("generate asks for sparse attention where an option says so, and else leaves it to the daemon") {
  FakeServer server({});
  REQUIRE(RunProcess(Command(server, {"generate", "plain"})).exit_code == 0);
  const ProcessResult result =
      RunProcess(Command(server, {"generate", "--attention", "cascade", "--budget", "512", "--keep-first",
                                  "1", "--keep-last", "2", "--reuse-interval", "3", "--first-stage-tokens",
                                  "900", "--key-bits", "2", "--placement", "memory-service", "sparse"}));
  INFO(result.err);
  REQUIRE(server.generate_requests().size() == 2);
  CHECK_FALSE(server.generate_requests()[0].has_attention());
  const v1::Attention attention = server.generate_requests()[1].attention();
  CHECK(attention.method() == v1::ATTENTION_METHOD_CASCADE);
  CHECK(attention.token_budget() == 512);
  CHECK(attention.keep_first() == 1);
  CHECK(attention.keep_last() == 2);
  CHECK(attention.reuse_interval() == 3);
  CHECK(attention.first_stage_tokens() == 900);
  CHECK(attention.key_bits() == 2);
  CHECK(attention.placement() == v1::PLACEMENT_MEMORY_SERVICE);
}

TEST_CASE("generate takes ids and chats; an empty prompt is the server's to refuse") {
  FakeServer server({});
  RunProcess(Command(server, {"generate", "--token-ids", "1, 2 3", "--max-tokens", "1"}));
  RunProcess(Command(server, {"generate", "--chat", "--system", "be brief", "hello"}));
  const ProcessResult empty = RunProcess(Command(server, {"generate", ""}));
  CHECK(empty.exit_code == 1);
  CHECK(empty.err == "mnemo: INVALID_ARGUMENT: prompt: empty; at least 1 token is needed\n");
  // An empty list of ids is a prompt, too; standard input does not replace it.
  RunProcess(Command(server, {"generate", "--token-ids", ""}), "text");
  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 4);
  CHECK(requests[0].token_ids().ids_size() == 3);
  REQUIRE(requests[1].chat().messages_size() == 2);
  CHECK(requests[1].chat().messages(0).role() == "system");
  CHECK(requests[1].chat().messages(1).content() == "hello");
  CHECK(requests[2].has_prompt());
  CHECK(requests[3].has_token_ids());
  CHECK(requests[3].token_ids().ids_size() == 0);
}

TEST_CASE("log probabilities come with exact bytes") {
  FakeScript script;
  script.generate = [](grpc::ServerContext*, const v1::GenerateRequest&, FakeScript::Writer* writer) {
    v1::GenerateResponse delta;
    v1::Token* token = delta.mutable_delta()->add_tokens();
    token->set_id(9);
    token->set_piece("\xc3");
    token->set_logprob(-0.5f);
    token->set_rank(0);
    token->add_alternatives()->set_id(10);
    writer->Write(delta);
    writer->Write(MakeFinal(v1::FINISH_REASON_STOP, 1, 1));
    return grpc::Status::OK;
  };
  FakeServer server(script);
  const json object =
      json::parse(RunProcess(Command(server, {"generate", "--json", "--logprobs", "1", "x"})).out);
  CHECK(object["finish_reason"] == "stop");
  const json& token = object["logprobs"][0];
  CHECK(token["bytes"] == json({0xc3}));
  CHECK(token["piece"] == "\xef\xbf\xbd");
  CHECK(token["logprob"] == -0.5);
  CHECK(token["alternatives"][0]["id"] == 10);
}

TEST_CASE("exit codes: usage 2, no connection 3, failure 1") {
  FakeServer server({});
  CHECK(RunProcess({MNEMO_PROGRAM}).exit_code == 2);
  const ProcessResult unknown = RunProcess({MNEMO_PROGRAM, "genrate", "x"});
  CHECK(unknown.exit_code == 2);
  CHECK(unknown.err.find("genrate") != std::string::npos);
  CHECK(RunProcess({MNEMO_PROGRAM, "--help"}).exit_code == 0);
  CHECK(RunProcess({MNEMO_PROGRAM, "generate", "--help"}).out.find("--max-tokens") != std::string::npos);
  const std::vector<std::vector<std::string>> wrong = {{"generate", "--no-such-option", "x"},
                                                       {"generate", "--max-tokens", "many", "x"},
                                                       {"generate", "--logit-bias", "5", "x"},
                                                       {"generate", "--deadline", "soon", "x"},
                                                       {"generate", "--token-ids", "1,x"},
                                                       {"generate", "a\xff"},
                                                       {"generate", "--file", "/nonexistent"},
                                                       {"drain", "--timeout", "-1"},
                                                       {"status", "--interval", "1us"},
                                                       {"generate", "--seed", "-1", "x"},
                                                       {"bench", "--seed", "1.5"},
                                                       {"generate", "--seed", "18446744073709551616", "x"},
                                                       {"bench", "--rate", "nan"},
                                                       {"profile", "--seed", "-1"}};
  for (const auto& arguments : wrong) {
    const ProcessResult result = RunProcess(Command(server, arguments));
    INFO(arguments[0] << " " << arguments[1] << ": " << result.err);
    CHECK(result.exit_code == 2);
    CHECK_FALSE(result.err.empty());
    CHECK(result.out.empty());
  }
  CHECK(server.calls() == 0);

  const auto begin = std::chrono::steady_clock::now();
  const ProcessResult refused = RunProcess({MNEMO_PROGRAM, "generate", "x", "--address", "127.0.0.1:1"});
  CHECK(refused.exit_code == 3);
  CHECK(refused.err.find("mnemo: UNAVAILABLE: cannot connect to 127.0.0.1:1") == 0);
  CHECK(refused.out.empty());
  CHECK(std::chrono::steady_clock::now() - begin < 3s);
}

TEST_CASE("the address may come from the environment, an option wins") {
  FakeServer server({});
  const ProcessResult result =
      RunProcess({MNEMO_PROGRAM, "models"}, "", {"MNEMO_ADDRESS=" + server.address()});
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("fake *") != std::string::npos);
  CHECK(RunProcess(Command(server, {"models"}), "", {"MNEMO_ADDRESS=127.0.0.1:1"}).exit_code == 0);
}

TEST_CASE("Ctrl-C cancels the request and ends with 130") {
  FakeScript script;
  script.token_gap = 10ms;
  FakeServer server(script);
  Process process(Command(server, {"generate", "--max-tokens", "100000", "ab"}));
  REQUIRE(process.WaitForOutput("abab"));
  process.Signal(SIGINT);
  const ProcessResult result = process.Wait(20s);
  CHECK(result.exit_code == 130);
  CHECK(result.err == "mnemo: CANCELLED\n");  // gRPC has no other text for it; printed once
  for (int i = 0; i < 500 && server.cancelled() == 0; ++i) std::this_thread::sleep_for(10ms);
  CHECK(server.cancelled() == 1);
}

TEST_CASE("a closed output cancels the request, quietly") {
  FakeScript script;
  script.token_gap = 5ms;
  FakeServer server(script);
  Process process(Command(server, {"generate", "--max-tokens", "100000", "ab"}));
  REQUIRE(process.WaitForOutput("ab"));
  process.CloseOutput();
  const ProcessResult result = process.Wait(20s);
  CHECK(result.exit_code == 141);
  CHECK(result.err.empty());
  for (int i = 0; i < 500 && server.cancelled() == 0; ++i) std::this_thread::sleep_for(10ms);
  CHECK(server.cancelled() == 1);
}

TEST_CASE("a closed standard stream is not the number of a connection") {
  FakeServer server({});
  const auto run = [&](const std::string& redirection, std::vector<std::string> arguments) {
    arguments = Command(server, arguments);
    std::vector<std::string> all = {"/bin/sh", "-c", "exec \"$0\" \"$@\" " + redirection};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProcess(all);
  };
  const ProcessResult no_input = run("<&-", {"generate"});
  CHECK(no_input.exit_code == 2);
  CHECK(no_input.err == "mnemo: read: Bad file descriptor\n");
  const ProcessResult no_output = run(">&-", {"generate", "x"});
  CHECK(no_output.exit_code == 141);
  CHECK(no_output.err == "mnemo: standard output: Bad file descriptor\n");
}

TEST_CASE("a deadline ends the request") {
  FakeScript script;
  script.token_gap = 10ms;
  FakeServer server(script);
  const ProcessResult result =
      RunProcess(Command(server, {"generate", "--max-tokens", "100000", "--deadline", "100ms", "ab"}));
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("mnemo: DEADLINE_EXCEEDED") == 0);
}

TEST_CASE("an overload is retried when asked") {
  std::atomic<int> tries{0};
  FakeScript script;
  script.generate = [&](grpc::ServerContext* context, const v1::GenerateRequest&,
                        FakeScript::Writer* writer) {
    if (++tries == 1) {
      context->AddTrailingMetadata("grpc-retry-pushback-ms", "30");
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "limits.max_queued");
    }
    writer->Write(MakeDelta(1, "yes"));
    writer->Write(MakeFinal(v1::FINISH_REASON_EOS, 1, 1));
    return grpc::Status::OK;
  };
  FakeServer server(script);
  CHECK(RunProcess(Command(server, {"generate", "x"})).exit_code == 1);
  tries = 0;
  CHECK(RunProcess(Command(server, {"generate", "--retry-overload", "1", "x"})).out == "yes");
}

TEST_CASE("chat keeps the history, obeys its commands and ends its session") {
  FakeServer server({});
  TemporaryFolder folder;
  const ProcessResult result =
      RunProcess(Command(server, {"chat", "--system", "first"}),
                 "one\n\ntwo\n/nonsense\n/save " + folder.path() +
                     "/log.json\n/clear\n/system second\nthree\n" + "/exit\nnever\n");
  CHECK(result.exit_code == 0);
  CHECK(result.out == "one\ntwo\nthree\n");
  CHECK(result.err.find("unknown command /nonsense") != std::string::npos);
  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 3);
  REQUIRE(requests[1].chat().messages_size() == 4);
  CHECK(requests[1].chat().messages(0).content() == "first");
  CHECK(requests[1].chat().messages(1).content() == "one");
  CHECK(requests[1].chat().messages(2).role() == "assistant");
  CHECK(requests[1].chat().messages(2).content() == "one");
  CHECK(requests[1].chat().messages(3).content() == "two");
  REQUIRE(requests[2].chat().messages_size() == 2);
  CHECK(requests[2].chat().messages(0).content() == "second");
  CHECK(server.ended_sessions() == std::vector<std::string>{requests[0].session_id()});
  CHECK(requests[2].session_id() == requests[0].session_id());
  CHECK(json::parse(folder.Read("log.json"))["messages"].size() == 5);
}

TEST_CASE("Ctrl-C in a chat stops the answer and not the program") {
  FakeScript script;
  script.token_gap = 10ms;
  FakeServer server(script);
  Process process(Command(server, {"chat", "--max-tokens", "100000"}));
  process.Write("abc\n");
  REQUIRE(process.WaitForOutput("abcabc"));
  process.Signal(SIGINT);
  REQUIRE(process.WaitForError("(stopped)"));
  process.Write("xyz\n");
  REQUIRE(process.WaitForOutput("xyzxyz"));
  process.Signal(SIGINT);
  process.Wait(20s);
  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 2);
  REQUIRE(requests[1].chat().messages_size() == 3);  // the seen part of the first answer stays
  CHECK(requests[1].chat().messages(1).content().substr(0, 6) == "abcabc");
}

TEST_CASE("status, models, drain and resume print tables and JSON") {
  FakeServer server({});
  const ProcessResult status = RunProcess(Command(server, {"status"}));
  CHECK(status.out.find("up 1h02m05s") != std::string::npos);
  CHECK(status.out.find("worker0  ready") != std::string::npos);
  CHECK(status.out.find("10 (10%)") != std::string::npos);
  CHECK(json::parse(RunProcess(Command(server, {"status", "--json"})).out)["workers"][0]["kv_pages_used"] ==
        10);
  CHECK(json::parse(RunProcess(Command(server, {"models", "--json"})).out)["models"][0]["end_token_ids"] ==
        json({257}));
  CHECK(RunProcess(Command(server, {"drain", "--timeout", "2s"})).out == "drained: 3 finished, 1 cut\n");
  CHECK(json::parse(RunProcess(Command(server, {"drain", "--json"})).out) ==
        json({{"finished", 3}, {"cut", 1}}));
  CHECK(RunProcess(Command(server, {"resume"})).exit_code == 0);
  CHECK(server.resumes() == 1);
}

TEST_CASE("status --watch looks again until Ctrl-C") {
  FakeServer server({});
  Process process(Command(server, {"status", "--watch", "--json", "--interval", "50ms"}));
  for (int i = 0; i < 1000 && server.calls() < 3; ++i) std::this_thread::sleep_for(10ms);
  process.Signal(SIGINT);
  const ProcessResult result = process.Wait(20s);
  CHECK(result.exit_code == 0);
  CHECK(std::count(result.out.begin(), result.out.end(), '\n') >= 3);
}

TEST_CASE("bench, closed loop: all requests, exact lengths, ids of ordinary text") {
  FakeServer server({});
  TemporaryFolder folder;
  const ProcessResult result = RunProcess(Command(
      server, {"bench", "-c", "4", "-n", "20", "--warmup", "3", "-i", "10:20", "-o", "5", "--shared-prefix",
               "6", "--slo", "ttft=10s,tpot=5s", "--json", "--save", folder.path() + "/r.jsonl"}));
  INFO(result.err);
  CHECK(result.exit_code == 0);
  const json report = json::parse(result.out);
  CHECK(report["requests"]["total"] == 20);
  CHECK(report["requests"]["succeeded"] == 20);
  CHECK(report["tokens"]["output"] == 100);
  CHECK(report["ttft_seconds"]["count"] == 20);
  CHECK(report["itl_seconds"]["count"] == 80);
  CHECK(report["goodput"]["fraction"] == 1.0);
  CHECK(report["run"]["load"] == "closed loop, 4 in flight");
  const std::string saved = folder.Read("r.jsonl");
  CHECK(std::count(saved.begin(), saved.end(), '\n') == 20);

  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 23);
  bool shared = true;
  for (const v1::GenerateRequest& request : requests) {
    CHECK(request.token_ids().ids_size() >= 10);
    CHECK(request.token_ids().ids_size() <= 20);
    CHECK(request.sampling().max_tokens() == 5);
    CHECK(request.sampling().ignore_eos());
    for (int i = 0; i < 6; ++i)
      shared = shared && request.token_ids().ids(i) == requests[0].token_ids().ids(i);
    for (const int32_t id : request.token_ids().ids()) CHECK((id == ' ' || (id >= 'a' && id <= 'z')));
  }
  CHECK(shared);
  const ProcessResult text = RunProcess(Command(server, {"bench", "-n", "3", "-o", "2"}));
  CHECK(text.out.find("TTFT") != std::string::npos);
}

TEST_CASE("bench, trace: arrivals, lengths and shared prefixes are those of the file") {
  FakeServer server({});
  TemporaryFolder folder;
  const std::string trace = folder.Write(
      "trace.jsonl",
      "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [0, 1]}\n"
      "{\"timestamp\": 1100, \"input_length\": 700, \"output_length\": 2, \"hash_ids\": [0, 2]}\n"
      "{\"timestamp\": 1200, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [0]}\n");
  const json report = json::parse(
      RunProcess(Command(server, {"bench", "--trace", trace, "--clip-input", "650", "--json"})).out);
  CHECK(report["requests"]["succeeded"] == 3);
  CHECK(report["run"]["clipped_requests"] == 1);
  CHECK(report["tokens"]["output"] == 6);
  CHECK(report["duration_seconds"] >= 0.19);
  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 3);
  CHECK(requests[0].token_ids().ids_size() == 600);
  CHECK(requests[1].token_ids().ids_size() == 650);
  const auto& first = requests[0].token_ids().ids();
  const auto& second = requests[1].token_ids().ids();
  CHECK(std::equal(first.begin(), first.begin() + 512, second.begin()));
  CHECK_FALSE(std::equal(first.begin() + 512, first.end(), second.begin() + 512));
}

TEST_CASE("bench counts failures by code and stops on Ctrl-C") {
  SECTION("failures") {
    std::atomic<int> tries{0};
    FakeScript script;
    script.generate = [&](grpc::ServerContext*, const v1::GenerateRequest&, FakeScript::Writer* writer) {
      if (++tries % 2 == 0) return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
      writer->Write(MakeDelta(1, "x"));
      writer->Write(MakeFinal(v1::FINISH_REASON_LENGTH, 1, 1));
      return grpc::Status::OK;
    };
    FakeServer server(script);
    const ProcessResult result =
        RunProcess(Command(server, {"bench", "--rate", "200", "-n", "10", "--slo", "e2e=10s", "--json"}));
    CHECK(result.exit_code == 0);
    const json report = json::parse(result.out);
    CHECK(report["requests"]["errors"] == json({{"RESOURCE_EXHAUSTED", 5}}));
    CHECK(report["goodput"]["fraction"] == 0.5);
    CHECK(result.err.find("RESOURCE_EXHAUSTED: full") != std::string::npos);
  }
  SECTION("Ctrl-C") {
    FakeScript script;
    script.token_gap = 10ms;
    FakeServer server(script);
    Process process(Command(server, {"bench", "-c", "3", "-n", "50", "-o", "100000", "--json"}));
    for (int i = 0; i < 1000 && server.generate_requests().size() < 3; ++i) std::this_thread::sleep_for(10ms);
    process.Signal(SIGINT);
    const ProcessResult result = process.Wait(20s);
    CHECK(result.exit_code == 130);
    CHECK(json::parse(result.out)["requests"]["errors"] == json({{"CANCELLED", 3}}));
  }
}

TEST_CASE("bench refuses what it cannot run") {
  FakeServer server({});
  TemporaryFolder folder;
  const std::string bad = folder.Write(
      "bad.jsonl", "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 3}\n{\"timestamp\": 1}\n");
  const ProcessResult result = RunProcess(Command(server, {"bench", "--trace", bad}));
  CHECK(result.exit_code == 2);
  CHECK(result.err == "mnemo: " + bad + ":2: input_length is missing\n");
  CHECK(RunProcess(Command(server, {"bench", "--slo", "speed=1s"})).exit_code == 2);
  CHECK(RunProcess(Command(server, {"bench", "-i", "9:3"})).exit_code == 2);
  for (const std::string prompt : {"29", "29:40"}) {
    const ProcessResult longer =
        RunProcess(Command(server, {"bench", "-i", prompt, "--shared-prefix", "30"}));
    CHECK(longer.exit_code == 2);
    CHECK(longer.err ==
          "mnemo: --shared-prefix: 30 tokens are more than the shortest prompt of --input-tokens " + prompt +
              "\n");
  }
  CHECK(RunProcess(Command(server, {"bench", "-c", "2", "--rate", "3"})).exit_code == 2);
  CHECK(RunProcess(Command(server, {"bench", "--model", "other", "-n", "1"})).exit_code == 1);
  CHECK(server.generate_requests().empty());
}

// Answers at once, as a daemon would whose decode steps take 10 ms, of which relevancy has 2, retrieval 1 and
// apply `apply_ms`. `prepare` takes 0.5 ms for each token of the prompt and each that was decoded.
FakeScript ProfileScript(double apply_ms = 3) {
  FakeScript script;
  script.generate = [apply_ms](grpc::ServerContext*, const v1::GenerateRequest& request,
                               FakeScript::Writer* writer) {
    if (request.attention().method() == v1::ATTENTION_METHOD_BLOCK_GATE)
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "attention.method: not of this <model>");
    const int tokens = request.sampling().max_tokens();
    for (int i = 0; i < tokens; ++i) writer->Write(MakeDelta(1, "x"));
    v1::GenerateResponse last = MakeFinal(v1::FINISH_REASON_LENGTH, request.token_ids().ids_size(), tokens);
    v1::Final* final = last.mutable_final();
    const int steps = tokens - 1;
    final->mutable_timing()->mutable_decode()->set_nanos(10'000'000 * steps);
    const auto add = [&](v1::MemoryStep::Step kind, const char* device, double ms, int count) {
      v1::MemoryStep* step = final->add_memory_steps();
      step->set_step(kind);
      step->set_device(device);
      step->mutable_time()->set_nanos(static_cast<int>(ms * 1e6));
      step->set_bytes_moved(static_cast<uint64_t>(count) * 10);
      step->set_count(static_cast<uint64_t>(count));
    };
    if (request.attention().method() != v1::ATTENTION_METHOD_DENSE) {
      const char* const device =
          request.attention().placement() == v1::PLACEMENT_MEMORY_SERVICE ? "memory<0>" : "cpu0";
      const int indexed = request.token_ids().ids_size() + steps;
      add(v1::MemoryStep::STEP_PREPARE, device, 0.5 * indexed, indexed);
      add(v1::MemoryStep::STEP_RELEVANCY, device, 2.0 * steps, 4 * steps);
      add(v1::MemoryStep::STEP_RETRIEVAL, device, 1.0 * steps, 3 * steps);
      add(v1::MemoryStep::STEP_APPLY, "cpu0", apply_ms * steps, 2 * steps);
    }
    writer->Write(last);
    return grpc::Status::OK;
  };
  return script;
}

// Checks the errors that this chart can have: elements open and close in order, text holds no bare sign,
// attributes are quoted. Returns the number of elements that begin with `tag`.
int CountElements(const std::string& xml, const std::string& tag) {
  std::vector<std::string> open;
  int found = 0;
  size_t at = 0;
  bool root_closed = false;
  while (at < xml.size()) {
    if (xml[at] == '&') {
      const std::string entity = xml.substr(at, xml.find(';', at) - at + 1);
      CHECK((entity == "&amp;" || entity == "&lt;" || entity == "&gt;" || entity == "&quot;" ||
             entity == "&apos;"));
    }
    if (xml[at] != '<') {
      CHECK(xml[at] != '>');
      if (root_closed) CHECK(xml[at] == '\n');
      ++at;
      continue;
    }
    const size_t end = xml.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string inside = xml.substr(at + 1, end - at - 1);
    at = end + 1;
    CHECK(inside.find('<') == std::string::npos);
    CHECK(std::count(inside.begin(), inside.end(), '"') % 2 == 0);
    CHECK_FALSE(root_closed);
    if (inside.starts_with(tag)) ++found;
    if (inside.starts_with("?")) continue;
    if (inside.starts_with("/")) {
      REQUIRE_FALSE(open.empty());
      CHECK(open.back() == inside.substr(1));
      open.pop_back();
      root_closed = open.empty();
    } else if (!inside.ends_with("/")) {
      open.push_back(inside.substr(0, inside.find(' ')));
    }
  }
  CHECK(open.empty());
  return found;
}

TEST_CASE("profile --json tells shares, bytes and devices of every case, and the chart has a bar for each") {
  FakeServer server(ProfileScript());
  TemporaryFolder folder;
  const ProcessResult result =
      RunProcess(Command(server, {"profile", "--contexts", "64,200", "--batches", "1,2", "--methods",
                                  "dense,token_topk", "--budget", "128", "--tokens", "11", "--seed", "3",
                                  "--json", "--svg", folder.path() + "/p.svg"}));
  INFO(result.err);
  CHECK(result.exit_code == 0);
  CHECK(result.err.empty());
  const json profile = json::parse(result.out);
  CHECK(profile["run"]["model"] == "fake");
  CHECK(profile["run"]["token_budget"] == 128);
  CHECK(profile["skipped"].empty());
  REQUIRE(profile["rows"].size() == 12);  // dense has no placement
  const json& dense = profile["rows"][0];
  CHECK(dense["method"] == "dense");
  CHECK(dense["placement"].is_null());
  CHECK(dense["context_tokens"] == 64);
  CHECK(dense["batch"] == 1);
  CHECK(dense["decode_seconds_per_token"] == Approx(0.01));
  CHECK(dense["memory_share"].is_null());
  CHECK(dense["steps"].is_null());
  const json& row = profile["rows"][2];
  CHECK(row["method"] == "token_topk");
  CHECK(row["placement"] == "memory-service");
  CHECK(row["wall_seconds"] == Approx(0.1));
  CHECK(row["prompt_prepare_seconds"] == Approx(0.032));
  CHECK(row["steps"]["prepare"]["seconds"] == Approx(0.005));
  CHECK(row["steps"]["prepare"]["share"] == Approx(0.05));
  CHECK(row["steps"]["relevancy"]["share"] == Approx(0.2));
  CHECK(row["steps"]["retrieval"]["share"] == Approx(0.1));
  CHECK(row["steps"]["apply"]["share"] == Approx(0.3));
  CHECK(row["memory_share"] == Approx(0.65));
  CHECK(row["round_trips_per_token"] == 0);
  CHECK(row["bytes_moved_per_token"] == Approx((10 + 40 + 30 + 20) * 10 / 10.0));
  CHECK(row["steps"]["relevancy"]["device"] == "memory<0>");
  CHECK(row["steps"]["apply"]["device"] == "cpu0");
  CHECK(row["overlapped"] == false);

  const std::string svg = folder.Read("p.svg");
  CHECK(CountElements(svg, "g class=\"bar\"") == 12);
  CHECK(svg.find("relevancy on memory&lt;0&gt;: 2 ms, 20.0 %") != std::string::npos);

  const std::vector<v1::GenerateRequest> requests = server.generate_requests();
  REQUIRE(requests.size() == 36);  // each primed and measured
  CHECK_FALSE(requests[0].attention().has_token_budget());
  CHECK(requests[0].attention().method() == v1::ATTENTION_METHOD_DENSE);
  CHECK(requests[0].sampling().max_tokens() == 2);
  const v1::GenerateRequest& sparse = requests[5];
  CHECK(sparse.attention().token_budget() == 128);
  CHECK(sparse.attention().placement() == v1::PLACEMENT_MEMORY_SERVICE);
  CHECK(sparse.sampling().max_tokens() == 11);
  CHECK(sparse.sampling().ignore_eos());
  CHECK(sparse.sampling().temperature() == 0.0f);
  CHECK(sparse.token_ids().ids_size() == 64);
  for (const int32_t id : sparse.token_ids().ids()) CHECK((id == ' ' || (id >= 'a' && id <= 'z')));
}

TEST_CASE("profile: steps that ran at the same time are shares of their sum") {
  FakeServer server(ProfileScript(/*apply_ms=*/30));
  const std::vector<std::string> arguments = {"profile", "--contexts",   "64",     "--batches",
                                              "2",       "--placements", "inline", "--methods",
                                              "cascade", "--tokens",     "11"};
  std::vector<std::string> with_json = arguments;
  with_json.emplace_back("--json");
  const json row = json::parse(RunProcess(Command(server, with_json)).out)["rows"][0];
  CHECK(row["overlapped"] == true);
  CHECK(row["memory_share"] == Approx(1.0));
  CHECK(row["steps"]["apply"]["share"] == Approx(600.0 / 670));
  const ProcessResult table = RunProcess(Command(server, arguments));
  CHECK(table.out.find("100.0 % *") != std::string::npos);
}

TEST_CASE("profile prints a table, and tells what it leaves out") {
  FakeServer server(ProfileScript());
  const ProcessResult result =
      RunProcess(Command(server, {"profile", "--contexts", "100,2040", "--batches", "1", "--placements",
                                  "inline", "--methods", "dense,block_gate,block_mean", "--tokens", "11"}));
  CHECK(result.exit_code == 0);
  CHECK(
      result.out ==
      "METHOD      PLACEMENT  CONTEXT  BATCH  MS/TOKEN  MEMORY  PREPARE     RELEVANCY    RETRIEVAL    APPLY"
      "        BYTES/TOKEN  TRIPS/TOKEN\n"
      "dense       -          100      1      10.000    -       -           -            -            -"
      "            -            -\n"
      "block_mean  inline     100      1      10.000    65.0 %  5.0 % cpu0  20.0 % cpu0  10.0 % cpu0  30.0 %"
      " cpu0  100 B        0.0\n");
  CHECK(result.err.find("mnemo: left out block_gate inline, context 100, batch 1: INVALID_ARGUMENT: "
                        "attention.method: not of this <model>\n") != std::string::npos);
  CHECK(result.err.find("left out dense, context 2040, batch 1: --contexts: 2040 and 11 tokens to generate "
                        "exceed the model's context of 2048 tokens\n") != std::string::npos);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 4);
  const ProcessResult none = RunProcess(Command(server, {"profile", "--contexts", "4096", "--json"}));
  CHECK(none.exit_code == 1);
  CHECK(json::parse(none.out)["rows"].empty());
}

TEST_CASE("profile refuses bad options by name and bound, before any request") {
  FakeServer server(ProfileScript());
  const std::vector<std::vector<std::string>> cases = {
      {"--contexts", "16,0", "--contexts", "1073741824"},
      {"--batches", "1,257", "--batches", "256"},
      {"--methods", "dense,fast", "--methods", "token_topk"},
      {"--placements", "moon", "--placements", "inline"},
      {"--budget", "0", "--budget", "1073741824"},
      {"--tokens", "1", "--tokens", "65536"},
      {"--svg", "/nonexistent/p.svg", "--svg", "/nonexistent/p.svg"}};
  for (const std::vector<std::string>& each : cases) {
    const ProcessResult result = RunProcess(Command(server, {"profile", each[0], each[1]}));
    INFO(result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(each[2]) != std::string::npos);
    CHECK(result.err.find(each[3]) != std::string::npos);
  }
  CHECK(RunProcess(Command(server, {"profile", "--model", "other"})).exit_code == 1);
  CHECK(server.generate_requests().empty());
}

TEST_CASE("profile cancels on Ctrl-C and prints what it has") {
  FakeScript script;
  script.token_gap = 10ms;
  FakeServer server(script);
  Process process(Command(server, {"profile", "--contexts", "50", "--tokens", "1900", "--json"}));
  // The second one is the first measured one.
  for (int i = 0; i < 1000 && server.generate_requests().size() < 2; ++i) std::this_thread::sleep_for(10ms);
  process.Signal(SIGINT);
  const ProcessResult result = process.Wait(20s);
  CHECK(result.exit_code == 130);
  CHECK(json::parse(result.out)["rows"].empty());
}

}  // namespace
}  // namespace mnemo::client
