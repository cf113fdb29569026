// The end of all log lines: a bounded queue and one thread that writes it, so that nobody else waits for a
// file, a pipe or a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "devices/base/status.h"

namespace mnemo::telemetry {

// Thread-safe. Lines of a queue that is full are dropped and counted; once the queue is down to half, a
// notice stands where they are missing. A destination that takes nothing (a full pipe or disk, a stopped
// terminal) is tried again until it does; one whose reader is gone loses the lines.
class LogWriter {
 public:
  struct Options {
    std::string file;            // appended to; a FIFO needs no reader yet. Empty = standard error
    bool file_may_wait = false;  // one that cannot be opened is no error: as Reopen goes on with it
    size_t max_lines = 1024;
    size_t max_bytes = 1 << 20;  // of all lines in the queue; a longer line is dropped
    // The line, with its newline, that says how many were dropped.
    std::function<std::string(uint64_t dropped)> notice;
    // The line that says why `file` could not be opened again.
    std::function<std::string(const std::string& why)> reopen_failed;
  };
  // INVALID_ARGUMENT: the file cannot be opened, and may not wait.
  static absl::StatusOr<std::unique_ptr<LogWriter>> Open(Options options);
  ~LogWriter();  // Close
  // Gives the queue up to kCloseTime; what comes later is dropped. A thread that is stuck in a write is left
  // to the end of the process. Not from two threads at once.
  void Close();
  static constexpr std::chrono::milliseconds kCloseTime{100};

  // `line` ends with a newline. Never waits for the destination.
  void Write(std::string_view line);
  // Opens the file by its name again, on the writer's thread; where that fails, again each second, and
  // meanwhile the old one goes on, or, if that has no name any more, the queue keeps the lines.
  void Reopen();
  // True once all lines of before are written or lost, false when `timeout` is over first.
  bool Flush(std::chrono::milliseconds timeout);
  // Lines that were dropped or lost since the start.
  uint64_t dropped() const;
  // Waits for the queue from a handler of a fatal signal: takes no lock and allocates nothing.
  void WaitInSignalHandler(std::chrono::milliseconds timeout) const noexcept;

 private:
  struct State;
  explicit LogWriter(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace mnemo::telemetry
