#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/json_output.h"
#include "client/cli/request_options.h"

namespace mnemo::cli {
namespace {

constexpr char kHelp[] =
    "/system TEXT  set the system message (without TEXT: remove it)\n"
    "/clear        forget the conversation\n"
    "/save FILE    write the conversation as JSON\n"
    "/help         this list\n"
    "/exit         leave (or Ctrl-D)\n"
    "Ctrl-C stops the running answer.\n";

struct ChatOptions {
  ServerOptions server;
  RequestOptions request;
  bool stats = false;
};

enum class ReadResult { kLine, kInterrupted, kEnd };

// Lines from standard input. Ctrl-C at the prompt drops the line that was begun.
class LineReader {
 public:
  ReadResult Read(std::string* line) {
    InstallInterrupt();
    const ReadResult result = ReadUntilNewline(line);
    RestoreInterrupt();
    return result;
  }

 private:
  void InstallInterrupt() {
    struct sigaction action = {};
    action.sa_handler = [](int) {};  // without SA_RESTART, so that read() returns
    ::sigaction(SIGINT, &action, &previous_);
  }
  void RestoreInterrupt() { ::sigaction(SIGINT, &previous_, nullptr); }

  ReadResult ReadUntilNewline(std::string* line) {
    while (true) {
      if (const size_t newline = buffer_.find('\n'); newline != std::string::npos) {
        *line = buffer_.substr(0, newline);
        buffer_.erase(0, newline + 1);
        return ReadResult::kLine;
      }
      char chunk[4096];
      const ssize_t count = ::read(STDIN_FILENO, chunk, sizeof chunk);
      if (count < 0 && errno == EINTR) {
        buffer_.clear();
        return ReadResult::kInterrupted;
      }
      if (count <= 0) {
        if (buffer_.empty()) return ReadResult::kEnd;
        *line = std::exchange(buffer_, std::string());  // a last line without a newline
        return ReadResult::kLine;
      }
      buffer_.append(chunk, static_cast<size_t>(count));
    }
  }

  std::string buffer_;
  struct sigaction previous_ = {};
};

std::string RandomSession() {
  uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) number = static_cast<uint64_t>(::getpid());
  return fmt::format("chat-{:016x}", number);
}

class Conversation {
 public:
  // `chat`: settings and first messages, without the system message of the options.
  Conversation(const ChatOptions& options, v1::Chat chat, client::Client* client)
      : options_(options), client_(client), system_(options.request.system), chat_(std::move(chat)) {
    messages_.assign(chat_.messages().begin(), chat_.messages().end());
    chat_.clear_messages();
    session_ = options.request.session.empty() ? RandomSession() : options.request.session;
  }

  int Run() {
    const bool terminal = IsTerminal(STDIN_FILENO);
    if (terminal) std::fputs("Type /help for the commands.\n", stderr);
    int code = kExitOk;
    for (bool interrupted = false; true;) {
      if (terminal) std::fputs("> ", stderr);
      std::string line;
      const ReadResult result = reader_.Read(&line);
      if (result == ReadResult::kEnd) break;
      if (result == ReadResult::kInterrupted) {
        if (interrupted || !terminal) {
          code = kExitInterrupted;
          break;
        }
        std::fputs("\n(Ctrl-C again or /exit to leave)\n", stderr);
        interrupted = true;
        continue;
      }
      interrupted = false;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      if (line[0] == '/') {
        if (!Command(line)) break;
        continue;
      }
      const int answered = Answer(line);
      if (answered == kExitBrokenPipe) return answered;
      // A script gets the exit code; a person has read the message.
      if (answered != kExitOk && !terminal) code = answered;
    }
    client::CallOptions brief;
    brief.timeout = std::chrono::seconds(1);
    brief.retry.max_attempts = 1;
    if (options_.request.session.empty()) (void)client_->EndSession(session_, brief);
    if (terminal) std::fputs("\n", stderr);
    return code;
  }

 private:
  // False = end the chat.
  bool Command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help") {
      std::fputs(kHelp, stderr);
    } else if (name == "/clear") {
      messages_.clear();
    } else if (name == "/system") {
      system_ = argument;
    } else if (name == "/save") {
      Save(argument);
    } else {
      std::fprintf(stderr, "mnemo: unknown command %s; /help lists them\n", name.c_str());
    }
    return true;
  }

  void Save(const std::string& path) const {
    if (path.empty()) {
      std::fputs("mnemo: /save needs a file name\n", stderr);
      return;
    }
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const v1::Chat::Message& message : AllMessages()) {
      nlohmann::ordered_json entry = {{"role", message.role()}, {"content", message.content()}};
      if (!message.name().empty()) entry["name"] = message.name();
      if (!message.tool_call_id().empty()) entry["tool_call_id"] = message.tool_call_id();
      if (!message.tool_calls_json().empty()) {
        entry["tool_calls"] = nlohmann::ordered_json::parse(message.tool_calls_json());
      }
      list.push_back(std::move(entry));
    }
    std::ofstream file(path, std::ios::binary);
    file << nlohmann::ordered_json({{"messages", std::move(list)}}).dump(2) << "\n";
    file.close();
    if (!file) std::fprintf(stderr, "mnemo: cannot write %s\n", path.c_str());
  }

  std::vector<v1::Chat::Message> AllMessages() const {
    std::vector<v1::Chat::Message> all;
    if (!system_.empty()) all.push_back(Message("system", system_));
    all.insert(all.end(), messages_.begin(), messages_.end());
    return all;
  }

  static v1::Chat::Message Message(const std::string& role, const std::string& content) {
    v1::Chat::Message message;
    message.set_role(role);
    message.set_content(content);
    return message;
  }

  // An answer that was cut short by Ctrl-C stays in the history as far as it was seen; a failed turn leaves
  // no trace in it.
  int Answer(const std::string& text) {
    v1::GenerateRequest request;
    client::CallOptions call;
    if (const absl::Status status = ApplyRequestOptions(options_.request, &request, &call); !status.ok())
      return Fail(status);
    request.set_session_id(session_);
    *request.mutable_chat() = chat_;
    messages_.push_back(Message("user", text));
    for (v1::Chat::Message& message : AllMessages())
      *request.mutable_chat()->add_messages() = std::move(message);

    const std::unique_ptr<client::GenerateStream> stream = client_->Generate(std::move(request), call);
    InterruptGuard interrupt([&] { stream->Cancel(); });
    client::Completion completion;
    bool output_closed = false;
    while (std::optional<v1::GenerateResponse> message = stream->Next()) {
      if (!output_closed && !WriteOut(message->delta().text())) {
        output_closed = true;
        stream->Cancel();
      }
      completion.Add(*std::move(message));
    }
    if (output_closed) return kExitBrokenPipe;
    if (!completion.text.empty() && completion.text.back() != '\n') WriteOut("\n");
    const bool cut = interrupt.interrupted() && absl::IsCancelled(stream->status());
    if (stream->status().ok() || (cut && !completion.text.empty())) {
      messages_.push_back(Message("assistant", completion.text));
    } else {
      messages_.pop_back();
    }
    if (stream->status().ok()) {
      if (options_.stats && completion.final.has_value()) PrintStats(*completion.final);
      return kExitOk;
    }
    if (cut) {
      std::fputs("(stopped)\n", stderr);
      return kExitInterrupted;
    }
    return Fail(stream->status());
  }

  static void PrintStats(const v1::Final& final) {
    std::fprintf(stderr, "(%d prompt tokens, %d cached, %d generated, first token %s, total %s)\n",
                 final.usage().prompt_tokens(), final.usage().cached_prompt_tokens(),
                 final.usage().completion_tokens(),
                 FormatSeconds(Seconds(final.timing().time_to_first_token())).c_str(),
                 FormatSeconds(Seconds(final.timing().total())).c_str());
  }

  const ChatOptions& options_;
  client::Client* client_;
  LineReader reader_;
  std::string system_;
  std::string session_;
  v1::Chat chat_;                            // settings alone
  std::vector<v1::Chat::Message> messages_;  // without the system message
};

}  // namespace

RunCommand AddChat(CLI::App* command) {
  auto options = std::make_shared<ChatOptions>();
  command->add_flag("--stats", options->stats,
                    "Print token counts and times on standard error after each answer");
  AddServerOptions(command, &options->server);
  constexpr char kLines[] = "each line of standard input is a message";
  constexpr char kPrints[] = "a chat prints text alone; use mnemo generate --chat --json";
  constexpr char kTurns[] = "the last message is yours, and the answer the model's";
  constexpr char kTemplate[] =
      "a chat is rendered by the model's template, and its text is never a control token";
  using Kind = Variation::Kind;
  const Variation variations[] = {{"prompt", Kind::kRefuse, kLines},
                                  {"--file", Kind::kRefuse, kLines},
                                  {"--token-ids", Kind::kRefuse, kLines},
                                  {"--chat", Kind::kRefuse, "it is one always"},
                                  {"--parse-special", Kind::kRefuse, kTemplate},
                                  {"--add-special", Kind::kRefuse, kTemplate},
                                  {"--no-add-special", Kind::kRefuse, kTemplate},
                                  {"--omit-generation-prompt", Kind::kRefuse, kTurns},
                                  {"--continue-final-message", Kind::kRefuse, kTurns},
                                  {"--logprobs", Kind::kRefuse, kPrints},
                                  {"--prompt-logprobs", Kind::kRefuse, kPrints},
                                  {"--prompt-logprobs-from", Kind::kRefuse, kPrints}};
  AddRequestOptions(command, &options->request, variations);
  command->footer(std::string("One line of standard input is one message; answers go to standard output.\n") +
                  kHelp);
  return [options] {
    v1::GenerateRequest unused;
    client::CallOptions call;
    if (const absl::Status status = ApplyRequestOptions(options->request, &unused, &call); !status.ok()) {
      return FailUsage(std::string(status.message()));
    }
    RequestOptions without_system = options->request;
    without_system.system.clear();  // /system may change it
    absl::StatusOr<v1::Chat> chat = MakeChat(without_system);
    if (!chat.ok()) return FailUsage(std::string(chat.status().message()));
    std::unique_ptr<client::Client> client;
    if (const int code = Connect(options->server, &client); code != kExitOk) return code;
    return Conversation(*options, *std::move(chat), client.get()).Run();
  };
}

}  // namespace mnemo::cli
