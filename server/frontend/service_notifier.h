// Messages to systemd about mnemod's life, where NOTIFY_SOCKET is set (Type=notify).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace mnemo::frontend {

// Thread-safe; no call blocks. READY=1 goes out once, when the server listens and is ready.
class ServiceNotifier {
 public:
  struct Options {
    std::function<void(const std::string& state)> send;  // one message
    // A count that rises while the process works: while it is loading, and works, it asks for more time.
    std::function<uint64_t()> progress;
    std::chrono::milliseconds interval{5000};    // between such requests
    std::chrono::milliseconds extension{30000};  // the time that each asks for
  };

  // Sends with NotifySystemd, and takes CPU time and page faults of the process for progress.
  ServiceNotifier();
  explicit ServiceNotifier(Options options);
  ~ServiceNotifier();
  ServiceNotifier(const ServiceNotifier&) = delete;
  ServiceNotifier& operator=(const ServiceNotifier&) = delete;

  // The phase of the start, as the status.
  void Loading(std::string_view phase);
  // The server listens; a worker may take so long to become ready. `serving` is the status when one is.
  void Listening(const std::string& serving, std::chrono::milliseconds worker_start_timeout);
  void SetReady(bool is_ready);
  // Around a reload; `outcome` becomes the status. Before READY=1 only the status is told.
  void BeginReload();
  void EndReload(const std::string& outcome);
  void Stopping(const std::string& status);

 private:
  void Loop();
  void TellState(const std::string& prefix);  // with mutex_ held

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string serving_;
  bool is_loading_ = true;  // until it listens
  bool is_ready_ = false;
  bool was_ready_ = false;  // READY=1 was sent
  bool is_stopping_ = false;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace mnemo::frontend
