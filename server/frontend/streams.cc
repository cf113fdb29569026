#include "server/frontend/streams.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace mnemo::frontend {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kSweepInterval{200};

}  // namespace

Streams::Streams() : thread_([this] { Loop(); }) {}

Streams::~Streams() {
  {
    std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Streams::Add(std::shared_ptr<Stream> stream) {
  std::lock_guard lock(mutex_);
  const Stream* key = stream.get();
  live_.emplace(key, std::move(stream));
  if (is_asleep_) changed_.notify_all();
}

void Streams::Remove(const Stream* stream, End end) {
  std::shared_ptr<Stream> removed;  // destroyed without the lock
  std::vector<Waiter> done;
  {
    std::lock_guard lock(mutex_);
    const auto at = live_.find(stream);
    if (at == live_.end()) return;
    removed = std::move(at->second);
    live_.erase(at);
    for (Waiter& waiter : waiters_) {
      waiter.result.finished += end == End::kFinished ? 1 : 0;
      waiter.result.cut += end == End::kCut ? 1 : 0;
    }
    if (live_.empty()) done = std::exchange(waiters_, {});
  }
  for (Waiter& waiter : done) waiter.done(waiter.result);
}

int Streams::count() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(live_.size());
}

void Streams::Drain(Clock::time_point deadline, std::function<void(DrainResult)> done) {
  {
    std::lock_guard lock(mutex_);
    if (!live_.empty()) {
      waiters_.push_back({deadline, {}, std::move(done)});
      changed_.notify_all();
      return;
    }
  }
  done({});
}

void Streams::Resume() {
  std::vector<Waiter> done;
  {
    std::lock_guard lock(mutex_);
    done = std::exchange(waiters_, {});
  }
  for (Waiter& waiter : done) {
    waiter.result.resumed = true;
    waiter.done(waiter.result);
  }
}

std::vector<std::shared_ptr<Stream>> Streams::Snapshot() const {
  std::vector<std::shared_ptr<Stream>> streams;
  std::lock_guard lock(mutex_);
  streams.reserve(live_.size());
  for (const auto& [key, stream] : live_) streams.push_back(stream);
  return streams;
}

void Streams::CutExpired(Clock::time_point now) {
  std::vector<Waiter> expired;
  {
    std::lock_guard lock(mutex_);
    const auto first = std::partition(waiters_.begin(), waiters_.end(),
                                      [now](const Waiter& waiter) { return waiter.deadline > now; });
    expired.assign(std::make_move_iterator(first), std::make_move_iterator(waiters_.end()));
    waiters_.erase(first, waiters_.end());
  }
  if (expired.empty()) return;
  int cut = 0;
  for (const auto& stream : Snapshot()) {
    cut += stream->Cut(Unavailable("cut by a drain: the server's time to finish requests is over")) ? 1 : 0;
  }
  for (Waiter& waiter : expired) {
    waiter.result.cut += cut;
    waiter.done(waiter.result);
  }
}

void Streams::Loop() {
  std::unique_lock lock(mutex_);
  while (!is_ending_) {
    if (live_.empty()) {
      is_asleep_ = true;
      changed_.wait(lock);
      is_asleep_ = false;
      continue;
    }
    auto wake = Clock::now() + kSweepInterval;
    for (const Waiter& waiter : waiters_) wake = std::min(wake, waiter.deadline);
    changed_.wait_until(lock, wake);
    lock.unlock();
    const auto now = Clock::now();
    CutExpired(now);
    for (const auto& stream : Snapshot()) stream->Sweep(now);
    lock.lock();
  }
}

}  // namespace mnemo::frontend
