// The seam between the public API (which knows text, clients and admission) and the workers (which know ids):
// routing, worker links, supervision and replay stand behind it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "devices/base/service_manager.h"
#include "devices/base/status.h"
#include "mnemo/internal/memory.pb.h"
#include "mnemo/internal/worker.pb.h"
#include "server/dispatch/loop_turns.h"

namespace mnemo::model {
class GgufFile;
struct ModelConfig;
}  // namespace mnemo::model

namespace mnemo::dispatch {

// Receives what becomes of one request. Called on a link's or the supervisor's thread, never two at
// once for one request; must not block. OnEvent never repeats or skips an output index, whatever died in
// between.
class DispatchSink {
 public:
  virtual ~DispatchSink() = default;
  virtual void OnEvent(const internal::v1::Event& event) = 0;
  // Ends the request: nothing comes after.
  // OK: an Event with `finish` was delivered. CANCELLED: after Cancel. INTERNAL: two workers died with the
  // request on them. UNAVAILABLE: no worker with the right numerics_id was there within the bound. Any other
  // status is the worker's. `replays`: how many times the request was started again.
  virtual void OnDone(const absl::Status& status, int replays) = 0;
};

// Observer of requests and of the work that workers of this machine report for them. Called on any thread,
// without locks of the dispatcher; must not block. Calls for one request come in order, and OnRequestEnd
// before its sink's OnDone.
class WorkObserver {
 public:
  virtual ~WorkObserver() = default;
  // `id`: the dispatcher's number of the request, Event.id and Span.id.
  virtual void OnRequestBegin(uint64_t id, const internal::v1::Submit& submit) = 0;
  // Spans of one message. `device`: the worker's own, "cpu0".
  virtual void OnSpans(const std::string& device,
                       const google::protobuf::RepeatedPtrField<internal::v1::Span>& spans) = 0;
  virtual void OnRequestEnd(uint64_t id, int output_tokens) = 0;
};

struct RunningRequest {
  uint64_t id = 0;
  int output_tokens = 0;  // so far
};

struct WorkerCounters {
  uint64_t preemptions = 0;
  uint64_t prefix_query_tokens = 0;
  uint64_t prefix_hit_tokens = 0;
  void Add(const internal::v1::Heartbeat& process);
};

struct WorkerSnapshot {
  enum class State { kStarting, kReady, kDraining, kDown };
  std::string name;     // "worker0"
  std::string address;  // "unix:/..." or "host:port"
  State state = State::kStarting;
  std::string detail;  // why it is down
  int pid = 0;         // 0 when not a child of ours
  int restarts = 0;
  int requests_running = 0;           // as the front end counts them
  internal::v1::Ready ready;          // of the current connection; empty when not ready
  internal::v1::Heartbeat heartbeat;  // newest
  WorkerCounters counters;  // over all processes that the worker has been, each up to its last heartbeat
};

struct MemorySnapshot {
  std::string name;     // "memory0"
  std::string address;  // where workers attach: "unix:/..."
  // Started here. One that others run is known by its workers alone: state, device and indexes.
  bool is_child = true;
  WorkerSnapshot::State state = WorkerSnapshot::State::kStarting;
  std::string detail;  // why it is down
  int pid = 0;         // 0 when none runs
  int restarts = 0;
  internal::v1::MemoryStats stats;  // newest; empty when it is down
};

// The longest sequence that the local workers take.
struct ContextBound {
  int tokens = 0;  // 0 = no local workers; those of others tell theirs when they are ready
  // Why it is less than the model's context, or what model.context_tokens asks for, as a part of a sentence;
  // else empty.
  std::string reason;
};

// Handle of a dispatched request. Thread-safe.
class Dispatch {
 public:
  virtual ~Dispatch() = default;
  // The sink gets OnDone(CANCELLED) soon; destroying the handle instead does not cancel.
  virtual void Cancel() = 0;
};

// Thread-safe.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  // Starts a request on a worker chosen by load, session affinity and prefix affinity; with none ready it
  // waits for one (bounded). `submit` carries everything but id, attempt, generated and time_left_us, which
  // the dispatcher sets. `sink` lives until OnDone.
  virtual std::shared_ptr<Dispatch> Start(internal::v1::Submit submit,
                                          std::optional<std::chrono::steady_clock::time_point> deadline,
                                          std::shared_ptr<DispatchSink> sink) = 0;
  // Tells every worker that the session is over. True if any worker was known to hold it.
  virtual bool EndSession(const std::string& session_id) = 0;
  virtual ContextBound context_bound() const { return {}; }
  virtual std::vector<WorkerSnapshot> Workers() const = 0;
  virtual std::vector<MemorySnapshot> MemoryServices() const = 0;
  // Turns of the supervising loops so far; each is asked for another one, soon. A loop that is stuck, for
  // example on a lock of the dispatcher, does not turn.
  virtual std::vector<LoopTurns> AskForTurns() { return {}; }
  virtual std::vector<RunningRequest> RunningRequests() const { return {}; }
  // Workers and memory services of this machine that are known: children, and connected workers of others.
  virtual std::vector<int> ProcessIds() const { return {}; }
  // Has all local processes open their log files again. Does not wait for them.
  virtual void ReopenLogs() {}
  // Called on every change of the set of ready workers, on any thread but never two at once; at most one
  // callback, set before the first request. It is told the present number at once.
  virtual void OnReadyChange(std::function<void(int ready_workers)> callback) = 0;
};

// The names of images of weights in the service manager's store: this and the key of the image.
inline constexpr std::string_view kImageName = "weights-";

struct DispatcherOptions {
  // All of it reaches the children. server.listen and its like, text and most of limits have no effect here.
  config::Config config;
  std::string version;  // of this program, for the logs of the workers
  // The opened model and what was read of it, used during CreateDispatcher alone. Without them the dispatcher
  // opens config.model.path.
  const model::GgufFile* file = nullptr;
  const model::ModelConfig* model = nullptr;
  // A request is started again since `worker` died or gave it back. Any thread; must not block.
  std::function<void(const std::string& worker)> on_replay;
  // Descriptors of an earlier process of the unit, under names that begin with kImageName.
  std::vector<PassedDescriptor> kept_images;
  // The service manager is to keep this process's image of the weights for the next one.
  bool keeps_image = false;
  // CreateDispatcher begins a part of its work that may take long, such as "packing weights".
  std::function<void(std::string_view phase)> on_phase;
  // Outlives the dispatcher. nullptr: workers are not asked for spans.
  WorkObserver* observer = nullptr;
};

// Packs the model's weights once and hashes them, which takes seconds for a large model, unless an image of
// them was kept; without local workers it hashes the file alone. Then it starts the local memory services,
// the local workers and the links to the others, and returns without waiting for any of them.
// INVALID_ARGUMENT, NOT_FOUND, DATA_LOSS or UNIMPLEMENTED say what is wrong with the model file or the
// settings, INVALID_ARGUMENT and RESOURCE_EXHAUSTED which size exceeds what the process may use. The
// destructor ends every request that is still there with UNAVAILABLE. It stops the local processes, workers
// first (SIGTERM, and SIGKILL to one that does not end), and returns when they are gone.
absl::StatusOr<std::unique_ptr<Dispatcher>> CreateDispatcher(DispatcherOptions options);

}  // namespace mnemo::dispatch
