// A reader in memory: the request core's sink without gRPC.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/frontend/request_core.h"
#include "server/frontend/request_sink.h"

namespace mnemo::frontend::testing {

// Thread-safe.
class MemorySink final : public RequestSink {
 public:
  struct Message {
    int submission = 0;
    v1::GenerateResponse response;
  };

  // `reads`: takes each message at once, on the thread that writes it; else one at a time, by Take.
  explicit MemorySink(bool reads = true, int max_submissions = 1)
      : reads_(reads), max_submissions_(max_submissions) {}

  void Begin(std::shared_ptr<RequestCore> core) {
    {
      std::lock_guard lock(mutex_);
      core_ = core;
    }
    core->Begin();
  }
  // The reader takes what is being written; false when nothing is.
  bool Take() { return Answer(true); }
  // The client leaves, or what Abort asked for happens: as gRPC tells it.
  void Leave() {
    const std::shared_ptr<RequestCore> core = Core();
    if (core == nullptr) return;
    {
      std::lock_guard lock(mutex_);
      is_gone_ = true;
    }
    core->OnCancel();
    Answer(false);
  }

  int max_submissions() const override { return max_submissions_; }
  void Write(int submission, const v1::GenerateResponse& message) override {
    Begin(State::kWriting, submission, message, absl::OkStatus(), std::nullopt);
  }
  void WriteAndFinish(int submission, const v1::GenerateResponse& message) override {
    Begin(State::kLast, submission, message, absl::OkStatus(), std::nullopt);
  }
  void Finish(const absl::Status& status, std::optional<int> pushback_ms) override {
    Begin(State::kFinish, 0, {}, status, pushback_ms);
  }
  void Abort() override {
    std::lock_guard lock(mutex_);
    ++aborts_;
  }

  // How the request ended; nothing while it has not.
  std::optional<absl::Status> status() const {
    std::lock_guard lock(mutex_);
    return is_closed_ ? status_ : std::nullopt;
  }
  std::optional<int> pushback_ms() const {
    std::lock_guard lock(mutex_);
    return pushback_ms_;
  }
  bool is_aborted() const {
    std::lock_guard lock(mutex_);
    return aborts_ > 0;
  }
  std::vector<Message> messages() const {
    std::lock_guard lock(mutex_);
    return messages_;
  }
  std::string text(int submission = 0) const {
    std::string all;
    for (const Message& message : messages()) {
      if (message.submission == submission) all += message.response.delta().text();
    }
    return all;
  }
  // "started", "delta", "prompt" and "final" of one submission, in the order of arrival.
  std::vector<std::string> kinds(int submission = 0) const {
    std::vector<std::string> all;
    for (const auto& [from, response] : messages()) {
      if (from != submission) continue;
      all.emplace_back(response.has_started() ? "started"
                       : response.has_delta() ? "delta"
                       : response.has_final() ? "final"
                                              : "prompt");
    }
    return all;
  }
  // The last message of a submission.
  v1::GenerateResponse last(int submission = 0) const {
    v1::GenerateResponse found;
    for (const auto& [from, response] : messages()) {
      if (from == submission) found = response;
    }
    return found;
  }
  std::shared_ptr<RequestCore> Core() const {
    std::lock_guard lock(mutex_);
    return core_;
  }

 private:
  enum class State { kIdle, kWriting, kLast, kFinish };

  void Begin(State state, int submission, const v1::GenerateResponse& message, const absl::Status& status,
             std::optional<int> pushback_ms) {
    bool answers = false;
    bool is_gone = false;
    {
      std::lock_guard lock(mutex_);
      MNEMO_CHECK(state_ == State::kIdle && !status_.has_value());  // the contract of RequestSink
      state_ = state;
      writing_ = {submission, message};
      if (state != State::kWriting) status_ = status;
      pushback_ms_ = pushback_ms;
      is_gone = is_gone_;
      answers = reads_ || is_gone;
    }
    if (answers) Answer(!is_gone);
  }
  bool Answer(bool ok) {
    std::shared_ptr<RequestCore> core;
    State state = State::kIdle;
    {
      std::lock_guard lock(mutex_);
      state = std::exchange(state_, State::kIdle);
      if (state == State::kIdle) return false;
      if (ok && state != State::kFinish) messages_.push_back(writing_);
      core = core_;
      if (state != State::kWriting) {
        is_closed_ = true;
        core_ = nullptr;
      }
    }
    if (state == State::kWriting) {
      core->OnWriteDone(ok);
    } else {
      core->OnClosed();
    }
    return true;
  }

  const bool reads_;
  const int max_submissions_;
  mutable std::mutex mutex_;
  std::shared_ptr<RequestCore> core_;
  State state_ = State::kIdle;
  Message writing_;
  std::vector<Message> messages_;
  std::optional<absl::Status> status_;
  std::optional<int> pushback_ms_;
  bool is_gone_ = false;
  bool is_closed_ = false;
  int aborts_ = 0;
};

}  // namespace mnemo::frontend::testing
