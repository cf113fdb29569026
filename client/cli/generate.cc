#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/json_output.h"
#include "client/cli/request_options.h"

namespace mnemo::cli {
namespace {

struct GenerateOptions {
  ServerOptions server;
  RequestOptions request;
  bool json = false;
  bool stats = false;
};

// Integers separated by blanks or commas.
absl::Status ParseIds(const std::string& text, v1::TokenIds* ids) {
  const char* at = text.data();
  const char* const last = at + text.size();
  while (true) {
    while (at != last && (*at == ' ' || *at == ',' || *at == '\n' || *at == '\t' || *at == '\r')) ++at;
    if (at == last) return absl::OkStatus();
    int32_t id = 0;
    const auto [end, error] = std::from_chars(at, last, id);
    if (error != std::errc()) {
      return InvalidArgument("--token-ids: '{}' at byte {} is no 32-bit integer",
                             std::string(at, std::min(last, at + 12)), at - text.data());
    }
    ids->add_ids(id);
    at = end;
  }
}

absl::StatusOr<std::string> ReadPrompt(const RequestOptions& options) {
  if (!options.file.empty()) return ReadFile(options.file);
  if (options.prompt.has_value() && *options.prompt != "-") return *options.prompt;
  if (IsTerminal(STDIN_FILENO))
    std::fputs("mnemo: reading the prompt from the terminal; end it with Ctrl-D\n", stderr);
  return ReadAll(STDIN_FILENO);
}

absl::Status BuildRequest(const RequestOptions& options, v1::GenerateRequest* request,
                          client::CallOptions* call) {
  MNEMO_RETURN_IF_ERROR(ApplyRequestOptions(options, request, call));
  if (options.token_ids.has_value()) {
    std::string text = *options.token_ids;
    if (text == "-") {
      MNEMO_ASSIGN_OR_RETURN(text, ReadAll(STDIN_FILENO));
    }
    return ParseIds(text, request->mutable_token_ids());
  }
  const bool is_chat = IsChat(options);
  if (is_chat) {
    MNEMO_ASSIGN_OR_RETURN(*request->mutable_chat(), MakeChat(options));
    // Messages of a file are an input by themselves.
    if (!options.messages.empty() && !options.prompt.has_value() && options.file.empty()) {
      return absl::OkStatus();
    }
  }
  MNEMO_ASSIGN_OR_RETURN(std::string text, ReadPrompt(options));
  MNEMO_RETURN_IF_ERROR(client::CheckUtf8("prompt", text));
  if (is_chat) {
    v1::Chat::Message* user = request->mutable_chat()->add_messages();
    user->set_role("user");
    user->set_content(std::move(text));
  } else {
    request->set_prompt(std::move(text));
  }
  return absl::OkStatus();
}

std::string StatsLine(const client::Completion& completion) {
  const v1::Final& final = *completion.final;
  const int generated = final.usage().completion_tokens();
  const double decode = Seconds(final.timing().decode());
  const std::string rate =
      generated > 1 && decode > 0 ? fmt::format(", {:.1f} tokens/s", (generated - 1) / decode) : "";
  std::string joules;
  if (final.has_energy()) {
    joules = fmt::format(", {:.3g} J", final.energy().joules());
    if (generated > 0) joules += fmt::format(" ({:.3g} J/token)", final.energy().joules() / generated);
  }
  return fmt::format("{} prompt tokens ({} cached), {} generated, finish {}; first token {}, total {}{}{}\n",
                     final.usage().prompt_tokens(), final.usage().cached_prompt_tokens(), generated,
                     client::FinishReasonName(final.finish_reason()),
                     FormatSeconds(Seconds(final.timing().time_to_first_token())),
                     FormatSeconds(Seconds(final.timing().total())), rate, joules);
}

int Report(const GenerateOptions& options, const client::Completion& completion) {
  if (options.json) {
    CompletionJsonOptions json;
    json.logprobs = options.request.logprobs.has_value();
    json.prompt_logprobs = options.request.prompt_logprobs.has_value();
    if (!WriteOut(CompletionJson(completion, json) + "\n")) return kExitBrokenPipe;
  }
  if (options.stats) std::fputs(StatsLine(completion).c_str(), stderr);
  return kExitOk;
}

int RunGenerate(const GenerateOptions& options) {
  v1::GenerateRequest request;
  client::CallOptions call;
  if (const absl::Status status = BuildRequest(options.request, &request, &call); !status.ok()) {
    return FailUsage(std::string(status.message()));
  }
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;

  const std::unique_ptr<client::GenerateStream> stream = client->Generate(std::move(request), call);
  InterruptGuard interrupt([&] { stream->Cancel(); });
  client::Completion completion;
  bool output_closed = false;
  while (std::optional<v1::GenerateResponse> message = stream->Next()) {
    const std::string text = message->delta().text();
    completion.Add(*std::move(message));
    if (!options.json && !output_closed && !WriteOut(text)) {
      output_closed = true;
      stream->Cancel();
    }
  }
  // The next prompt of the terminal belongs on a line of its own; a file gets the text and nothing else.
  const bool open_line = !completion.text.empty() && completion.text.back() != '\n';
  if (!options.json && open_line && !output_closed && IsTerminal(STDOUT_FILENO)) WriteOut("\n");
  if (output_closed) return kExitBrokenPipe;
  if (!stream->status().ok()) {
    const int code = Fail(stream->status());
    return interrupt.interrupted() && absl::IsCancelled(stream->status()) ? kExitInterrupted : code;
  }
  if (!completion.final.has_value())
    return Fail(Internal("the daemon ended the stream without a Final message"));
  return Report(options, completion);
}

}  // namespace

RunCommand AddGenerate(CLI::App* command) {
  auto options = std::make_shared<GenerateOptions>();
  const Variation variations[] = {
      {"--logprobs", Variation::Kind::kText, "Alternatives for each generated token, 0..20; with --json"},
      {"--prompt-logprobs", Variation::Kind::kText,
       "Alternatives for each prompt token, 0..20; with --json"}};
  AddRequestOptions(command, &options->request, variations);
  CLI::Option* const file = command->get_option("--file");
  CLI::Option* const ids = command->get_option("--token-ids");
  file->excludes("prompt");
  ids->excludes("prompt")->excludes(file);
  for (const char* name : {"--chat", "--system", "--messages", "--tools", "--template-arg",
                           "--omit-generation-prompt", "--continue-final-message"}) {
    command->get_option(name)->excludes(ids)->excludes("--parse-special")->excludes("--add-special");
    command->get_option(name)->excludes("--no-add-special");
  }
  command->get_option("--parse-special")->excludes(ids);
  command->get_option("--no-add-special")->excludes("--add-special");
  command->add_flag("--json", options->json,
                    "Print one JSON object at the end: text, token_ids, finish_reason (eos | stop | length), "
                    "usage, timing (seconds)");
  command->add_flag("--stats", options->stats, "Print token counts and times on standard error at the end");
  AddServerOptions(command, &options->server);
  command->footer(
      "Without --json the text is streamed as it comes. Ctrl-C cancels the request (exit status 130); a "
      "second one kills.");
  return [options] { return RunGenerate(*options); };
}

}  // namespace mnemo::cli
