// Account of energy: takes intervals of meters, spans of work and the life of requests, settles intervals
// once the spans of their time have come, and keeps the sums.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/energy/energy_meter.h"
#include "server/telemetry/energy/division.h"
#include "server/telemetry/energy/idle_watts.h"

namespace mnemo::attribution {

using StepJoules = std::array<double, kEnergySteps>;

struct LedgerOptions {
  IdleShare idle_share = IdleShare::kBusy;
  // Configured idle power of a device in watts, by its label; none: measured.
  std::function<std::optional<double>(const energy::MeteredDevice&)> idle_watts;
  size_t max_spans = 65536;     // beyond it the oldest are dropped and counted
  size_t max_requests = 65536;  // beyond it requests are not accounted for, and counted
  // Told of each interval as it settles; may be empty.
  std::function<void(const DivisionInput&)> on_settled;
};

// Energy of one request on one device.
struct DeviceEnergy {
  energy::MeteredDevice device;
  StepJoules steps{};

  double joules() const;
};

struct RequestEnergy {
  uint64_t id = 0;
  std::string request_id;
  int64_t begin_ns = 0;
  int output_tokens = 0;  // known at the end
  std::vector<DeviceEnergy> devices;

  double joules() const;
};

struct DeviceAccount {
  energy::MeteredDevice device;
  Uses uses;  // settled
  double idle_watts = 0;
  IdleWatts::Origin idle_origin = IdleWatts::Origin::kMeasured;
  // Power of work that a model adds to the interval's joules, in the interval that settled last.
  double work_watts = 0;
};

struct StepAccount {
  energy::MeteredDevice device;
  std::string method;
  StepJoules steps{};
};

// Not thread-safe. Times are those of CLOCK_MONOTONIC in ns.
class Ledger {
 public:
  explicit Ledger(LedgerOptions options);

  // `method`: value of the label, "dense" without a memory method.
  void BeginRequest(uint64_t id, std::string_view request_id, std::string_view method, int64_t now_ns);
  // No span of the request comes afterwards.
  void EndRequest(uint64_t id, int output_tokens, int64_t now_ns);
  // Spans of unknown requests, empty ones and those that are longer than a minute are passed over.
  void AddSpan(const WorkSpan& span);
  // Intervals of a device come in order. `own_share` as in DivisionInput.
  void AddInterval(const energy::EnergyInterval& interval, double own_share);
  // Settles what is due at `now_ns`. An interval is due when each request in flight has spans up to its end,
  // or two more of its length, and 200 ms, have passed. It waits for at most 3 s if a long step is under way.
  // A sign of such a step: a request that had spans has none up to the interval's end, or the interval has
  // none at all. Appends ended requests whose energy is complete to `complete`.
  void Settle(int64_t now_ns, std::vector<RequestEnergy>* complete);

  // All lists of devices below are in the order of kind and index.
  // The request's energy up to `now_ns`. Intervals that are not settled are divided by the spans at hand.
  // Work since the last interval has the joules that work has cost of late, and time without spans the last
  // power. Empty: the request is not known, or no meter has answered.
  RequestEnergy Estimate(uint64_t id, int64_t now_ns) const;
  // Estimates for all requests that have not ended.
  std::vector<RequestEnergy> Running(int64_t now_ns) const;
  std::vector<DeviceAccount> Devices() const;
  std::vector<StepAccount> Steps() const;
  uint64_t dropped_spans() const { return dropped_spans_; }

 private:
  struct Device {
    Device(const energy::MeteredDevice& the_device, std::optional<double> configured_watts)
        : device(the_device), idle(configured_watts) {}
    energy::MeteredDevice device;
    IdleWatts idle;
    Uses uses;
    std::deque<DivisionInput> pending;  // not settled, in order
    int64_t last_end_ns = 0;            // of the newest interval
    double last_watts = 0;
    double last_share = 1;
    energy::WorkFigures last_work;
    // Active energy of ours, and work: sums over settled intervals with work, weighted to the last few.
    double recent_own_joules = 0;
    double recent_work_ns = 0;
    double work_watts = 0;
    std::map<int, StepJoules> methods;  // by position in methods_
  };
  struct Request {
    std::string request_id;
    int method = 0;
    int64_t begin_ns = 0;
    int64_t end_ns = InFlight::kRunning;
    int64_t spans_end_ns = 0;
    int output_tokens = 0;
    bool is_complete = false;
    std::vector<StepJoules> devices;  // by position in devices_; may be shorter
  };

  Device& DeviceOf(const energy::MeteredDevice& device);
  bool IsDue(const energy::EnergyInterval& interval, int64_t now_ns) const;
  void SettleOldest(size_t device);
  void ForgetSpans();
  void ForgetRequests(int64_t now_ns, std::vector<RequestEnergy>* complete);
  std::vector<InFlight> RequestsIn(int64_t begin_ns, int64_t end_ns) const;
  // All spans of the time, from any device.
  std::vector<WorkSpan> SpansIn(int64_t begin_ns, int64_t end_ns) const;
  RequestEnergy SettledOf(uint64_t id, const Request& request) const;
  void AddPending(int64_t now_ns, std::map<uint64_t, RequestEnergy>* requests) const;
  // The intervals of a device that are not settled, and one for the time from the last of them to `now_ns`.
  std::vector<DivisionInput> OpenIntervals(const Device& device, int64_t now_ns) const;
  DivisionInput PresentInterval(const Device& device, int64_t now_ns) const;

  const LedgerOptions options_;
  std::vector<std::string> methods_;
  std::vector<Device> devices_;
  std::deque<WorkSpan> spans_;
  absl::flat_hash_map<uint64_t, Request> requests_;
  uint64_t dropped_spans_ = 0;
  Division scratch_;
};

}  // namespace mnemo::attribution
