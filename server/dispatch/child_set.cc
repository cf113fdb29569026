#include "server/dispatch/child_set.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace mnemo::dispatch {

absl::StatusOr<ChildSet> ChildSet::Create() {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return ResourceExhausted("eventfd: {}", std::strerror(errno));
  return ChildSet(std::move(wake));
}

absl::StatusOr<int> ChildSet::Spawn(int child, uint64_t life, const Program& program,
                                    const std::vector<std::string>& arguments, int weights_fd,
                                    int config_fd) {
  MNEMO_ASSIGN_OR_RETURN(ChildProcess process,
                         ChildProcess::Spawn(program, arguments, weights_fd, config_fd));
  const int pid = process.pid();
  const bool is_new = children_.emplace(child, Child{life, false, std::move(process)}).second;
  MNEMO_CHECK(is_new);
  return pid;
}

void ChildSet::Signal(int child, uint64_t life, int number) {
  const auto it = children_.find(child);
  if (it != children_.end() && it->second.life == life) it->second.process.Signal(number);
}

void ChildSet::SignalAll(int number) {
  for (auto& [unused, child] : children_) child.process.Signal(number);
}

std::chrono::nanoseconds ChildSet::CoreWait(int child, uint64_t life) const {
  const auto it = children_.find(child);
  if (it == children_.end() || it->second.life != life) return std::chrono::nanoseconds(0);
  return it->second.process.CoreWait();
}

void ChildSet::Wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, that is when the thread is to wake up anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void ChildSet::Poll(std::chrono::steady_clock::time_point until, const Listener& listener) {
  std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
  std::vector<int> numbers;
  for (const auto& [number, child] : children_) {
    numbers.push_back(number);
    fds.push_back({child.process.pidfd(), POLLIN, 0});
    // A negative descriptor is skipped. After the child has told that it listens its lifeline has no more
    // to say.
    fds.push_back({child.listening ? -1 : child.process.lifeline(), POLLIN, 0});
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  const int timeout_ms = static_cast<int>(std::max<int64_t>(0, left.count()));
  if (::poll(fds.data(), fds.size(), timeout_ms) <= 0) return;
  if (fds[0].revents != 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    Child& child = children_.at(numbers[i]);
    const uint64_t life = child.life;
    if (fds[2 + 2 * i].revents != 0 && !child.listening) {
      // Also when it has ended without a word; then its end follows.
      child.listening = true;
      if (child.process.ReadListening()) listener.listening(numbers[i], life);
    }
    if (fds[1 + 2 * i].revents == 0) continue;
    if (const std::optional<std::string> how = child.process.Reap()) {
      children_.erase(numbers[i]);
      listener.exited(numbers[i], life, *how);
    }
  }
}

}  // namespace mnemo::dispatch
