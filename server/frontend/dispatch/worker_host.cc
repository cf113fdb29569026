#include "server/frontend/dispatch/worker_host.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace mnemo::frontend {

absl::StatusOr<std::unique_ptr<ProcessHost>> ProcessHost::Create(Options options, UniqueFd weights) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return ResourceExhausted("eventfd: {}", std::strerror(errno));
  return std::unique_ptr<ProcessHost>(
      new ProcessHost(std::move(options), std::move(weights), std::move(wake)));
}

ProcessHost::ProcessHost(Options options, UniqueFd weights, UniqueFd wake)
    : options_(std::move(options)),
      weights_(std::move(weights)),
      wake_(std::move(wake)),
      connector_(options_.keepalive) {}

ProcessHost::~ProcessHost() { MNEMO_CHECK(!thread_.joinable()); }

void ProcessHost::Run(std::shared_ptr<DispatchCore> core) {
  core_ = std::move(core);
  thread_ = std::thread([this] { Loop(); });
}

void ProcessHost::Join() {
  thread_.join();
  connector_.WaitForAll();
}

absl::StatusOr<int> ProcessHost::Spawn(int worker, uint64_t life) {
  MNEMO_ASSIGN_OR_RETURN(
      ChildProcess process,
      ChildProcess::Spawn(options_.program, options_.workers[worker].arguments, weights_.get()));
  const int pid = process.pid();
  children_.emplace(worker, Child{life, false, std::move(process)});
  return pid;
}

std::shared_ptr<WorkerLink> ProcessHost::Connect(int worker, uint64_t life) {
  return connector_.Connect(options_.workers[worker].address, core_.get(), worker, life);
}

void ProcessHost::Signal(int worker, uint64_t life, int number) {
  const auto it = children_.find(worker);
  if (it != children_.end() && it->second.life == life) it->second.process.Signal(number);
}

std::chrono::nanoseconds ProcessHost::CoreWait(int worker, uint64_t life) {
  const auto it = children_.find(worker);
  if (it == children_.end() || it->second.life != life) return std::chrono::nanoseconds(0);
  return it->second.process.CoreWait();
}

void ProcessHost::Wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, that is when the thread is to wake up anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void ProcessHost::Loop() {
  while (true) {
    const TimePoint until = core_->Tick();
    if (core_->stopped()) return;
    Poll(until);
  }
}

void ProcessHost::Poll(TimePoint until) {
  std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
  std::vector<int> workers;
  for (const auto& [worker, child] : children_) {
    workers.push_back(worker);
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
  for (size_t i = 0; i < workers.size(); ++i) {
    Child& child = children_.at(workers[i]);
    const uint64_t life = child.life;
    if (fds[2 + 2 * i].revents != 0 && !child.listening) {
      // Also when it has ended without a word; then its end follows.
      child.listening = true;
      if (child.process.ReadListening()) core_->OnListening(workers[i], life);
    }
    if (fds[1 + 2 * i].revents == 0) continue;
    if (const std::optional<std::string> how = child.process.Reap()) {
      children_.erase(workers[i]);
      core_->OnExited(workers[i], life, *how);
    }
  }
}

}  // namespace mnemo::frontend
