#include "client/cli/common.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace mnemo::cli {
namespace {

// Global, since the signal handler shares it. An InterruptGuard is the process's one reader.
std::atomic<int> g_interrupts{0};
std::atomic<int> g_interrupt_fd{-1};

void OnInterrupt(int) {
  const int saved_errno = errno;
  if (g_interrupts.fetch_add(1) >= 1) ::_exit(kExitInterrupted);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(g_interrupt_fd.load(), &one, sizeof one);
  errno = saved_errno;
}

void SetInterruptHandler(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace

void AddServerOptions(CLI::App* command, ServerOptions* options) {
  command->add_option("-a,--address", options->address, "Daemon: HOST:PORT or unix:/path")
      ->envname("MNEMO_ADDRESS")
      ->capture_default_str()
      ->type_name("ADDRESS");
  command
      ->add_option("--connect-timeout", options->connect_timeout,
                   "Longest wait for the connection (250ms, 5s, 1m)")
      ->capture_default_str()
      ->type_name("DURATION");
  command->add_flag("--wait", options->wait,
                    "Try to connect until --connect-timeout instead of giving up when refused");
}

int Fail(const absl::Status& status) {
  std::string line = "mnemo: " + absl::StatusCodeToString(status.code());
  // A call that gRPC itself ends, such as a cancelled one, may have its code's name for a message.
  const std::string message(status.message());
  if (!message.empty() && message != absl::StatusCodeToString(status.code())) line += ": " + message;
  std::fputs((line + "\n").c_str(), stderr);
  return kExitFailed;
}

int FailUsage(const std::string& message) {
  std::fprintf(stderr, "mnemo: %s\n", message.c_str());
  return kExitUsage;
}

int Connect(const ServerOptions& options, std::unique_ptr<client::Client>* client, bool private_connection) {
  const absl::StatusOr<std::chrono::nanoseconds> timeout = ParseDuration(options.connect_timeout);
  if (!timeout.ok()) return FailUsage("--connect-timeout: " + std::string(timeout.status().message()));
  client::ClientOptions client_options;
  client_options.connect_timeout = std::chrono::ceil<std::chrono::milliseconds>(*timeout);
  client_options.wait_for_server = options.wait;
  client_options.private_connection = private_connection;
  absl::StatusOr<std::unique_ptr<client::Client>> connected =
      client::Client::Connect(options.address, client_options);
  if (!connected.ok()) {
    Fail(connected.status());
    return kExitCannotConnect;
  }
  *client = *std::move(connected);
  return kExitOk;
}

std::string CheckSeed(const std::string& text) {
  uint64_t seed = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, seed);
  if (error == std::errc() && end == last) return "";
  return fmt::format("'{}' is no seed; wanted an integer in [0, 18446744073709551615]", text);
}

std::string CheckNumber(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (!text.empty() && *end == '\0' && std::isfinite(number)) return "";
  return fmt::format("'{}' is no number", text);
}

absl::StatusOr<std::chrono::nanoseconds> ParseDuration(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  const std::string unit(end);
  double seconds = 0;
  if (unit == "ms") {
    seconds = 1e-3;
  } else if (unit == "us") {
    seconds = 1e-6;
  } else if (unit == "s" || unit.empty()) {
    seconds = 1;
  } else if (unit == "m") {
    seconds = 60;
  } else if (unit == "h") {
    seconds = 3600;
  }
  constexpr double kMaxSeconds = 10.0 * 365 * 86400;
  const bool has_number = end != copy.c_str();
  if (!has_number || seconds == 0 || !std::isfinite(number) || number < 0 || number * seconds > kMaxSeconds) {
    return InvalidArgument("'{}' is no duration; wanted a number with us, ms, s, m or h, as in 250ms", copy);
  }
  return std::chrono::nanoseconds(std::llround(number * seconds * 1e9));
}

std::string FormatSeconds(double seconds) {
  if (!(seconds >= 0)) return "-";
  if (seconds < 1e-3) return fmt::format("{:.0f}us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f}ms", seconds * 1e3);
  if (seconds < 60) return fmt::format("{:.2f}s", seconds);
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m{:02}s", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}d{:02}h{:02}m", whole / 86400, whole / 3600 % 24, whole / 60 % 60);
}

std::string FormatBytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, units[unit]);
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}", row[i], widths[i] + 2);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

absl::StatusOr<std::string> ReadAll(int fd) {
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count == 0) return text;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      return absl::Status(absl::ErrnoToStatusCode(errno), fmt::format("read: {}", std::strerror(errno)));
    text.append(buffer, static_cast<size_t>(count));
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    const int error = errno;
    return absl::Status(absl::ErrnoToStatusCode(error), fmt::format("{}: {}", path, std::strerror(error)));
  }
  absl::StatusOr<std::string> text = ReadAll(fd.get());
  if (!text.ok()) return Annotate(text.status(), path);
  return text;
}

bool WriteOut(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      pollfd writable = {STDOUT_FILENO, POLLOUT, 0};
      ::poll(&writable, 1, -1);
      continue;
    }
    if (count < 0) {
      if (errno != EPIPE) std::fprintf(stderr, "mnemo: standard output: %s\n", std::strerror(errno));
      return false;
    }
    text.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

bool IsTerminal(int fd) { return ::isatty(fd) == 1; }

InterruptGuard::InterruptGuard(std::function<void()> on_interrupt) : stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (g_interrupt_fd.load() < 0) g_interrupt_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  MNEMO_CHECK(stop_.valid() && g_interrupt_fd.load() >= 0);
  g_interrupts = 0;
  thread_ = std::thread([stop = stop_.get(), on_interrupt = std::move(on_interrupt)] {
    pollfd fds[] = {{g_interrupt_fd.load(), POLLIN, 0}, {stop, POLLIN, 0}};
    while (true) {
      if (::poll(fds, 2, -1) < 0) continue;  // EINTR
      if (fds[1].revents != 0) return;
      uint64_t count = 0;
      if (::read(fds[0].fd, &count, sizeof count) == sizeof count) on_interrupt();
    }
  });
  SetInterruptHandler(OnInterrupt);
}

InterruptGuard::~InterruptGuard() {
  SetInterruptHandler(SIG_DFL);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
  uint64_t rest = 0;
  [[maybe_unused]] const ssize_t drained = ::read(g_interrupt_fd.load(), &rest, sizeof rest);
}

bool InterruptGuard::interrupted() const { return g_interrupts.load() > 0; }

}  // namespace mnemo::cli
