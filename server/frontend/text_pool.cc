#include "server/frontend/text_pool.h"

#include <utility>

namespace mnemo::frontend {

TextPool::TextPool() : thread_([this] { Loop(); }) {}

TextPool::~TextPool() {
  {
    std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool TextPool::Run(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (is_ending_ || queue_.size() >= kMaxQueued) return false;
    queue_.push_back(std::move(work));
  }
  changed_.notify_one();
  return true;
}

void TextPool::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_ending_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

}  // namespace mnemo::frontend
