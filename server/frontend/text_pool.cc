#include "server/frontend/text_pool.h"

#include <malloc.h>

#include <chrono>
#include <utility>

namespace mnemo::frontend {
namespace {

// Within this time gRPC has sent the answer and freed it.
constexpr std::chrono::milliseconds kIdleBeforeTrim{500};

}  // namespace

TextPool::TextPool(size_t max_queued) : max_queued_(max_queued), thread_([this] { Loop(); }) {}

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
    if (is_ending_ || queue_.size() >= max_queued_) return false;
    queue_.push_back(std::move(work));
  }
  changed_.notify_one();
  return true;
}

void TextPool::Loop() {
  std::unique_lock lock(mutex_);
  const auto has_news = [this] { return is_ending_ || !queue_.empty(); };
  bool may_trim = false;
  while (true) {
    if (may_trim && !changed_.wait_for(lock, kIdleBeforeTrim, has_news)) {
      may_trim = false;
      lock.unlock();
      malloc_trim(0);
      lock.lock();
      continue;
    }
    changed_.wait(lock, has_news);
    if (queue_.empty()) return;
    may_trim = true;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

}  // namespace mnemo::frontend
