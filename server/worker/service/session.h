// One session: reads what the front end wants, writes what the engine did.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "mnemo/internal/worker.pb.h"
#include "server/link/connection.h"
#include "server/telemetry/crash_report.h"
#include "server/worker/engine.h"
#include "server/worker/service/event_outbox.h"
#include "server/worker/service/event_pacing.h"

namespace mnemo::worker_service {

// Service around a session, as far as the session needs it.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual worker::Engine* engine() = 0;
  // A number for a request that no live request in the engine has.
  virtual uint64_t NextEngineId() = 0;
  virtual const internal::v1::Ready& ready() const = 0;
  virtual internal::v1::Heartbeat MakeHeartbeat() const = 0;
  virtual bool draining() const = 0;
  // Hello has come: the session takes the place of an older one, which ends.
  virtual void SessionBegins(class Session* session) = 0;
  // The session has become empty, or its heartbeat interval is another: whoever waits looks again.
  virtual void SessionChanged() = 0;
};

// Thread-safe. Locks its own mutex only, and calls the host and writes without it.
class Session {
 public:
  // A session that ends has so long to take its last write.
  static constexpr std::chrono::milliseconds kEndTime{500};

  Session(SessionHost* host, UniqueFd socket);

  // Reads until the connection ends, on the session's thread. Afterwards all its requests are cancelled.
  void Run();
  // On the engine's thread.
  void AddEvents(std::span<const worker::EngineEvent> events);
  // Writes events that were kept back. On the engine's thread.
  void Flush() { Pump(); }
  // The interval is over. Skipped, up to a bound, while events show that the worker lives.
  void SendHeartbeat();
  // Cancels its requests, drops what is not written and closes the connection once the write that is under
  // way and End are done. The first call counts.
  void End(const absl::Status& status);
  // Closes the connection of a session that has ended a while ago but whose peer does not take the last
  // write.
  void BreakIfStuck(std::chrono::steady_clock::time_point now);
  // No live request, and everything written.
  bool idle() const;
  int heartbeat_interval_ms() const;

 private:
  struct Live {
    uint64_t id = 0;
    uint32_t attempt = 0;
    bool at_once = false;  // tokens of it are never kept back
    size_t tokens = 0;     // that it has had in this session
    std::optional<telemetry::RunningRequest> in_crash_reports = {};
  };
  absl::Status HandleMessage(const internal::v1::ToWorker& message);
  absl::Status HandleHello(const internal::v1::Hello& hello);
  void HandleSubmit(const internal::v1::Submit& submit);
  void HandleCancel(const internal::v1::Cancel& cancel);
  // An event that is not the engine's; for this submit.
  void Tell(const internal::v1::Submit& submit, const worker::EngineEvent& event);
  // A submit that the engine has not taken.
  void Refuse(const internal::v1::Submit& submit, const absl::Status& status);
  // Writes what there is to be written, unless somebody does. The engine's thread gets away after one system
  // call: what the front end does not take at once is written by the connection's own thread.
  void Pump();
  // With mutex_ held: the next message, or nullptr.
  const internal::v1::FromWorker* NextMessage();
  void AfterWrite();
  // The connection's own thread has written what it was left to write.
  void OnWritten();

  SessionHost* const host_;
  // Belong to whoever has set writing_. Two messages, so that the columns of Events keep their memory over
  // heartbeats.
  internal::v1::FromWorker outgoing_events_;
  internal::v1::FromWorker outgoing_other_;
  std::string outgoing_;

  mutable std::mutex mutex_;
  EventOutbox outbox_;
  absl::flat_hash_map<uint64_t, Live> live_;            // by the engine's number
  absl::flat_hash_map<uint64_t, uint64_t> engine_ids_;  // of the front end's number
  int heartbeat_interval_ms_ = 0;                       // 0 = no Hello yet
  EventPacing pacing_;
  bool ready_due_ = false;
  bool heartbeat_due_ = false;
  bool events_sent_ = false;    // since the heartbeat was last due
  int heartbeats_skipped_ = 0;  // in a row
  bool writing_ = false;
  bool ending_ = false;
  bool finished_ = false;  // End has been written, or is
  absl::Status end_status_;
  std::chrono::steady_clock::time_point end_time_;
  std::condition_variable written_;  // with finished_: End as well

  link::Connection connection_;  // last: its thread ends before the others go
};

}  // namespace mnemo::worker_service
