#include "devices/reference/crew.h"

#include <algorithm>

namespace mnemo::devices::reference {

Crew::Crew(int size) : size_(size) {
  for (int member = 1; member < size; ++member) threads_.emplace_back([this, member] { Serve(member); });
}

Crew::~Crew() {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Crew::Start(const void* context, Function function) {
  if (size_ == 1) {
    function(context, 0, 1);
    return;
  }
  context_ = context;
  function_ = function;
  pending_.store(size_ - 1, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  function(context, 0, size_);
  for (int pending = pending_.load(std::memory_order_acquire); pending != 0;
       pending = pending_.load(std::memory_order_acquire)) {
    pending_.wait(pending, std::memory_order_acquire);
  }
}

void Crew::Serve(int member) {
  for (uint32_t seen = 0;; ++seen) {
    round_.wait(seen, std::memory_order_acquire);
    if (stopping_) return;
    function_(context_, member, size_);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

Share ShareOf(int64_t count, int64_t unit, int member, int size) {
  const int64_t units = (count + unit - 1) / unit;
  return {std::min(count, units * member / size * unit), std::min(count, units * (member + 1) / size * unit)};
}

}  // namespace mnemo::devices::reference
