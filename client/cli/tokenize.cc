#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "server/model/gguf.h"
#include "server/model/tokenizer.h"

namespace mnemo::cli {
namespace {

struct TokenizeOptions {
  ServerOptions server;
  std::string gguf;
  std::string model;
  std::string file;
  bool add_special = false;
  bool parse_special = false;
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
  encode.add_special = options.add_special;
  encode.parse_special = options.parse_special;
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

int RunOnline(const TokenizeOptions& options, const std::string& input) {
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  if (options.detokenize) {
    const absl::StatusOr<std::vector<int32_t>> ids = ParseIdList(input);
    if (!ids.ok()) return Fail(ids.status());
    v1::DetokenizeRequest request;
    request.set_model(options.model);
    request.set_skip_special_tokens(options.skip_special);
    request.mutable_ids()->Add(ids->begin(), ids->end());
    const absl::StatusOr<v1::DetokenizeResponse> response = client->Detokenize(request);
    if (!response.ok()) return Fail(response.status());
    return WriteOut(response->text()) ? kExitOk : kExitBrokenPipe;
  }
  v1::TokenizeRequest request;
  request.set_model(options.model);
  request.set_text(input);
  request.set_add_special(options.add_special);
  request.set_parse_special(options.parse_special);
  const absl::StatusOr<v1::TokenizeResponse> response = client->Tokenize(request);
  if (!response.ok()) return Fail(response.status());
  Tokens tokens;
  tokens.ids.assign(response->ids().begin(), response->ids().end());
  tokens.pieces.assign(response->pieces().begin(), response->pieces().end());
  tokens.pieces.resize(tokens.ids.size());
  return WriteOut(FormatTokens(tokens, options.pieces)) ? kExitOk : kExitBrokenPipe;
}

int RunTokenize(const TokenizeOptions& options) {
  const absl::StatusOr<std::string> input =
      options.file.empty() ? ReadAll(STDIN_FILENO) : ReadFile(options.file);
  if (!input.ok()) return Fail(input.status());
  return options.gguf.empty() ? RunOnline(options, *input) : RunOffline(options, *input);
}

}  // namespace

RunCommand AddTokenize(CLI::App* command) {
  auto options = std::make_shared<TokenizeOptions>();
  AddServerOptions(command, &options->server);
  command
      ->add_option("--gguf", options->gguf,
                   "Work offline with this model file; one with a vocabulary and no tensors is enough")
      ->type_name("FILE");
  command->add_option("-m,--model", options->model, "Model of the daemon; default: its own default")
      ->excludes("--gguf");
  command->add_option("-f,--file", options->file, "Read from a file instead of standard input")
      ->type_name("FILE");
  command->add_flag("--add-special", options->add_special,
                    "Add begin-of-text and the like, as the model says");
  command->add_flag("--parse-special", options->parse_special, "Control-token text becomes control tokens");
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
