// Attaches to the memory service on a thread of its own, and repeats the attempt until one succeeds.
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
  // Makes an attachment, or returns an error with the reason. Empty: there is no service.
  using Attach = std::function<absl::StatusOr<std::unique_ptr<MemoryClient>>()>;

  explicit Attacher(Attach attach);
  ~Attacher();
  Attacher(const Attacher&) = delete;
  Attacher& operator=(const Attacher&) = delete;

  bool configured() const { return static_cast<bool>(attach_); }
  // Returns a new attachment, each one once; nullptr while there is none.
  std::unique_ptr<MemoryClient> Take();
  // Requests another attachment; `why` is the reason. The first one is requested by the constructor.
  void Want(std::string why);
  // Blocks until the first attachment is made, at most 3 seconds.
  void WaitFirst();
  // Why there is no attachment: the error of the last attempt, or the reason given to Want.
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
