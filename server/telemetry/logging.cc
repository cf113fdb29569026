#include "server/telemetry/logging.h"

#include <fmt/chrono.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "server/telemetry/crash_report.h"
#include "server/telemetry/log_writer.h"

namespace mnemo::telemetry {
namespace {

// Maximum wait of a fatal signal for earlier lines.
constexpr std::chrono::milliseconds kCrashTime{300};
// Maximum time of the report itself.
constexpr unsigned kReportSeconds = 3;

// spdlog has no extra fields for a line. The thread that logs a line also formats it, so a thread-local
// variable carries the request's id.
thread_local std::string_view current_request_id;

absl::StatusOr<spdlog::level::level_enum> ParseLevel(const std::string& level) {
  static constexpr std::pair<std::string_view, spdlog::level::level_enum> kLevels[] = {
      {"trace", spdlog::level::trace}, {"debug", spdlog::level::debug}, {"info", spdlog::level::info},
      {"warn", spdlog::level::warn},   {"error", spdlog::level::err},
  };
  for (const auto& [name, value] : kLevels) {
    if (level == name) return value;
  }
  return InvalidArgument("log level \"{}\"; allowed: trace | debug | info | warn | error", level);
}

std::string_view LevelName(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warn";
    default:
      return "error";
  }
}

std::string TimeUtc(spdlog::log_clock::time_point time) {
  auto since_epoch = time.time_since_epoch();
  auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
  auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch - seconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(seconds.count())),
                     millis.count());
}

// Escapes line breaks: a message must not begin a line of its own, which would look like another log line.
void AppendOnOneLine(std::string_view text, spdlog::memory_buf_t* out) {
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      fmt::format_to(std::back_inserter(*out), "\\n");
    } else if (byte < 0x20 || byte == 0x7f) {
      fmt::format_to(std::back_inserter(*out), "\\x{:02x}", byte);
    } else {
      out->push_back(c);
    }
  }
}

class TextFormatter final : public spdlog::formatter {
 public:
  explicit TextFormatter(std::string process) : process_(std::move(process)) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    fmt::format_to(std::back_inserter(out), "{} {:5} {} ", TimeUtc(message.time), LevelName(message.level),
                   process_);
    if (!current_request_id.empty()) {
      out.push_back('[');
      AppendOnOneLine(current_request_id, &out);
      out.push_back(']');
      out.push_back(' ');
    }
    AppendOnOneLine({message.payload.data(), message.payload.size()}, &out);
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<TextFormatter>(process_);
  }

 private:
  std::string process_;
};

class JsonFormatter final : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string process) : process_(std::move(process)) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    nlohmann::ordered_json line;
    line["time"] = TimeUtc(message.time);
    line["level"] = LevelName(message.level);
    line["process"] = process_;
    if (!current_request_id.empty()) line["request_id"] = current_request_id;
    line["message"] = std::string_view(message.payload.data(), message.payload.size());
    // Bytes that are not UTF-8 become U+FFFD: a line is always valid JSON.
    std::string text = line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    text += '\n';
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>(process_);
  }

 private:
  std::string process_;
};

// Formats lines and hands them to the writer.
class WriterSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit WriterSink(std::shared_ptr<LogWriter> writer) : writer_(std::move(writer)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    writer_->Write({line.data(), line.size()});
  }
  void flush_() override {}

  const std::shared_ptr<LogWriter> writer_;
};

// Formats a line outside of any sink, for the writer's own reports.
std::string FormatLine(spdlog::formatter& formatter, spdlog::level::level_enum level,
                       const std::string& text) {
  spdlog::memory_buf_t line;
  formatter.format(spdlog::details::log_msg("", level, spdlog::string_view_t(text.data(), text.size())),
                   line);
  return {line.data(), line.size()};
}

std::unique_ptr<spdlog::formatter> MakeFormatter(const LogOptions& options) {
  if (options.format == "json") return std::make_unique<JsonFormatter>(options.process);
  return std::make_unique<TextFormatter>(options.process);
}

// The writer of this process. Set once in a program, several times in a test.
struct Current {
  std::mutex mutex;
  std::shared_ptr<LogWriter> writer;
  std::atomic<const LogWriter*> in_signal_handler{nullptr};
};
// Never destroyed: a signal may arrive after all destructors.
Current& TheCurrent() {
  static auto* const current = new Current;
  return *current;
}

std::shared_ptr<LogWriter> CurrentWriter() {
  Current& current = TheCurrent();
  std::lock_guard lock(current.mutex);
  return current.writer;
}

void SetWriter(std::shared_ptr<LogWriter> writer) {
  Current& current = TheCurrent();
  std::lock_guard lock(current.mutex);
  current.in_signal_handler.store(writer.get());
  current.writer.swap(writer);
}

// The first fatal signal, which the process ends by; 0: none yet.
std::atomic<int> fatal_signal{0};
std::atomic<pid_t> failed_thread{0};

[[noreturn]] void EndBy(int number) {
  std::signal(number, SIG_DFL);
  sigset_t this_one;
  sigemptyset(&this_one);
  sigaddset(&this_one, number);
  pthread_sigmask(SIG_UNBLOCK, &this_one, nullptr);
  std::raise(number);
  ::_exit(128 + number);
}

// A report that does not end, since the failed thread holds a lock that the unwinder wants.
void OnLateReport(int) { EndBy(fatal_signal.load()); }

// The writer's thread continues while the failed thread is in this handler.
void OnFatalSignal(int number, siginfo_t* info, void* context) {
  int none = 0;
  if (!fatal_signal.compare_exchange_strong(none, number)) {
    if (failed_thread.load() == ::gettid()) EndBy(fatal_signal.load());
    // The thread that failed first ends the process.
    while (true) ::pause();
  }
  failed_thread.store(::gettid());
  std::signal(SIGALRM, &OnLateReport);
  ::alarm(kReportSeconds);
  if (const LogWriter* writer = TheCurrent().in_signal_handler.load())
    writer->WaitInSignalHandler(kCrashTime);
  WriteCrashReport(number, info, context);
  EndBy(number);
}

void WatchFatalSignals() {
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    struct sigaction action = {};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    // A sanitizer's own handler stays in place. Those of libraries do not: UCX has some that print nothing.
    if (::sigaction(number, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
    action = {};
#endif
    action.sa_sigaction = &OnFatalSignal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    ::sigaction(number, &action, nullptr);
  }
}

// Libraries (gRPC, protobuf) and MNEMO_CHECK print to stderr; without this they would wait for it.
ssize_t LogPrinted(void* /*cookie*/, const char* data, size_t size) {
  thread_local bool is_inside = false;  // spdlog reports its own errors on stderr
  if (std::exchange(is_inside, true)) return static_cast<ssize_t>(size);
  std::string_view text(data, size);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (!line.empty()) spdlog::error("{}", line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  is_inside = false;
  return static_cast<ssize_t>(size);
}

// stderr is an assignable variable: "Standard Streams" in the manual of the GNU C Library.
void LogWhatIsPrinted() {
  static const bool is_done = [] {
    cookie_io_functions_t functions = {};
    functions.write = &LogPrinted;
    FILE* stream = ::fopencookie(nullptr, "w", functions);
    if (stream == nullptr) return false;
    std::setvbuf(stream, nullptr, _IOLBF, BUFSIZ);
    stderr = stream;
    return true;
  }();
  (void)is_done;
}

}  // namespace

absl::Status SetUpLogging(const LogOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(spdlog::level::level_enum level, ParseLevel(options.level));
  if (options.format != "text" && options.format != "json") {
    return InvalidArgument("log format \"{}\"; allowed: text | json", options.format);
  }
  LogWriter::Options writing;
  writing.file = options.file;
  writing.file_may_wait = options.file_may_wait;
  const std::shared_ptr<spdlog::formatter> own_lines = MakeFormatter(options);
  writing.notice = [own_lines](uint64_t dropped) {
    return FormatLine(
        *own_lines, spdlog::level::warn,
        fmt::format("{} lines of this log are missing here: they could not be written in time", dropped));
  };
  writing.reopen_failed = [own_lines](const std::string& why) {
    return FormatLine(*own_lines, spdlog::level::err, why + "; it is tried again each second");
  };
  MNEMO_ASSIGN_OR_RETURN(std::shared_ptr<LogWriter> writer, LogWriter::Open(std::move(writing)));
  auto logger = std::make_shared<spdlog::logger>(options.process, std::make_shared<WriterSink>(writer));
  logger->set_formatter(MakeFormatter(options));
  logger->set_level(level);
  spdlog::set_default_logger(std::move(logger));
  SetWriter(std::move(writer));
  PrepareCrashReport({options.process, options.format == "json", options.file});
  WatchFatalSignals();
  LogWhatIsPrinted();
  return absl::OkStatus();
}

void ReopenLog() {
  if (const std::shared_ptr<LogWriter> writer = CurrentWriter()) writer->Reopen();
}

uint64_t LogLinesDropped() {
  const std::shared_ptr<LogWriter> writer = CurrentWriter();
  return writer != nullptr ? writer->dropped() : 0;
}

void FlushLog(std::chrono::milliseconds timeout) {
  if (const std::shared_ptr<LogWriter> writer = CurrentWriter()) writer->Flush(timeout);
}

void EndLogging() {
  if (const std::shared_ptr<LogWriter> writer = CurrentWriter()) writer->Close();
}

absl::Status SetLogLevel(const std::string& level) {
  MNEMO_ASSIGN_OR_RETURN(spdlog::level::level_enum value, ParseLevel(level));
  spdlog::default_logger_raw()->set_level(value);
  return absl::OkStatus();
}

void LogRequest(LogLevel level, const std::string& request_id, const std::string& message) {
  spdlog::level::level_enum value = spdlog::level::info;
  switch (level) {
    case LogLevel::kDebug:
      value = spdlog::level::debug;
      break;
    case LogLevel::kInfo:
      break;
    case LogLevel::kWarn:
      value = spdlog::level::warn;
      break;
    case LogLevel::kError:
      value = spdlog::level::err;
      break;
  }
  current_request_id = request_id;
  spdlog::default_logger_raw()->log(value, spdlog::string_view_t(message.data(), message.size()));
  current_request_id = {};
}

}  // namespace mnemo::telemetry
