// A dispatcher whose workers are the test itself.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/dispatch/dispatcher.h"

namespace mnemo::frontend::testing {

class FakeDispatcher final : public dispatch::Dispatcher {
 public:
  // One request at a worker. Thread-safe.
  class Request final : public dispatch::Dispatch {
   public:
    Request(internal::v1::Submit given, std::optional<std::chrono::steady_clock::time_point> until,
            std::shared_ptr<dispatch::DispatchSink> sink)
        : submit(std::move(given)), deadline(until), sink_(std::move(sink)) {}

    // Output tokens, one event for all.
    void Tokens(const std::vector<int32_t>& ids) { Send(MakeEvent(ids)); }
    // The last ones, then the end of the request.
    void Finish(const std::vector<int32_t>& ids, internal::v1::Finish::Reason reason, int replays = 0) {
      internal::v1::Event event = MakeEvent(ids);
      event.mutable_finish()->set_reason(reason);
      Send(event);
      Done(absl::OkStatus(), replays);
    }
    void Send(const internal::v1::Event& event) {
      if (const auto sink = Sink()) sink->OnEvent(event);
    }
    void Done(const absl::Status& status, int replays = 0) {
      std::shared_ptr<dispatch::DispatchSink> sink;
      {
        std::lock_guard lock(mutex_);
        sink = std::move(sink_);
      }
      if (sink) sink->OnDone(status, replays);
    }
    // At once and on the caller's thread: the hardest case for the caller. After HoldCancel not at all: the
    // test says Done.
    void Cancel() override {
      {
        std::lock_guard lock(mutex_);
        is_cancelled_ = true;
        if (holds_cancel_) return;
      }
      Done(absl::CancelledError("cancelled"));
    }
    void HoldCancel() {
      std::lock_guard lock(mutex_);
      holds_cancel_ = true;
    }
    bool is_cancelled() const {
      std::lock_guard lock(mutex_);
      return is_cancelled_;
    }

    const internal::v1::Submit submit;
    const std::optional<std::chrono::steady_clock::time_point> deadline;

   private:
    std::shared_ptr<dispatch::DispatchSink> Sink() const {
      std::lock_guard lock(mutex_);
      return sink_;
    }
    internal::v1::Event MakeEvent(const std::vector<int32_t>& ids) {
      internal::v1::Event event;
      event.set_first_index(next_index_);
      event.mutable_token_ids()->Add(ids.begin(), ids.end());
      if (next_index_ == 0) {
        event.mutable_summary()->set_cached_prompt_tokens(1);
        event.mutable_summary()->set_queue_ns(1000);
        event.mutable_summary()->set_prefill_ns(2000);
      }
      next_index_ += static_cast<int32_t>(ids.size());
      return event;
    }

    mutable std::mutex mutex_;
    std::shared_ptr<dispatch::DispatchSink> sink_;
    bool is_cancelled_ = false;
    bool holds_cancel_ = false;
    int32_t next_index_ = 0;
  };

  std::shared_ptr<dispatch::Dispatch> Start(internal::v1::Submit submit,
                                            std::optional<std::chrono::steady_clock::time_point> deadline,
                                            std::shared_ptr<dispatch::DispatchSink> sink) override {
    auto request = std::make_shared<Request>(std::move(submit), deadline, std::move(sink));
    {
      std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    changed_.notify_all();
    return request;
  }
  bool EndSession(const std::string& session_id) override { return session_id == "known"; }
  std::vector<dispatch::WorkerSnapshot> Workers() const override {
    dispatch::WorkerSnapshot worker;
    worker.name = "worker0";
    worker.state = dispatch::WorkerSnapshot::State::kReady;
    worker.ready.set_numerics_id("fake-numerics");
    worker.ready.set_kv_pages_total(100);
    worker.heartbeat.set_kv_pages_used(25);
    return {worker};
  }
  std::vector<dispatch::MemorySnapshot> MemoryServices() const override {
    dispatch::MemorySnapshot service;
    service.name = "memory0";
    service.address = "unix:/run/memory0.sock";
    service.state = dispatch::WorkerSnapshot::State::kReady;
    service.pid = 7;
    service.restarts = 2;
    service.stats.set_device("memory0:card-model");
    service.stats.set_simulated_time(true);
    service.stats.set_used_bytes(1000);
    service.stats.set_memory_bytes(4000);
    service.stats.set_indexes(3);
    internal::v1::DeviceCounter* counter = service.stats.add_device_counters();
    counter->set_metric("mnemo_memory_service_device_channel_stall_cycles_total");
    counter->mutable_labels()->insert({{"channel", "1"}, {"cause", "memory"}});
    counter->set_value(12);
    service.stats.add_device_counters()->set_metric("mnemo_memory_service_device_of_tomorrow");
    return {service};
  }
  void OnReadyChange(std::function<void(int)> callback) override {
    std::lock_guard lock(mutex_);
    callback_ = std::move(callback);
    if (callback_) callback_(ready_workers_);
  }

  void SetReadyWorkers(int count) {
    std::lock_guard lock(mutex_);
    ready_workers_ = count;
    if (callback_) callback_(count);
  }
  // The request that was started as number `index`; null when it does not come in time.
  std::shared_ptr<Request> Wait(size_t index) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return requests_.size() > index; });
    return requests_.size() > index ? requests_[index] : nullptr;
  }
  size_t count() const {
    std::lock_guard lock(mutex_);
    return requests_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Request>> requests_;
  std::function<void(int)> callback_;
  int ready_workers_ = 1;
};

}  // namespace mnemo::frontend::testing
