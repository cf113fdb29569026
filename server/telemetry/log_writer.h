// The last stage of all log lines: a bounded queue and one thread that writes it, so that no other thread
// waits for a file, a pipe or a terminal.
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

// Thread-safe. A full queue drops lines and counts them; once it is half empty, a notice replaces the missing
// lines. A destination that accepts nothing (a full pipe or disk, a stopped terminal) is retried until it
// does. A destination whose reader is gone loses the lines.
class LogWriter {
 public:
  struct Options {
    // Opened for appending; a FIFO needs no reader yet. Empty: standard error.
    std::string file;
    // A file that cannot be opened is no error; it is retried as after Reopen.
    bool file_may_wait = false;
    size_t max_lines = 1024;
    // Limit on the bytes of all lines in the queue; a longer line is dropped.
    size_t max_bytes = 1 << 20;
    // Returns the line, with its newline, that reports how many lines were dropped.
    std::function<std::string(uint64_t dropped)> notice;
    // Returns the line that reports why `file` could not be reopened.
    std::function<std::string(const std::string& why)> reopen_failed;
  };
  // INVALID_ARGUMENT: the file cannot be opened, and `file_may_wait` is false.
  static absl::StatusOr<std::unique_ptr<LogWriter>> Open(Options options);
  // Calls Close.
  ~LogWriter();
  // Waits up to kCloseTime for the queue; later lines are dropped. A thread stuck in a write is left to the
  // end of the process. Must not be called from two threads at once.
  void Close();
  static constexpr std::chrono::milliseconds kCloseTime{100};

  // `line` ends with a newline. Never waits for the destination.
  void Write(std::string_view line);
  // Reopens the file by its name, on the writer's thread, and retries every second on failure. Meanwhile
  // lines go to the old file or, when that file no longer has a name, stay in the queue.
  void Reopen();
  // Returns true once all earlier lines are written or lost, false when `timeout` is over first.
  bool Flush(std::chrono::milliseconds timeout);
  // Returns the number of lines dropped or lost since the start.
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
