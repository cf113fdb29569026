// One session: reads what the front end wants, writes what the engine did.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <memory>
#include <mutex>
#include <span>

#include "mnemo/internal/worker.grpc.pb.h"
#include "server/worker/engine.h"
#include "server/worker/service/event_outbox.h"

namespace mnemo::worker {

// What a session needs of the service around it.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual Engine* engine() = 0;
  // A number for a request that no live request in the engine has.
  virtual uint64_t NextEngineId() = 0;
  virtual const internal::v1::Ready& ready() const = 0;
  virtual internal::v1::Heartbeat MakeHeartbeat() const = 0;
  virtual bool draining() const = 0;
  // The session has become empty, or its heartbeat interval is another: whoever waits looks again.
  virtual void SessionChanged() = 0;
  // gRPC is done with the session; the host drops its reference.
  virtual void SessionDone(class SessionReactor* session) = 0;
};

// Thread-safe. Owned by its host until SessionDone. Locks its own mutex only, and calls gRPC and the host
// without it.
class SessionReactor final
    : public grpc::ServerBidiReactor<internal::v1::ToWorker, internal::v1::FromWorker> {
 public:
  SessionReactor(SessionHost* host, grpc::CallbackServerContext* context);

  void Begin();
  // On the engine's thread.
  void AddEvents(std::span<const EngineEvent> events);
  // The interval is over. Skipped, up to a bound, while events show that the worker lives.
  void SendHeartbeat();
  // Cancels its requests, drops what is not written and ends the stream once the write that is under way is
  // done. The first call counts.
  void End(const grpc::Status& status);
  // Breaks the stream of a session that has ended but whose peer does not take the last write.
  void Break();
  // No live request, and everything written.
  bool idle() const;
  int heartbeat_interval_ms() const;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Live {
    uint64_t id = 0;
    uint32_t attempt = 0;
  };
  absl::Status HandleMessage();
  absl::Status HandleHello(const internal::v1::Hello& hello);
  void HandleSubmit(const internal::v1::Submit& submit);
  void HandleCancel(const internal::v1::Cancel& cancel);
  // A submit that the engine has not taken.
  void Refuse(const internal::v1::Submit& submit, const absl::Status& status);
  // Writes the next message, or finishes the call, when neither is under way.
  void Pump();

  SessionHost* const host_;
  grpc::CallbackServerContext* const context_;
  internal::v1::ToWorker incoming_;
  // Two, so that the columns of Events keep their memory over heartbeats.
  internal::v1::FromWorker outgoing_events_;
  internal::v1::FromWorker outgoing_other_;

  mutable std::mutex mutex_;
  EventOutbox outbox_;
  absl::flat_hash_map<uint64_t, Live> live_;            // by the engine's number
  absl::flat_hash_map<uint64_t, uint64_t> engine_ids_;  // of the front end's number
  int heartbeat_interval_ms_ = 0;                       // 0 = no Hello yet
  bool ready_due_ = false;
  bool heartbeat_due_ = false;
  bool events_sent_ = false;    // since the heartbeat was last due
  int heartbeats_skipped_ = 0;  // in a row
  bool writing_ = false;
  int pins_ = 0;
  bool ending_ = false;
  bool finished_ = false;
  grpc::Status end_status_;
};

}  // namespace mnemo::worker
