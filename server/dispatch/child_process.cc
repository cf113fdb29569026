#include "server/dispatch/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>
#include <utility>

#include "devices/base/undo_at_end.h"

namespace mnemo::dispatch {
namespace {

constexpr int kFirstFreeFd = 10;

// A copy above the numbers that the child uses, so that no dup2 in it runs over another one's source.
UniqueFd CopyAbove(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, kFirstFreeFd)); }

// Lifelines by process. Guarded by UndoAtEnd::Making.
std::map<pid_t, int>& LiveChildren() {
  static auto* const children = new std::map<pid_t, int>;
  return *children;
}

void EndLiveChildren() {
  std::map<pid_t, int>& children = LiveChildren();
  for (const auto& [pid, lifeline] : children) ::shutdown(lifeline, SHUT_RDWR);
  const auto end = std::chrono::steady_clock::now() + ChildProcess::kUndoTime;
  // Their supervisor may reap them first.
  const auto has_ended = [](const auto& child) { return ::waitpid(child.first, nullptr, WNOHANG) != 0; };
  while (std::erase_if(children, has_ended), !children.empty() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (const auto& [pid, lifeline] : children) ::kill(pid, SIGKILL);
}

class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  // Descriptors that are to be the child's; -1 = none.
  int Fill(int weights_fd, int lifeline_fd, int config_fd, int program_fd) {
    // A SIGHUP that comes before the child listens to it must not end it.
    sigset_t held, all;
    sigemptyset(&held);
    sigaddset(&held, SIGHUP);
    sigfillset(&all);
    int error = ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (error == 0) error = ::posix_spawnattr_setpgroup(&attributes_, 0);
    if (error == 0) error = ::posix_spawnattr_setsigmask(&attributes_, &held);
    if (error == 0) error = ::posix_spawnattr_setsigdefault(&attributes_, &all);
    if (error == 0)
      error = ::posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    const std::pair<int, int> inherited[] = {{weights_fd, kChildWeightsFd},
                                             {lifeline_fd, kChildLifelineFd},
                                             {config_fd, kChildConfigFd},
                                             {program_fd, kChildProgramFd}};
    for (const auto& [fd, number] : inherited) {
      if (error != 0) break;
      error = fd >= 0 ? ::posix_spawn_file_actions_adddup2(&actions_, fd, number)
                      : ::posix_spawn_file_actions_addclose(&actions_, number);
    }
    if (error == 0) error = ::posix_spawn_file_actions_addclosefrom_np(&actions_, kChildProgramFd + 1);
    return error;
  }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

}  // namespace

ChildProcess::Listed::Listed(pid_t pid, int lifeline) : pid_(pid) {
  static const UndoAtEnd undo(&EndLiveChildren);
  LiveChildren().emplace(pid, lifeline);
}

ChildProcess::Listed::~Listed() {
  if (pid_ < 0) return;
  const auto lock = UndoAtEnd::Making();
  LiveChildren().erase(pid_);
}

absl::StatusOr<ChildProcess> ChildProcess::Spawn(const Program& program,
                                                 const std::vector<std::string>& arguments, int weights_fd,
                                                 int config_fd) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Internal("socketpair: {}", std::strerror(errno));
  }
  ChildProcess child;
  child.lifeline_ = UniqueFd(ends[0]);
  const UniqueFd child_end(ends[1]);
  const UniqueFd lifeline = CopyAbove(child_end.get());
  const UniqueFd weights = weights_fd >= 0 ? CopyAbove(weights_fd) : UniqueFd();
  const UniqueFd config = config_fd >= 0 ? CopyAbove(config_fd) : UniqueFd();
  const bool by_path =
      program.file == nullptr || (program.is_script && ::access(program.path.c_str(), X_OK) == 0);
  const UniqueFd file = by_path ? UniqueFd() : CopyAbove(program.file->get());
  if (!lifeline.valid() || (weights_fd >= 0 && !weights.valid()) || (config_fd >= 0 && !config.valid()) ||
      (!by_path && !file.valid())) {
    return ResourceExhausted("copying a descriptor: {}", std::strerror(errno));
  }
  std::vector<char*> argv = {const_cast<char*>(program.path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  SpawnSettings settings;
  int error = settings.Fill(weights.get(), lifeline.get(), config.get(), file.get());
  const auto lock = UndoAtEnd::Making();
  if (error == 0) {
    // In the child, where the descriptor has this number.
    const std::string path = by_path ? program.path : fmt::format("/proc/self/fd/{}", kChildProgramFd);
    error = ::posix_spawn(&child.pid_, path.c_str(), settings.actions(), settings.attributes(), argv.data(),
                          environ);
  }
  if (error != 0) {
    const std::string message = fmt::format("starting {}: {}", program.path, std::strerror(error));
    return absl::Status(absl::ErrnoToStatusCode(error), message);
  }
  // Ours until it is reaped, so its number cannot be another's.
  child.pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, child.pid_, 0)));
  if (!child.pidfd_.valid()) {
    const int open_error = errno;
    ::kill(child.pid_, SIGKILL);
    ::waitpid(child.pid_, nullptr, 0);
    return Internal("pidfd_open: {}", std::strerror(open_error));
  }
  child.listed_ = Listed(child.pid_, child.lifeline_.get());
  return child;
}

bool ChildProcess::ReadListening() {
  char byte;
  const ssize_t count = ::recv(lifeline_.get(), &byte, 1, MSG_DONTWAIT);
  return count == 1;
}

void ChildProcess::Signal(int number) { ::syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0); }

// The second number of a thread's schedstat: proc(5) and Documentation/scheduler/sched-stats in the kernel's
// tree.
std::chrono::nanoseconds ChildProcess::CoreWait() const {
  std::chrono::nanoseconds sum{0};
  std::error_code error;  // threads come and go
  for (const auto& thread : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid_), error)) {
    std::ifstream file(thread.path() / "schedstat");
    int64_t run_ns = 0, wait_ns = 0;
    if (file >> run_ns >> wait_ns) sum += std::chrono::nanoseconds(wait_ns);
  }
  return sum;
}

std::optional<std::string> ChildProcess::Reap() {
  int status = 0;
  pid_t ended = 0;
  do {
    ended = ::waitpid(pid_, &status, WNOHANG);
  } while (ended < 0 && errno == EINTR);
  if (ended == 0) return std::nullopt;
  if (ended < 0) return fmt::format("reaped by another: {}", std::strerror(errno));
  if (WIFEXITED(status)) return fmt::format("exit code {}", WEXITSTATUS(status));
  return fmt::format("signal {}", WTERMSIG(status));
}

}  // namespace mnemo::dispatch
