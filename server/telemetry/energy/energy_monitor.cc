#include "server/telemetry/energy/energy_monitor.h"

#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "devices/base/clock.h"
#include "devices/base/status.h"

namespace mnemo::attribution {
namespace {

bool LogsRecord() { return spdlog::should_log(spdlog::level::debug); }

// The record from which anyone can do the attribution again (docs/ENERGY.md).
void LogInterval(const DivisionInput& input) {
  if (!LogsRecord()) return;
  const energy::EnergyInterval& interval = input.interval;
  spdlog::debug(
      "energy: interval device={} begin_ns={} end_ns={} joules={:.17g} own_share={:.17g} idle_watts={:.17g}",
      interval.device.Label(), interval.begin_ns, interval.end_ns, interval.joules, input.own_share,
      input.idle_watts);
}

void LogRequest(const RequestEnergy& request) {
  for (const DeviceEnergy& device : request.devices) {
    for (size_t step = 0; step < kEnergySteps; ++step) {
      if (device.steps[step] == 0) continue;
      spdlog::debug("energy: settled request={} device={} step={} joules={:.17g}", request.id,
                    device.device.Label(), kEnergyStepNames[step], device.steps[step]);
    }
  }
}

// CPU time and memory of the host are shared with other programs; an accelerator is taken to be ours.
bool IsOfHost(const energy::MeteredDevice& device) {
  return device.kind == energy::DeviceKind::kCpu || device.kind == energy::DeviceKind::kDram;
}

}  // namespace

void JouleHistogram::Observe(double joules) {
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), joules) - bounds.begin();
  ++buckets[static_cast<size_t>(bucket)];
  sum += joules;
}

EnergyMonitor::EnergyMonitor(MonitorOptions options)
    : options_([&] {
        options.ledger.on_settled = LogInterval;
        if (!options.now_ns) options.now_ns = [] { return static_cast<int64_t>(mnemo::NowNs()); };
        if (!options.cpu_times) options.cpu_times = [this] { return cpu_times_.Read(); };
        return std::move(options);
      }()),
      share_(options_.process_cpu),
      ledger_(options_.ledger) {
  MNEMO_CHECK(::sem_init(&stop_, 0, 0) == 0);
}

EnergyMonitor::~EnergyMonitor() {
  Stop();
  ::sem_destroy(&stop_);
}

void EnergyMonitor::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void EnergyMonitor::Stop() {
  if (!thread_.joinable()) return;
  ::sem_post(&stop_);
  thread_.join();
}

void EnergyMonitor::Loop() {
  ::pthread_setname_np(::pthread_self(), "energy");
  // Lets the kernel wake the thread with another timer of the time, which spares an interrupt. Readings carry
  // their own times.
  ::prctl(PR_SET_TIMERSLACK, std::chrono::nanoseconds(options_.interval).count() / 20);
  const int64_t interval_ns = std::chrono::nanoseconds(options_.interval).count();
  int64_t next_ns = static_cast<int64_t>(mnemo::NowNs());
  do {
    Sample();
    // A late round is not made up for.
    next_ns = std::max(next_ns + interval_ns, static_cast<int64_t>(mnemo::NowNs()));
  } while (!IsStopped(next_ns));
}

// Waits until then. One system call: a condition variable takes two.
bool EnergyMonitor::IsStopped(int64_t until_ns) {
  constexpr int64_t kSecondNs = 1'000'000'000;
  const timespec until = {.tv_sec = until_ns / kSecondNs, .tv_nsec = until_ns % kSecondNs};
  int waited = 0;
  do {
    waited = ::sem_clockwait(&stop_, CLOCK_MONOTONIC, &until);
  } while (waited != 0 && errno == EINTR);
  return waited == 0;
}

void EnergyMonitor::SetProcesses(std::function<std::vector<pid_t>()> processes) {
  std::lock_guard lock(processes_mutex_);
  options_.processes = std::move(processes);
}

void EnergyMonitor::Sample() {
  energy::Round round{.now_ns = NowNs()};
  // One reading for the share, the models and the meters' checks.
  if (const absl::StatusOr<energy::CpuTimes> cpu = options_.cpu_times(); cpu.ok()) {
    round.cpu = *cpu;
    std::lock_guard lock(processes_mutex_);
    const std::vector<pid_t> processes = options_.processes ? options_.processes() : std::vector<pid_t>();
    share_.Sample(round.now_ns, cpu->busy_seconds, processes);
  }
  intervals_.clear();
  options_.source->Sample(round, &intervals_);
  std::vector<RequestEnergy> complete;
  std::lock_guard lock(mutex_);
  for (const energy::EnergyInterval& interval : intervals_) {
    ledger_.AddInterval(interval,
                        IsOfHost(interval.device) ? share_.Share(interval.begin_ns, interval.end_ns) : 1);
  }
  ledger_.Settle(NowNs(), &complete);
  for (const RequestEnergy& request : complete) NoteComplete(request);
}

void EnergyMonitor::NoteComplete(const RequestEnergy& request) {
  if (LogsRecord()) LogRequest(request);
  if (request.devices.empty()) return;
  const double joules = request.joules();
  requests_.Observe(joules);
  if (request.output_tokens > 0) output_tokens_.Observe(joules / request.output_tokens);
}

void EnergyMonitor::BeginRequest(uint64_t id, std::string_view request_id, std::string_view method) {
  const int64_t now = NowNs();
  if (LogsRecord()) {
    spdlog::debug("energy: begin request={} request_id={} method={} at_ns={}", id, request_id, method, now);
  }
  std::lock_guard lock(mutex_);
  ledger_.BeginRequest(id, request_id, method, now);
}

void EnergyMonitor::EndRequest(uint64_t id, int output_tokens) {
  const int64_t now = NowNs();
  if (LogsRecord()) spdlog::debug("energy: end request={} output_tokens={} at_ns={}", id, output_tokens, now);
  std::lock_guard lock(mutex_);
  ledger_.EndRequest(id, output_tokens, now);
}

void EnergyMonitor::AddSpans(std::span<const WorkSpan> spans) {
  if (LogsRecord()) {
    for (const WorkSpan& span : spans) {
      spdlog::debug(
          "energy: span request={} step={} device={}{} begin_ns={} end_ns={} work_ns={:.17g} "
          "bytes={:.17g} operations={:.17g}",
          span.request, Name(span.step), energy::Name(span.device.kind), span.device.index, span.begin_ns,
          span.end_ns, span.work_ns, span.bytes, span.operations);
    }
  }
  std::lock_guard lock(mutex_);
  for (const WorkSpan& span : spans) ledger_.AddSpan(span);
}

RequestEnergy EnergyMonitor::Estimate(uint64_t id) const {
  std::lock_guard lock(mutex_);
  return ledger_.Estimate(id, NowNs());
}

std::vector<RequestEnergy> EnergyMonitor::Running() const {
  std::lock_guard lock(mutex_);
  return ledger_.Running(NowNs());
}

EnergySnapshot EnergyMonitor::Snapshot() const {
  EnergySnapshot snapshot;
  snapshot.meters = options_.source->States();
  std::lock_guard lock(mutex_);
  snapshot.devices = ledger_.Devices();
  snapshot.steps = ledger_.Steps();
  snapshot.requests = requests_;
  snapshot.output_tokens = output_tokens_;
  snapshot.dropped_spans = ledger_.dropped_spans();
  return snapshot;
}

}  // namespace mnemo::attribution
