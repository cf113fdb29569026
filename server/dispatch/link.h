// Seam between the dispatcher's state machine and the world: processes and connections. Without gRPC, so that
// tests can put their own in.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"

namespace mnemo::dispatch {

// One connection to a worker. A worker's lives are numbered; each has at most one link.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // Only appends to what is to be written: may be called under a lock. Dropped once the link is broken.
  virtual void Queue(internal::v1::ToWorker message) = 0;
  // Starts writing what is queued. Any thread; does not block; not under a lock.
  virtual void Flush() = 0;
  // OnLinkClosed follows soon. Any thread, any number of times.
  virtual void Close() = 0;
};

// Listener of links. A link calls from one thread at a time; OnLinkClosed is its last call.
class LinkListener {
 public:
  virtual ~LinkListener() = default;
  virtual void OnLinkReady(int worker, uint64_t life, internal::v1::Ready ready) = 0;
  // May change `events`.
  virtual void OnLinkEvents(int worker, uint64_t life, internal::v1::Events* events) = 0;
  virtual void OnLinkHeartbeat(int worker, uint64_t life, const internal::v1::Heartbeat& heartbeat) = 0;
  // ABORTED: the worker has ended the session on purpose.
  virtual void OnLinkClosed(int worker, uint64_t life, const absl::Status& status) = 0;
};

// Starts and ends workers. All but Wake are called on the supervising thread only.
class WorkerHost {
 public:
  virtual ~WorkerHost() = default;
  // Starts the child; returns its process id. Its end is told by DispatchCore::OnExited.
  virtual absl::StatusOr<int> Spawn(int worker, uint64_t life) = 0;
  // None when there is no thread for it now. Else it does not fail at once: a link that cannot be made is
  // closed.
  virtual std::shared_ptr<WorkerLink> Connect(int worker, uint64_t life) = 0;
  // Nothing happens when the child of that life has ended.
  virtual void Signal(int worker, uint64_t life, int number) = 0;
  // How long the threads of that life's child have waited for a core so far, summed over threads; 0 when it
  // has ended or the system does not tell. Called under a lock, on the thread that calls Tick.
  virtual std::chrono::nanoseconds CoreWait(int worker, uint64_t life) = 0;
  // Has DispatchCore::Tick called soon. Any thread; may be called under a lock.
  virtual void Wake() = 0;
};

}  // namespace mnemo::dispatch
