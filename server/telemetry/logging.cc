#include "server/telemetry/logging.h"

#include <fmt/chrono.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace mnemo::telemetry {
namespace {

// spdlog has no fields of its own for a line. The sinks are synchronous, so a line is formatted by the thread
// that writes it, and the thread can carry the request's id over.
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

// A message must not be able to begin a line of its own, which a reader would take for ours.
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

}  // namespace

absl::Status SetUpLogging(const LogOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(spdlog::level::level_enum level, ParseLevel(options.level));
  std::unique_ptr<spdlog::formatter> formatter;
  if (options.format == "text") {
    formatter = std::make_unique<TextFormatter>(options.process);
  } else if (options.format == "json") {
    formatter = std::make_unique<JsonFormatter>(options.process);
  } else {
    return InvalidArgument("log format \"{}\"; allowed: text | json", options.format);
  }
  spdlog::sink_ptr sink;
  if (options.file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
    } catch (const spdlog::spdlog_ex& error) {
      return InvalidArgument("log file {}: {}", options.file, error.what());
    }
  }
  auto logger = std::make_shared<spdlog::logger>(options.process, std::move(sink));
  logger->set_formatter(std::move(formatter));
  logger->set_level(level);
  // The last lines before a crash are the ones that are wanted.
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
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
