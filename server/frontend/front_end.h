// The public gRPC server: services, admission, streams, health and their common life.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "devices/base/service_manager.h"
#include "devices/base/status.h"
#include "server/dispatch/dispatcher.h"
#include "server/dispatch/loop_turns.h"
#include "server/frontend/served_model.h"
#include "server/frontend/streams.h"
#include "server/telemetry/energy/energy_monitor.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {

// Thread-safe once started.
class FrontEnd {
 public:
  struct Options {
    // The sections server, limits, engine, attention, memory and workers are used.
    config::Config config;
    std::string version;
    // nullptr without meters and model; else it outlives the object.
    const attribution::EnergyMonitor* energy = nullptr;
    // Descriptors that the service manager gave this process. Its own from an earlier process carry its
    // names; the others are listening sockets of socket units, which serve besides server.listen.
    std::vector<PassedDescriptor> passed;
    // The manager keeps the listening sockets for the unit's next process. A drain for the end then accepts
    // no connection and holds new calls, so that clients with a retry policy wait for the next process.
    bool hands_over = false;
    // Each change of what health checks tell of readiness, in order; it begins as false. Must not block. May
    // be empty.
    std::function<void(bool is_ready)> on_ready_change;
  };
  // `model` and `metrics` outlive the object; `dispatcher` is to be destroyed between Shutdown and the
  // destructor, since the requests that it ends report here. UNAVAILABLE when the address cannot be listened
  // on.
  static absl::StatusOr<std::unique_ptr<FrontEnd>> Start(Options options, const ServedModel* model,
                                                         dispatch::Dispatcher* dispatcher,
                                                         telemetry::Metrics* metrics);
  ~FrontEnd();  // Shutdown, if it was not called

  // "127.0.0.1:50051", with the port that was really taken.
  const std::string& address() const;
  // Takes over what a reload may change: limits and the bounds of slow readers.
  void Reload(const config::Config& config);
  int live_streams() const;
  // Turns so far of the loops of gRPC and of the acceptor; each is asked for another one. Not during
  // Shutdown.
  std::vector<dispatch::LoopTurns> AskForTurns();
  // Sets the answer of health checks for "live".
  void SetLive(bool is_live);

  // For the end of the process: no new requests, NOT_SERVING, and no Resume any more. Returns when all
  // streams have ended; those left after `timeout` end with UNAVAILABLE. A second call from another thread,
  // with a shorter timeout, shortens the first.
  DrainResult DrainForEnd(std::chrono::milliseconds timeout);
  // The same without waiting: `done` is called when all have ended, on any thread; it must not block.
  void BeginDrainForEnd(std::chrono::milliseconds timeout, std::function<void(DrainResult)> done);
  // Whether a worker was ready at any time.
  bool has_served() const;
  // Ends the server. Streams that are still there are cut.
  void Shutdown();

 private:
  struct Impl;
  explicit FrontEnd(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::frontend
