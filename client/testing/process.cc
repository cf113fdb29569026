#include "client/testing/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "devices/base/status.h"

namespace mnemo::client::testing {
namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    MNEMO_CHECK(::pipe2(fds, O_CLOEXEC) == 0);
    read = UniqueFd(fds[0]);
    write = UniqueFd(fds[1]);
  }
  UniqueFd read, write;
};

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe in, out, err;
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (const std::string& entry : environment) envp.push_back(const_cast<char*>(entry.c_str()));
  for (char** entry = environ; *entry != nullptr; ++entry) envp.push_back(*entry);
  envp.push_back(nullptr);
  pid_ = ::fork();
  MNEMO_CHECK(pid_ >= 0);
  if (pid_ == 0) {
    ::dup2(in.read.get(), STDIN_FILENO);
    ::dup2(out.write.get(), STDOUT_FILENO);
    ::dup2(err.write.get(), STDERR_FILENO);
    ::signal(SIGPIPE, SIG_DFL);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  in_ = std::move(in.write);
  out_ = std::move(out.read);
  err_ = std::move(err.read);
}

Process::~Process() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::Write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(in_.get(), text.data(), text.size());
    if (count <= 0) return;  // the program has closed its input
    text.remove_prefix(static_cast<size_t>(count));
  }
}

void Process::CloseInput() { in_.Reset(); }
void Process::CloseOutput() { out_.Reset(); }
void Process::Signal(int number) { ::kill(pid_, number); }

bool Process::Pump(int wait_ms) {
  if (!out_.valid() && !err_.valid()) return false;
  pollfd fds[] = {{out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}};  // negative descriptors are skipped
  if (::poll(fds, 2, wait_ms) <= 0) return true;
  UniqueFd* const ends[] = {&out_, &err_};
  std::string* const texts[] = {&result_.out, &result_.err};
  for (int i = 0; i < 2; ++i) {
    if (fds[i].revents == 0) continue;
    char buffer[65536];
    const ssize_t count = ::read(ends[i]->get(), buffer, sizeof buffer);
    if (count > 0) {
      texts[i]->append(buffer, static_cast<size_t>(count));
    } else {
      ends[i]->Reset();
    }
  }
  return true;
}

bool Process::WaitForOutput(std::string_view text, std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (result_.out.find(text) == std::string::npos) {
    if (std::chrono::steady_clock::now() > end || !Pump(20))
      return result_.out.find(text) != std::string::npos;
  }
  return true;
}

bool Process::WaitForError(std::string_view text, std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (result_.err.find(text) == std::string::npos) {
    if (std::chrono::steady_clock::now() > end || !Pump(20))
      return result_.err.find(text) != std::string::npos;
  }
  return true;
}

ProcessResult Process::Wait(std::chrono::milliseconds timeout) {
  CloseInput();
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (Pump(20)) {
    if (std::chrono::steady_clock::now() < end) continue;
    ::kill(pid_, SIGKILL);
    break;
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result_;
}

ProcessResult RunProcess(const std::vector<std::string>& arguments, std::string_view input,
                         const std::vector<std::string>& environment) {
  Process process(arguments, environment);
  process.Write(input);
  return process.Wait();
}

}  // namespace mnemo::client::testing
