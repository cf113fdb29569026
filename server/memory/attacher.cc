#include "server/memory/attacher.h"

#include <chrono>
#include <utility>

namespace mnemo::memory {
namespace {

// Time between attempts to attach to a service that is absent.
constexpr std::chrono::milliseconds kAttachInterval{200};
// Longest wait of a worker that starts at the same time as its service.
constexpr std::chrono::milliseconds kFirstAttach{3000};

}  // namespace

Attacher::Attacher(Attach attach) : attach_(std::move(attach)) {
  if (attach_) thread_ = std::thread([this] { Loop(); });
}

Attacher::~Attacher() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::unique_ptr<MemoryClient> Attacher::Take() {
  if (!here_.load(std::memory_order_acquire)) return nullptr;
  std::lock_guard lock(mutex_);
  here_.store(false, std::memory_order_relaxed);
  return std::move(client_);
}

void Attacher::Want(std::string why) {
  {
    std::lock_guard lock(mutex_);
    wanted_ = true;
    why_ = std::move(why);
  }
  changed_.notify_all();
}

void Attacher::WaitFirst() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kFirstAttach, [this] { return client_ != nullptr; });
}

std::string Attacher::why() const {
  std::lock_guard lock(mutex_);
  return why_;
}

void Attacher::Loop() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (!wanted_) {
      changed_.wait(lock, [this] { return stop_ || wanted_; });
      continue;
    }
    lock.unlock();
    absl::StatusOr<std::unique_ptr<MemoryClient>> made = attach_();
    lock.lock();
    if (made.ok()) {
      client_ = *std::move(made);
      wanted_ = false;
      here_.store(true, std::memory_order_release);
      changed_.notify_all();
    } else {
      why_ = std::string(made.status().message());
      changed_.wait_for(lock, kAttachInterval, [this] { return stop_; });
    }
  }
}

}  // namespace mnemo::memory
