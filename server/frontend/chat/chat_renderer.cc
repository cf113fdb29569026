#include "server/frontend/chat/chat_renderer.h"

#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "server/dispatch/backoff.h"
#include "server/dispatch/child_process.h"
#include "server/frontend/chat/frame_channel.h"

namespace mnemo::chat {

// The Python files of this folder, by name.
extern const std::span<const std::pair<std::string_view, std::string_view>> kChatScripts;

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;
using std::chrono::milliseconds;

// Time from the start of the child to its first message.
constexpr milliseconds kStartTime{20000};
// Time that a chat waits for a child that is restarting.
constexpr milliseconds kReadyTime{10000};
constexpr milliseconds kFirstPause{100};
constexpr milliseconds kLongestPause{5000};

std::string_view Script(std::string_view name) {
  for (const auto& [known, text] : kChatScripts) {
    if (known == name) return text;
  }
  MNEMO_CHECK(false);
  return {};
}

// Invalid UTF-8, which a model file may contain, becomes the replacement character.
std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::string Modules() {
  json modules = json::array();
  for (const char* name : {"tracked_text", "template_environment", "template_child"}) {
    modules.push_back({name, Script(name)});
  }
  return Dump(modules);
}

std::string Setup(const ChatRenderer::Options& options) {
  json templates = {{"default", options.chat_template.text}};
  if (!options.chat_template.tool_use_text.empty())
    templates["tool_use"] = options.chat_template.tool_use_text;
  return Dump({{"templates", std::move(templates)},
               {"special_tokens", options.chat_template.special_tokens},
               {"control_tokens", options.control_tokens},
               {"timeout_ms", options.timeout.count()},
               {"memory_bytes", options.memory_bytes},
               {"output_bytes", options.output_bytes}});
}

std::string Request(const model::ChatRequest& request, const model::ChatTemplate& chat_template) {
  json messages = json::array();
  for (const model::ChatMessage& message : request.messages) {
    json made = {{"role", message.role}, {"content", message.content}};
    if (!message.name.empty()) made["name"] = message.name;
    if (!message.tool_call_id.empty()) made["tool_call_id"] = message.tool_call_id;
    if (!message.tool_calls_json.empty()) made["tool_calls_json"] = message.tool_calls_json;
    messages.push_back(std::move(made));
  }
  const bool has_tools = !request.tools_json.empty();
  json made = {{"template", has_tools && !chat_template.tool_use_text.empty() ? "tool_use" : "default"},
               {"messages", std::move(messages)},
               {"template_args", request.template_args},
               {"add_generation_prompt", !request.omit_generation_prompt && !request.continue_final_message},
               {"continue_final_message", request.continue_final_message}};
  if (has_tools) made["tools_json"] = request.tools_json;
  return Dump(made);
}

// Message format: a JSON header preceded by its length, then text.
struct Answer {
  json header;
  // Text of the frame.
  std::string_view text;
};

std::optional<Answer> Parse(std::string_view frame) {
  if (frame.size() < 4) return std::nullopt;
  size_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(frame[static_cast<size_t>(i)]);
  if (frame.size() - 4 < length) return std::nullopt;
  Answer answer{json::parse(frame.substr(4, length), nullptr, false), frame.substr(4 + length)};
  if (!answer.header.is_object()) return std::nullopt;
  return answer;
}

// Returns an empty string when the key is absent or not text: the form of the child's answers is not trusted.
std::string TextOf(const json& header, const char* key) {
  const auto found = header.find(key);
  return found != header.end() && found->is_string() ? found->get<std::string>() : "";
}

// Parses ranges as the child sends them: begin, end, begin, end, ... Returns false unless they are ascending
// ranges of the text.
bool FillLiteral(const json& offsets, size_t text_bytes, std::vector<model::ByteRange>* literal) {
  if (!offsets.is_array() || offsets.size() % 2 != 0) return false;
  size_t at = 0;
  for (size_t i = 0; i < offsets.size(); i += 2) {
    if (!offsets[i].is_number_unsigned() || !offsets[i + 1].is_number_unsigned()) return false;
    const model::ByteRange range{offsets[i].get<size_t>(), offsets[i + 1].get<size_t>()};
    if (range.begin < at || range.end < range.begin || range.end > text_bytes) return false;
    at = range.end;
    literal->push_back(range);
  }
  return true;
}

absl::Status Describe(const std::string& kind, const std::string& message,
                      const ChatRenderer::Options& options) {
  const std::string& origin = options.chat_template.origin;
  if (kind == "field") return InvalidArgument("chat.{}", message);
  if (kind == "memory") {
    return InvalidArgument(
        "chat: the template ({}) needs more memory than text.template_memory_bytes, {}, for it", origin,
        options.memory_bytes);
  }
  if (kind == "output") {
    return InvalidArgument(
        "chat: the template ({}) makes more text of it than text.template_output_bytes, {}", origin,
        options.output_bytes);
  }
  return InvalidArgument("chat: the template ({}) refuses it: {}", origin, message);
}

}  // namespace

struct ChatRenderer::Impl {
  explicit Impl(Options given) : options(std::move(given)), setup(Setup(options)) {}

  enum class State { kDown, kReady, kBusy, kCondemned };  // kCondemned: killed, not yet reaped

  void Supervise();
  std::string Start(dispatch::ChildProcess* process);
  void WatchLife(int pidfd);
  bool Pause(milliseconds time);
  void DrainWake();
  bool IsStopping() const {
    std::lock_guard lock(mutex);
    return stopping;
  }
  absl::StatusOr<int> Acquire();
  void Release(State next);

  const Options options;
  const std::string setup;
  UniqueFd wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

  // Guards the members below.
  mutable std::mutex mutex;
  std::condition_variable changed;
  State state = State::kDown;
  // Created and destroyed by the supervising thread, never while busy.
  std::optional<dispatch::ChildProcess> child;
  int shown_pid = 0;
  bool has_tried = false;
  // Reason why there is no child, for waiting callers.
  std::string trouble;
  // Permanent: the template does not compile.
  absl::Status compile_error;
  bool stopping = false;
  std::thread thread;
};

// Starts one child and waits for its first message. Returns a description of the failure; empty on success.
std::string ChatRenderer::Impl::Start(dispatch::ChildProcess* process) {
  const Deadline deadline = Clock::now() + kStartTime;
  const FrameChannel channel(process->lifeline(), wake.get());
  std::string hello;
  for (const std::string& frame : {Modules(), setup}) {
    if (channel.Send(frame, deadline) != FrameChannel::Result::kDone) return "it takes no words";
  }
  switch (channel.Receive(1 << 20, deadline, &hello)) {
    case FrameChannel::Result::kDone:
      break;
    case FrameChannel::Result::kLate:
      return fmt::format("not ready within {} ms", kStartTime.count());
    default:
      return "it ended at once";
  }
  const std::optional<Answer> answer = Parse(hello);
  if (!answer.has_value()) return "its first word is not understood";
  if (const std::string fatal = TextOf(answer->header, "fatal"); !fatal.empty()) {
    return fmt::format("{}; chat templates need Python 3 with Jinja2 (Debian: python3-jinja2)", fatal);
  }
  std::string errors;
  const json compile_errors = answer->header.value("errors", json());
  for (const auto& [name, error] : compile_errors.items()) {
    if (!errors.empty()) errors += "; ";
    if (name != "default") errors += name + ": ";
    errors += error.is_string() ? error.get<std::string>() : "";
  }
  std::lock_guard lock(mutex);
  if (!errors.empty()) {
    compile_error = Unimplemented(
        "the chat template ({}) does not compile: {}; set model.chat_template in the configuration to a file "
        "with "
        "another one, or to a family: {}",
        options.chat_template.origin, errors, fmt::join(model::ChatTemplate::Families(), ", "));
  } else if (answer->header.value("restricted", json()) != json(true)) {
    spdlog::warn("chat templates: the system does not restrict the system calls of process {}",
                 process->pid());
  }
  return "";
}

void ChatRenderer::Impl::Supervise() {
  dispatch::Backoff backoff;
  std::string last_logged;
  while (true) {
    DrainWake();
    if (IsStopping()) return;
    Clock::time_point ready_time = Clock::now();
    std::string why;
    bool was_ready = false;
    bool was_condemned = false;
    absl::StatusOr<dispatch::ChildProcess> process =
        dispatch::ChildProcess::Spawn(options.interpreter, {"-I", "-c", std::string(Script("boot"))}, -1);
    if (!process.ok()) {
      why = std::string(process.status().message());
    } else {
      why = Start(&*process);
      const int pidfd = process->pidfd();
      {
        std::lock_guard lock(mutex);
        child = *std::move(process);
        ready_time = Clock::now();
        was_ready = why.empty() && compile_error.ok();
        if (was_ready) {
          state = State::kReady;
          shown_pid = child->pid();
        }
        trouble = why;
        has_tried = true;
      }
      changed.notify_all();
      if (was_ready) {
        last_logged.clear();
        WatchLife(pidfd);
      }
      std::unique_lock lock(mutex);
      shown_pid = 0;
      changed.wait(lock, [this] { return state != State::kBusy; });
      was_condemned = state == State::kCondemned;
      state = State::kDown;
      child->Signal(SIGKILL);
      std::optional<std::string> how;
      while (!(how = child->Reap()).has_value()) {
        pollfd end{pidfd, POLLIN, 0};
        ::poll(&end, 1, 1000);
      }
      child.reset();
      if (!compile_error.ok() || stopping) return;
      if (why.empty()) why = *how;
    }
    // The child was killed because one chat exceeded a limit: other chats need not wait for the back-off.
    const auto ready_for = was_ready ? Clock::now() - ready_time : Clock::duration(0);
    const milliseconds pause =
        was_condemned ? milliseconds(0) : backoff.Next(ready_for, kFirstPause, kLongestPause);
    {
      std::lock_guard lock(mutex);
      trouble = why;
      has_tried = true;
    }
    changed.notify_all();
    if (!was_condemned && why != last_logged) {
      spdlog::warn("chat templates: {} ended or does not start: {}; next start in {} ms", options.interpreter,
                   why, pause.count());
      last_logged = why;
    }
    if (!Pause(pause)) return;
  }
}

// Returns when the child has ended, is condemned, or the renderer stops.
void ChatRenderer::Impl::WatchLife(int pidfd) {
  while (true) {
    pollfd fds[] = {{pidfd, POLLIN, 0}, {wake.get(), POLLIN, 0}};
    ::poll(fds, 2, -1);
    std::lock_guard lock(mutex);
    if (fds[0].revents != 0 || state == State::kCondemned || stopping) {
      if (state == State::kReady) state = State::kDown;
      return;
    }
    DrainWake();
  }
}

void ChatRenderer::Impl::DrainWake() {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = ::read(wake.get(), &count, sizeof count);
}

// Returns false when the renderer stops.
bool ChatRenderer::Impl::Pause(milliseconds time) {
  std::unique_lock lock(mutex);
  return !changed.wait_for(lock, time, [this] { return stopping; });
}

// Waits for a ready child and takes it; returns its socket.
absl::StatusOr<int> ChatRenderer::Impl::Acquire() {
  std::unique_lock lock(mutex);
  auto give_up = Clock::now() + kReadyTime;
  while (true) {
    if (stopping) return Unavailable("chat: the server is shutting down");
    if (!compile_error.ok()) return compile_error;
    if (state == State::kReady) break;
    // Chats ahead of this one have their own time limits; a missing child has a limited time to come back.
    if (state == State::kBusy) {
      changed.wait(lock);
      give_up = Clock::now() + kReadyTime;
    } else if (changed.wait_until(lock, give_up) == std::cv_status::timeout) {
      return Unavailable("chat: the process that renders chat templates is not there: {}",
                         trouble.empty() ? "it is being started" : trouble);
    }
  }
  state = State::kBusy;
  return child->lifeline();
}

void ChatRenderer::Impl::Release(State next) {
  {
    std::lock_guard lock(mutex);
    state = next;
    if (next == State::kCondemned) {
      shown_pid = 0;
      child->Signal(SIGKILL);
    }
  }
  if (next != State::kReady) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake.get(), &one, sizeof one);
  }
  changed.notify_all();
}

ChatRenderer::ChatRenderer(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {
  impl_->thread = std::thread([raw = impl_.get()] { raw->Supervise(); });
}

ChatRenderer::~ChatRenderer() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(impl_->wake.get(), &one, sizeof one);
  impl_->changed.notify_all();
  impl_->thread.join();
}

absl::Status ChatRenderer::WaitStarted() {
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [this] { return impl_->has_tried || impl_->stopping; });
  if (!impl_->compile_error.ok()) return impl_->compile_error;
  if (impl_->trouble.empty()) return absl::OkStatus();
  return Unavailable("chat: the process that renders chat templates does not start: {}", impl_->trouble);
}

int ChatRenderer::child_pid() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->shown_pid;
}

absl::StatusOr<model::RenderedChat> ChatRenderer::Render(const model::ChatRequest& request) {
  const Options& options = impl_->options;
  const std::string body = Request(request, options.chat_template);
  std::string frame;
  // A child that dies while it renders may have been killed from outside. The chat is retried once; after a
  // second death it is refused.
  for (int attempt = 0;; ++attempt) {
    MNEMO_ASSIGN_OR_RETURN(const int fd, impl_->Acquire());
    const FrameChannel channel(fd, -1);
    const Deadline deadline = Clock::now() + options.timeout;
    FrameChannel::Result result = channel.Send(body, deadline);
    // JSON in front of the text adds at most two numbers per character of the text.
    const size_t most = static_cast<size_t>(options.output_bytes) + (size_t{512} << 20);
    if (result == FrameChannel::Result::kDone) result = channel.Receive(most, deadline, &frame);
    if (result == FrameChannel::Result::kDone) break;
    impl_->Release(Impl::State::kCondemned);
    if (result == FrameChannel::Result::kLate) {
      return InvalidArgument(
          "chat: the template ({}) takes longer than text.template_timeout_ms, {} ms, for it",
          options.chat_template.origin, options.timeout.count());
    }
    if (attempt > 0)
      return Internal("chat: the process that renders chat templates ended twice while it rendered it");
  }
  const std::optional<Answer> answer = Parse(frame);
  if (!answer.has_value()) {
    impl_->Release(Impl::State::kCondemned);
    return Internal("chat: the answer of the process that renders chat templates is not understood");
  }
  const std::string kind = TextOf(answer->header, "error");
  impl_->Release(kind == "memory" ? Impl::State::kCondemned : Impl::State::kReady);
  if (!kind.empty()) return Describe(kind, TextOf(answer->header, "message"), options);
  model::RenderedChat chat;
  chat.text = answer->text;
  if (!FillLiteral(answer->header.value("literal", json()), chat.text.size(), &chat.literal)) {
    return Internal("chat: the ranges of the process that renders chat templates are wrong");
  }
  LeaveBosToEncoder(options.chat_template, &chat);
  return chat;
}

}  // namespace mnemo::chat
