#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/request_options.h"
#include "server/model/gguf.h"
#include "server/model/tokenizer.h"

namespace mnemo::cli {
namespace {

struct TokenizeOptions {
  ServerOptions server;
  RequestOptions request;
  std::string gguf;
  bool detokenize = false;
  bool skip_special = false;
  bool pieces = false;
};

struct Tokens {
  std::vector<int32_t> ids;
  std::vector<std::string> pieces;
};

absl::StatusOr<std::unique_ptr<model::Tokenizer>> OpenTokenizer(const std::string& path) {
  model::GgufFile::Options options;
  options.metadata_only = true;
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<model::GgufFile> file, model::GgufFile::Open(path, options));
  return model::Tokenizer::FromGguf(*file);
}

Tokens EncodeOffline(const model::Tokenizer& tokenizer, const std::string& text,
                     const TokenizeOptions& options) {
  model::EncodeOptions encode;
  encode.add_special = options.request.add_special;
  encode.parse_special = options.request.parse_special;
  Tokens tokens;
  tokens.ids = tokenizer.Encode(text, encode);
  for (const int32_t id : tokens.ids) tokens.pieces.emplace_back(tokenizer.Piece(id));
  return tokens;
}

std::string FormatTokens(const Tokens& tokens, bool pieces) {
  std::string text;
  if (!pieces) {
    for (size_t i = 0; i < tokens.ids.size(); ++i)
      text += fmt::format("{}{}", i == 0 ? "" : " ", tokens.ids[i]);
    return text + "\n";
  }
  // A line a token: id, tab, the piece as a JSON string (bytes that are not UTF-8 as U+FFFD), tab, its bytes
  // in hexadecimal.
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    const std::string quoted =
        nlohmann::json(tokens.pieces[i]).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    std::string hex;
    for (const char c : tokens.pieces[i]) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
    text += fmt::format("{}\t{}\t{}\n", tokens.ids[i], quoted, hex);
  }
  return text;
}

absl::StatusOr<std::vector<int32_t>> ParseIdList(const std::string& text) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const last = at + text.size();
  while (true) {
    while (at != last && (std::isspace(static_cast<unsigned char>(*at)) != 0 || *at == ',')) ++at;
    if (at == last) return ids;
    int32_t id = 0;
    const auto [end, error] = std::from_chars(at, last, id);
    if (error != std::errc()) {
      return InvalidArgument("'{}' at byte {} is no 32-bit integer", std::string(at, std::min(last, at + 12)),
                             at - text.data());
    }
    ids.push_back(id);
    at = end;
  }
}

// The exact bytes, whether they are UTF-8 or not.
absl::StatusOr<std::string> DecodeOffline(const model::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                                          bool skip_special) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= tokenizer.size()) {
      return InvalidArgument("ids[{}]: {} is outside the vocabulary, [0, {})", i, ids[i], tokenizer.size());
    }
  }
  return tokenizer.DecodeBytes(ids, skip_special);
}

int RunOffline(const TokenizeOptions& options, const std::string& input) {
  const absl::StatusOr<std::unique_ptr<model::Tokenizer>> tokenizer = OpenTokenizer(options.gguf);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  for (const std::string& note : (*tokenizer)->notes()) {
    std::fprintf(stderr, "mnemo: %s: %s\n", options.gguf.c_str(), note.c_str());
  }
  if (!options.detokenize) {
    return WriteOut(FormatTokens(EncodeOffline(**tokenizer, input, options), options.pieces))
               ? kExitOk
               : kExitBrokenPipe;
  }
  const absl::StatusOr<std::vector<int32_t>> ids = ParseIdList(input);
  if (!ids.ok()) return Fail(ids.status());
  const absl::StatusOr<std::string> text = DecodeOffline(**tokenizer, *ids, options.skip_special);
  if (!text.ok()) return Fail(text.status());
  return WriteOut(*text) ? kExitOk : kExitBrokenPipe;
}

// Messages of a file are an input by themselves.
bool NeedsInput(const TokenizeOptions& options) {
  return options.request.messages.empty() || !options.request.file.empty();
}

int RunOnline(const TokenizeOptions& options, const std::string& input) {
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  if (options.detokenize) {
    const absl::StatusOr<std::vector<int32_t>> ids = ParseIdList(input);
    if (!ids.ok()) return Fail(ids.status());
    v1::DetokenizeRequest request;
    request.set_model(options.request.model);
    request.set_skip_special_tokens(options.skip_special);
    request.mutable_ids()->Add(ids->begin(), ids->end());
    const absl::StatusOr<v1::DetokenizeResponse> response = client->Detokenize(request);
    if (!response.ok()) return Fail(response.status());
    return WriteOut(response->text()) ? kExitOk : kExitBrokenPipe;
  }
  v1::TokenizeRequest request;
  request.set_model(options.request.model);
  if (IsChat(options.request)) {
    absl::StatusOr<v1::Chat> chat = MakeChat(options.request);
    if (!chat.ok()) return FailUsage(std::string(chat.status().message()));
    *request.mutable_chat() = *std::move(chat);
    if (NeedsInput(options)) {
      v1::Chat::Message* user = request.mutable_chat()->add_messages();
      user->set_role("user");
      user->set_content(input);
    }
  } else {
    request.set_text(input);
  }
  request.set_add_special(options.request.add_special);
  request.set_parse_special(options.request.parse_special);
  const absl::StatusOr<v1::TokenizeResponse> response = client->Tokenize(request);
  if (!response.ok()) return Fail(response.status());
  Tokens tokens;
  tokens.ids.assign(response->ids().begin(), response->ids().end());
  tokens.pieces.assign(response->pieces().begin(), response->pieces().end());
  tokens.pieces.resize(tokens.ids.size());
  return WriteOut(FormatTokens(tokens, options.pieces)) ? kExitOk : kExitBrokenPipe;
}

int RunTokenize(const TokenizeOptions& options) {
  if (const absl::Status status = CheckRefused(options.request); !status.ok()) {
    return FailUsage(std::string(status.message()));
  }
  absl::StatusOr<std::string> input = std::string();
  if (NeedsInput(options)) {
    input = options.request.file.empty() ? ReadAll(STDIN_FILENO) : ReadFile(options.request.file);
  }
  if (!input.ok()) return Fail(input.status());
  return options.gguf.empty() ? RunOnline(options, *input) : RunOffline(options, *input);
}

// Options of a request that its tokens depend on.
void AddTokenizeOptions(CLI::App* command, RequestOptions* options) {
  using Kind = Variation::Kind;
  constexpr char kInput[] = "the input is standard input, or --file";
  std::vector<Variation> variations = {
      {"prompt", Kind::kRefuse, kInput},
      {"--token-ids", Kind::kRefuse, "ids are the input of --detokenize"},
      {"--no-add-special", Kind::kRefuse, "nothing is added unless --add-special asks for it"},
      {"--file", Kind::kText, "Read from a file instead of standard input"},
      {"--chat", Kind::kText, "The text is a user's message: the model's chat template is applied"},
      {"--messages", Kind::kText, "Messages of a chat before the text, or alone: a JSON file"},
      {"--model", Kind::kText, "Model of the daemon; default: its own default"},
      {"--add-special", Kind::kText, "Add begin-of-text and the like, as the model says"},
      {"--parse-special", Kind::kText, "Control-token text becomes control tokens"}};
  constexpr char kNothing[] = "nothing is generated";
  std::vector<std::string> fields;
  for (const auto& [field, option] : RequestFields()) {
    if (field.starts_with("sampling.") || field.starts_with("output.") || field.starts_with("attention.")) {
      fields.push_back(option);
    }
  }
  for (const char* option : {"--session", "--request-id", "--deadline", "--priority", "--retry-overload"}) {
    fields.emplace_back(option);
  }
  for (const std::string& option : fields) variations.push_back({option, Kind::kRefuse, kNothing});
  AddRequestOptions(command, options, variations);
  for (const char* name : {"--model", "--chat", "--system", "--messages", "--tools", "--template-arg",
                           "--omit-generation-prompt", "--continue-final-message"}) {
    command->get_option(name)->excludes("--gguf");
    if (std::string_view(name) == "--model") continue;
    command->get_option(name)->excludes("--add-special")->excludes("--parse-special");
  }
}

}  // namespace

RunCommand AddTokenize(CLI::App* command) {
  auto options = std::make_shared<TokenizeOptions>();
  AddServerOptions(command, &options->server);
  command
      ->add_option("--gguf", options->gguf,
                   "Work offline with this model file; one with a vocabulary and no tensors is enough")
      ->type_name("FILE");
  AddTokenizeOptions(command, &options->request);
  command->add_flag("--pieces", options->pieces,
                    "A line a token: id, tab, piece as a JSON string, tab, its bytes in hexadecimal");
  auto* detokenize =
      command->add_flag("-d,--detokenize", options->detokenize,
                        "The reverse: ids in, text out (offline: the exact bytes, nothing added)");
  command->add_flag("--skip-special", options->skip_special, "Leave control tokens out of the text")
      ->needs(detokenize);
  command->footer(
      "Standard input is taken byte by byte, a newline at its end included. The ids are printed on one line, "
      "separated by blanks;\n"
      "nothing is added to them unless asked. Through a daemon the text must be UTF-8; offline any bytes "
      "will do.");
  return [options] { return RunTokenize(*options); };
}

}  // namespace mnemo::cli
