// Sends a load and records the answers.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "client/bench/statistics.h"
#include "client/client.h"

namespace mnemo::bench {

struct LoadOptions {
  // Closed loop: this many requests are kept in flight. 0 = open loop: requests go out at their due times.
  int concurrency = 0;
  int max_in_flight = 1024;                // open loop; a request past it waits, and its wait counts
  int64_t num_requests = 0;                // 0 = no bound but the duration
  std::optional<double> duration_seconds;  // no request is sent later; the run waits for those in flight
  std::optional<double> request_timeout_seconds;  // deadline of each
};

struct LoadProgress {
  int64_t sent = 0;
  int64_t done = 0;
  int64_t failed = 0;
  int64_t output_tokens = 0;
  double elapsed = 0;  // seconds
};

// One run. Run is called once. Stop, from any thread: nothing more is sent, requests in flight are cancelled.
class LoadRun {
 public:
  using MakeRequest = std::function<v1::GenerateRequest(int64_t index)>;
  using DueTime = std::function<double(int64_t index)>;  // open loop: seconds since the start, ascending
  using OnProgress = std::function<void(const LoadProgress&)>;

  // The clients outlive the run; requests go to them in turn.
  LoadRun(std::vector<client::Client*> clients, const LoadOptions& options, MakeRequest make_request,
          DueTime due_time);
  ~LoadRun();

  // Blocks until the last stream has ended. `on_progress` is called on this thread, about five times a
  // second.
  std::vector<RequestRecord> Run(const OnProgress& on_progress);
  void Stop();

 private:
  class Observer;
  struct State;
  // Blocks until the request may be sent, and takes a slot for it. Returns its due time, in seconds since the
  // start; nullopt: nothing more is to be sent.
  std::optional<double> WaitForTurn(int64_t index, const OnProgress& on_progress);
  // Sends without waiting for the answer.
  void Send(int64_t index, double due, v1::GenerateRequest request);

  std::shared_ptr<State> state_;
  std::vector<client::Client*> clients_;
  LoadOptions options_;
  MakeRequest make_request_;
  DueTime due_time_;
};

}  // namespace mnemo::bench
