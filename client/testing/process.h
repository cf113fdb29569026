// Runs a program from a test, with its standard streams in pipes.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/unique_fd.h"

namespace mnemo::client::testing {

struct ProcessResult {
  int exit_code = -1;  // 128 + signal when killed by one
  std::string out;
  std::string err;
};

class Process {
 public:
  // `arguments[0]` is the path of the program. `environment`: "NAME=value" put over the test's own.
  explicit Process(const std::vector<std::string>& arguments,
                   const std::vector<std::string>& environment = {});
  ~Process();  // kills a running program

  void Write(std::string_view text);
  void CloseInput();
  void CloseOutput();  // closes the reading end of its standard output
  void Signal(int number);
  // Reads standard output until `text` has come. False when the time is over first.
  bool WaitForOutput(std::string_view text, std::chrono::milliseconds timeout = std::chrono::seconds(20));
  bool WaitForError(std::string_view text, std::chrono::milliseconds timeout = std::chrono::seconds(20));
  // Closes its input, reads the rest and reaps it; past the timeout it is killed and the exit code is 137.
  ProcessResult Wait(std::chrono::milliseconds timeout = std::chrono::seconds(60));

 private:
  bool Pump(int wait_ms);  // false when both outputs have ended
  pid_t pid_ = -1;
  UniqueFd in_, out_, err_;
  ProcessResult result_;
};

ProcessResult RunProcess(const std::vector<std::string>& arguments, std::string_view input = "",
                         const std::vector<std::string>& environment = {});

}  // namespace mnemo::client::testing
