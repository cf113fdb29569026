// Energy of this process's requests: samples the meters ten times a second on a thread of its own and keeps
// the ledger.
#pragma once

#include <semaphore.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "devices/energy/energy_meter.h"
#include "server/telemetry/energy/cpu_share.h"
#include "server/telemetry/energy/ledger.h"

namespace mnemo::attribution {

// Upper bounds of the histograms' buckets in joules.
inline constexpr std::array<double, 16> kRequestJouleBounds = {0.1, 0.25, 0.5, 1,   2.5,  5,    10,    25,
                                                               50,  100,  250, 500, 1000, 2500, 10000, 50000};
inline constexpr std::array<double, 14> kTokenJouleBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                             0.25,  0.5,    1,     2.5,  5,     10,   50};

struct JouleHistogram {
  explicit JouleHistogram(std::span<const double> the_bounds)
      : bounds(the_bounds), buckets(bounds.size() + 1) {}
  void Observe(double joules);

  std::span<const double> bounds;
  std::vector<uint64_t> buckets;  // not cumulative; the last one is above all bounds
  double sum = 0;
};

struct EnergySnapshot {
  std::vector<energy::MeterState> meters;
  std::vector<DeviceAccount> devices;
  std::vector<StepAccount> steps;
  JouleHistogram requests{kRequestJouleBounds};
  JouleHistogram output_tokens{kTokenJouleBounds};
  uint64_t dropped_spans = 0;
};

struct MonitorOptions {
  std::unique_ptr<energy::EnergySource> source;
  LedgerOptions ledger;  // on_settled is the monitor's
  std::chrono::milliseconds interval{100};
  // Processes whose CPU time is ours. Called on the monitor's thread; must not block. May be set later.
  std::function<std::vector<pid_t>()> processes;
  CpuShare::ReadProcess process_cpu = ProcessCpuNs;
  // Empty: /proc/stat, in real time whatever now_ns says.
  std::function<absl::StatusOr<energy::CpuTimes>()> cpu_times;
  std::function<int64_t()> now_ns;  // empty: CLOCK_MONOTONIC
};

// Thread-safe. A mutex of its own is held for some microseconds a call; no call waits for a meter.
class EnergyMonitor {
 public:
  // Starts no thread.
  explicit EnergyMonitor(MonitorOptions options);
  ~EnergyMonitor();

  // Samples at each interval on a thread of its own, until Stop or the destructor. Once.
  void Start();
  void Stop();
  // One round of sampling and settling, as the thread does it; for tests, without Start.
  void Sample();
  void SetProcesses(std::function<std::vector<pid_t>()> processes);

  // As in Ledger, at the present time.
  void BeginRequest(uint64_t id, std::string_view request_id, std::string_view method);
  void EndRequest(uint64_t id, int output_tokens);
  void AddSpans(std::span<const WorkSpan> spans);
  RequestEnergy Estimate(uint64_t id) const;
  std::vector<RequestEnergy> Running() const;
  EnergySnapshot Snapshot() const;
  int64_t NowNs() const { return options_.now_ns(); }

 private:
  void Loop();
  bool IsStopped(int64_t until_ns);
  void NoteComplete(const RequestEnergy& request);

  MonitorOptions options_;
  energy::CpuTimesFile cpu_times_;
  CpuShare share_;                                 // of the sampling thread
  std::vector<energy::EnergyInterval> intervals_;  // of the sampling thread
  mutable std::mutex mutex_;
  Ledger ledger_;
  JouleHistogram requests_{kRequestJouleBounds};
  JouleHistogram output_tokens_{kTokenJouleBounds};
  std::mutex processes_mutex_;  // guards options_.processes
  sem_t stop_;                  // posted once
  std::thread thread_;
};

}  // namespace mnemo::attribution
