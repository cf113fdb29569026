// Attaches to the memory service on a thread of its own, again and again while there is none.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "server/memory/memory_client.h"

namespace mnemo::memory {

class Attacher {
 public:
  // Makes an attachment, or says why not. Empty: there is no service.
  using Attach = std::function<absl::StatusOr<std::unique_ptr<MemoryClient>>()>;

  explicit Attacher(Attach attach);
  ~Attacher();
  Attacher(const Attacher&) = delete;
  Attacher& operator=(const Attacher&) = delete;

  bool configured() const { return static_cast<bool>(attach_); }
  // The attachment that was made, once; nullptr while there is none.
  std::unique_ptr<MemoryClient> Take();
  // Another one is wanted, and why. The first one is from the start.
  void Want(std::string why);
  // Returns when the first attachment is there, or after a while.
  void WaitFirst();
  // Why there is none: what the last attempt failed of, or why another one is wanted.
  std::string why() const;

 private:
  void Loop();

  const Attach attach_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<MemoryClient> client_;
  std::string why_ = "not attached yet";
  bool wanted_ = true;
  bool stop_ = false;
  std::atomic<bool> here_{false};
  std::thread thread_;
};

}  // namespace mnemo::memory
