// State of one worker as the dispatcher knows it, over all of its lives.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "config/config.h"
#include "server/dispatch/backoff.h"
#include "server/dispatch/dispatcher.h"
#include "server/dispatch/link.h"
#include "server/dispatch/prefix_table.h"

namespace mnemo::dispatch {

struct WorkerSpec {
  std::string name;
  std::string address;  // "unix:/path" or "host:port"
  bool is_child = false;

  // By its address: Unix socket or loopback. Spans of another machine's clock and devices mean nothing here.
  bool IsOfThisMachine() const;
};

using TimePoint = std::chrono::steady_clock::time_point;

// A life goes kStarting -> kReady -> (kDraining) -> kEnding, or ends from any of them; between lives the
// worker is kWaiting.
struct WorkerSlot {
  enum class State { kWaiting, kStarting, kReady, kDraining, kEnding, kStopped };

  explicit WorkerSlot(WorkerSpec worker_spec);

  bool connected() const { return state == State::kReady || state == State::kDraining; }
  bool HasWork() const {
    return outstanding_requests > 0 || heartbeat.running() > 0 || heartbeat.waiting() > 0;
  }
  // When it is to be taken for hung unless it shows life before; only while connected.
  TimePoint HangTime(std::chrono::milliseconds timeout) const;
  void BeginLife(const config::Config::Workers& timing, TimePoint now);
  void BecomeReady(internal::v1::Ready new_ready, TimePoint now);
  void TakeHeartbeat(const internal::v1::Heartbeat& newest, TimePoint now);
  // The life is over; what is left of it is killed at `kill_time`. Sets when the next one begins.
  void EndLife(const std::string& why, const config::Config::Workers& timing, TimePoint now,
               TimePoint kill_time);
  WorkerSnapshot Snapshot() const;
  // Its counters begin again at 0.
  void BeginProcess();

  WorkerSpec spec;
  State state = State::kWaiting;
  uint64_t life = 0;
  int restarts = 0;
  std::string detail;
  std::string refusal;  // why the newest process that answered was not taken; empty once one is

  int pid = 0;
  bool process_alive = false;
  bool listening = false;   // there is something to connect to
  bool link_open = false;   // from Connect to OnLinkClosed
  bool close_sent = false;  // Close was called on the link
  bool term_due = false;    // the process gets SIGTERM first
  bool killed = false;
  std::shared_ptr<WorkerLink> link;

  TimePoint resume_time;  // kWaiting: next life
  TimePoint start_deadline;
  TimePoint ready_time;
  TimePoint heartbeat_time;
  TimePoint progress_time;  // the progress counter changed, or work began
  // Unresponsive workers only. core_wait: time that its threads had waited for a core (WorkerHost::CoreWait)
  // at the beginning of the bound's second half. grace: time granted beyond the bound.
  std::optional<std::chrono::nanoseconds> core_wait;
  std::chrono::milliseconds grace{0};
  TimePoint kill_time;
  TimePoint refuse_time;  // the worker was full; not asked again before
  Backoff backoff;

  internal::v1::Ready ready;
  internal::v1::Heartbeat heartbeat;
  internal::v1::Heartbeat counted;  // newest of the process, whose counters outlive a connection
  WorkerCounters ended_processes;
  int outstanding_requests = 0;
  int64_t outstanding_tokens = 0;
  PrefixTable prefixes{2};
};

}  // namespace mnemo::dispatch
