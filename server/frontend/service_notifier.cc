#include "server/frontend/service_notifier.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <utility>

#include "devices/base/clock.h"
#include "devices/base/service_manager.h"

namespace mnemo::frontend {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Hundredths of a second of CPU time, and page faults that read a file. A process that waits for a dead disk
// has neither.
uint64_t ProgressOfProcess() {
  rusage used = {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto Hundredths = [](const timeval& time) {
    return static_cast<uint64_t>(time.tv_sec) * 100 + static_cast<uint64_t>(time.tv_usec) / 10000;
  };
  return Hundredths(used.ru_utime) + Hundredths(used.ru_stime) + static_cast<uint64_t>(used.ru_majflt);
}

std::string Extension(milliseconds time) {
  return fmt::format("EXTEND_TIMEOUT_USEC={}", microseconds(time).count());
}

}  // namespace

ServiceNotifier::ServiceNotifier()
    : ServiceNotifier({.send = NotifySystemd, .progress = ProgressOfProcess}) {}

ServiceNotifier::ServiceNotifier(Options options)
    : options_(std::move(options)), thread_([this] { Loop(); }) {}

ServiceNotifier::~ServiceNotifier() {
  {
    std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ServiceNotifier::Loading(std::string_view phase) {
  std::lock_guard lock(mutex_);
  options_.send(fmt::format("STATUS={}", phase));
}

void ServiceNotifier::Listening(const std::string& serving, milliseconds worker_start_timeout) {
  std::lock_guard lock(mutex_);
  serving_ = serving;
  is_loading_ = false;
  changed_.notify_all();
  if (!is_ready_) options_.send(Extension(worker_start_timeout + options_.extension));
  TellState("");
}

void ServiceNotifier::SetReady(bool is_ready) {
  std::lock_guard lock(mutex_);
  is_ready_ = is_ready;
  if (!is_loading_) TellState("");
}

void ServiceNotifier::TellState(const std::string& prefix) {
  if (is_stopping_) return;
  std::string message = prefix;
  if (is_ready_ && !was_ready_) {
    was_ready_ = true;
    message += "READY=1\n";
  }
  const char* waiting = was_ready_ ? "no worker takes requests" : "starting workers";
  options_.send(message + "STATUS=" + (is_ready_ ? serving_ : waiting));
}

void ServiceNotifier::BeginReload() {
  std::lock_guard lock(mutex_);
  if (!was_ready_ || is_stopping_) return;
  options_.send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", NowNs() / 1000));
}

void ServiceNotifier::EndReload(const std::string& outcome) {
  std::lock_guard lock(mutex_);
  if (is_stopping_) return;
  // A message has one line a variable.
  const std::string line = outcome.substr(0, outcome.find('\n'));
  options_.send((was_ready_ ? "READY=1\n" : "") + ("STATUS=" + line));
}

void ServiceNotifier::Stopping(const std::string& status) {
  std::lock_guard lock(mutex_);
  is_stopping_ = true;
  options_.send("STOPPING=1\nSTATUS=" + status);
}

void ServiceNotifier::Loop() {
  std::unique_lock lock(mutex_);
  uint64_t progress = 0;
  bool is_first = true;
  while (is_loading_ && !is_stopping_ && !is_ending_) {
    const uint64_t now = options_.progress();
    if (is_first || now != progress) options_.send(Extension(options_.extension));
    is_first = false;
    progress = now;
    changed_.wait_for(lock, options_.interval);
  }
}

}  // namespace mnemo::frontend
