// Private: one streaming call over gRPC's callback API, with retries.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>

#include "client/client.h"
#include "mnemo/v1/generation.grpc.pb.h"

namespace mnemo::client {

absl::Status FromGrpc(const grpc::Status& status, const grpc::ClientContext& context);

// Time to wait before attempt number `attempt` (2, 3, ...) after `status`; absent = no further attempt.
std::optional<std::chrono::milliseconds> RetryDelay(const RetryPolicy& policy, const absl::Status& status,
                                                    int attempt);

// Flow control between a call and its reader: OnMessage returns false to stop reading until Resume.
class MessageSink {
 public:
  virtual ~MessageSink() = default;
  virtual bool OnMessage(v1::GenerateResponse message) = 0;
  virtual void OnDone(const absl::Status& status) = 0;
};

// Counts the calls of one client. gRPC 1.51 aborts when a channel is destroyed on one of its own callback
// threads, so calls do not share ownership of it: the client waits for them.
class CallCount {
 public:
  void Add() {
    std::lock_guard lock(mutex_);
    ++running_;
  }
  void Remove() {
    std::lock_guard lock(mutex_);
    if (--running_ == 0) idle_.notify_all();
  }
  void WaitIdle() {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  int running_ = 0;
};

class StreamCall final : public GenerateCall, public std::enable_shared_from_this<StreamCall> {
 public:
  StreamCall(v1::Generation::Stub* stub, std::shared_ptr<CallCount> count, v1::GenerateRequest request,
             const CallOptions& options, std::shared_ptr<MessageSink> sink);
  ~StreamCall() override;
  void Start();
  void Cancel() override;
  // Continues to read after OnMessage returned false. Called once for each false.
  void Resume();

 private:
  class Attempt;
  void StartAttempt();
  // gRPC reports a message that it cannot parse like the end of the stream. The status then never comes while
  // the server has more to send, so the attempt is cancelled when the status does not follow soon.
  void WatchEnd(grpc::Alarm* alarm);
  void AttemptDone(const grpc::Status& status);
  void Finish(const absl::Status& status);

  v1::Generation::Stub* const stub_;  // valid while this call is counted
  const std::shared_ptr<CallCount> count_;
  const v1::GenerateRequest request_;
  const RetryPolicy retry_;
  const std::shared_ptr<MessageSink> sink_;
  std::optional<std::chrono::system_clock::time_point> deadline_;
  std::mutex mutex_;                    // guards all members below
  std::unique_ptr<Attempt> attempt_;    // the running one; null between attempts
  std::unique_ptr<grpc::Alarm> alarm_;  // between attempts
  int attempts_ = 0;
  bool cancelled_ = false;
  bool malformed_ = false;
  std::shared_ptr<StreamCall> self_;  // until the end
};

}  // namespace mnemo::client
