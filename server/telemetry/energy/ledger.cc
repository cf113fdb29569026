#include "server/telemetry/energy/ledger.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "devices/base/status.h"

namespace mnemo::attribution {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
// A span that is longer is an error of its sender.
constexpr int64_t kLongestSpanNs = 60 * kSecondNs;
// Spans come about every 50 ms of work: shorter intervals than usual wait for them all the same.
constexpr int64_t kShortestPatienceNs = 200'000'000;
// An interval waits so long for the spans of a step that is longer than two intervals.
constexpr int64_t kLongestStepNs = 3 * kSecondNs;
// An ended request is complete when no interval of its time can come any more.
constexpr int64_t kCompleteNs = kSecondNs;
// Ended requests are kept so long, for a Final that is late.
constexpr int64_t kKeepNs = 5 * kSecondNs;
// A meter that has been silent for longer has no power that an estimate could use.
constexpr int64_t kSilentNs = 2 * kSecondNs;
// Weight of the intervals before the last one in the recent cost of work: a mean of about ten.
constexpr double kRecentWeight = 0.9;
constexpr size_t kMostPending = 64;
constexpr size_t kMostMethods = 64;

// By kind and index: the order in which meters answered first differs from run to run.
template <typename T>
void SortByDevice(std::vector<T>* all) {
  std::stable_sort(all->begin(), all->end(), [](const T& a, const T& b) {
    return std::tie(a.device.kind, a.device.index) < std::tie(b.device.kind, b.device.index);
  });
}

double Sum(const StepJoules& steps) { return std::accumulate(steps.begin(), steps.end(), 0.0); }

}  // namespace

double DeviceEnergy::joules() const { return Sum(steps); }

double RequestEnergy::joules() const {
  double sum = 0;
  for (const DeviceEnergy& device : devices) sum += device.joules();
  return sum;
}

Ledger::Ledger(LedgerOptions options) : options_(std::move(options)) {}

void Ledger::BeginRequest(uint64_t id, std::string_view request_id, std::string_view method, int64_t now_ns) {
  if (requests_.size() >= options_.max_requests) return;
  auto at = std::find(methods_.begin(), methods_.end(), method);
  if (at == methods_.end()) {
    if (methods_.size() >= kMostMethods) return;
    at = methods_.insert(methods_.end(), std::string(method));
  }
  Request& request = requests_[id];
  request.request_id = request_id;
  request.method = static_cast<int>(at - methods_.begin());
  request.begin_ns = now_ns;
}

void Ledger::EndRequest(uint64_t id, int output_tokens, int64_t now_ns) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  it->second.end_ns = std::max(now_ns, it->second.begin_ns);
  it->second.output_tokens = output_tokens;
}

void Ledger::AddSpan(const WorkSpan& span) {
  if (span.end_ns <= span.begin_ns || span.end_ns - span.begin_ns > kLongestSpanNs || !(span.work_ns > 0))
    return;
  const auto it = requests_.find(span.request);
  if (it == requests_.end()) return;
  if (spans_.size() >= options_.max_spans) {
    spans_.pop_front();
    ++dropped_spans_;
  }
  spans_.push_back(span);
  it->second.spans_end_ns = std::max(it->second.spans_end_ns, span.end_ns);
}

Ledger::Device& Ledger::DeviceOf(const energy::MeteredDevice& device) {
  const auto same = std::find_if(devices_.begin(), devices_.end(), [&](const Device& known) {
    return energy::IsSameDevice(known.device, device);
  });
  if (same != devices_.end()) return *same;
  return devices_.emplace_back(device,
                               options_.idle_watts ? options_.idle_watts(device) : std::optional<double>());
}

void Ledger::AddInterval(const energy::EnergyInterval& interval, double own_share) {
  if (interval.end_ns <= interval.begin_ns || !(interval.joules >= 0)) return;
  Device& device = DeviceOf(interval.device);
  // The source of a device may change when its meter fails.
  device.device = interval.device;
  device.last_end_ns = interval.end_ns;
  device.last_watts = interval.joules / (static_cast<double>(interval.end_ns - interval.begin_ns) * 1e-9);
  device.last_share = std::clamp(own_share, 0.0, 1.0);
  device.last_work = interval.work;
  device.pending.push_back({interval, device.last_share, 0, options_.idle_share});
  if (device.pending.size() > kMostPending) SettleOldest(static_cast<size_t>(&device - devices_.data()));
}

bool Ledger::IsDue(const energy::EnergyInterval& interval, int64_t now_ns) const {
  if (now_ns >= interval.end_ns + kLongestStepNs) return true;
  bool waits_for_more = false;   // of a request that had spans
  bool waits_for_first = false;  // of a request that may not have begun
  for (const auto& [id, request] : requests_) {
    const bool is_in = request.begin_ns < interval.end_ns && request.end_ns == InFlight::kRunning;
    if (!is_in || request.spans_end_ns >= interval.end_ns) continue;
    (request.spans_end_ns > 0 ? waits_for_more : waits_for_first) = true;
  }
  if (!waits_for_more && !waits_for_first) return true;
  const int64_t patience_ns = std::max(2 * (interval.end_ns - interval.begin_ns), kShortestPatienceNs);
  if (now_ns < interval.end_ns + patience_ns || waits_for_more) return false;
  return std::any_of(spans_.begin(), spans_.end(), [&](const WorkSpan& span) {
    return span.begin_ns < interval.end_ns && span.end_ns > interval.begin_ns;
  });
}

void Ledger::Settle(int64_t now_ns, std::vector<RequestEnergy>* complete) {
  for (size_t i = 0; i < devices_.size(); ++i) {
    while (!devices_[i].pending.empty()) {
      if (!IsDue(devices_[i].pending.front().interval, now_ns)) break;
      SettleOldest(i);
    }
  }
  ForgetSpans();
  ForgetRequests(now_ns, complete);
}

void Ledger::SettleOldest(size_t index) {
  Device& device = devices_[index];
  DivisionInput input = std::move(device.pending.front());
  device.pending.pop_front();
  input.idle_watts = device.idle.watts();
  const energy::EnergyInterval& interval = input.interval;
  const std::vector<InFlight> requests = RequestsIn(interval.begin_ns, interval.end_ns);
  if (requests.empty()) device.idle.Observe(interval.begin_ns, interval.end_ns, interval.joules);
  Divide(input, SpansIn(interval.begin_ns, interval.end_ns), requests, &scratch_);
  device.uses.Add(scratch_.uses);
  const double seconds = static_cast<double>(interval.end_ns - interval.begin_ns) * 1e-9;
  if (scratch_.work_ns > 0) {
    device.recent_own_joules = kRecentWeight * device.recent_own_joules + scratch_.own_joules;
    device.recent_work_ns = kRecentWeight * device.recent_work_ns + scratch_.work_ns;
  }
  device.work_watts = interval.work.any() ? (scratch_.uses.sum() - interval.joules) / seconds : 0;
  for (const Share& share : scratch_.shares) {
    const auto it = requests_.find(share.request);
    MNEMO_CHECK(it != requests_.end());  // SpansIn and RequestsIn give known ones
    Request& request = it->second;
    if (request.devices.size() <= index) request.devices.resize(index + 1);
    request.devices[index][StepIndex(share.step)] += share.joules;
    device.methods[request.method][StepIndex(share.step)] += share.joules;
  }
  if (options_.on_settled) options_.on_settled(input);
}

// Spans that no interval can need any more: those before all intervals that are open or may come.
void Ledger::ForgetSpans() {
  int64_t needed_from = InFlight::kRunning;
  for (const Device& device : devices_) {
    needed_from = std::min(
        needed_from, device.pending.empty() ? device.last_end_ns : device.pending.front().interval.begin_ns);
  }
  if (devices_.empty() || spans_.empty()) return;
  // A meter that is silent must not keep them for ever.
  needed_from = std::max(needed_from, spans_.back().end_ns - 2 * kLongestStepNs);
  std::erase_if(spans_, [&](const WorkSpan& span) { return span.end_ns <= needed_from; });
}

void Ledger::ForgetRequests(int64_t now_ns, std::vector<RequestEnergy>* complete) {
  int64_t open_from = InFlight::kRunning;
  for (const Device& device : devices_) {
    if (!device.pending.empty()) open_from = std::min(open_from, device.pending.front().interval.begin_ns);
  }
  for (auto it = requests_.begin(); it != requests_.end();) {
    const auto current = it++;
    Request& request = current->second;
    if (request.end_ns == InFlight::kRunning) continue;
    if (!request.is_complete && now_ns >= request.end_ns + kCompleteNs && open_from >= request.end_ns) {
      request.is_complete = true;
      complete->push_back(SettledOf(current->first, request));
    }
    if (request.is_complete && now_ns >= request.end_ns + kKeepNs) requests_.erase(current);
  }
}

std::vector<InFlight> Ledger::RequestsIn(int64_t begin_ns, int64_t end_ns) const {
  std::vector<InFlight> found;
  for (const auto& [id, request] : requests_) {
    if (request.begin_ns < end_ns && request.end_ns > begin_ns)
      found.push_back({id, request.begin_ns, request.end_ns});
  }
  std::sort(found.begin(), found.end(),
            [](const InFlight& a, const InFlight& b) { return a.begin_ns < b.begin_ns; });
  return found;
}

std::vector<WorkSpan> Ledger::SpansIn(int64_t begin_ns, int64_t end_ns) const {
  std::vector<WorkSpan> found;
  for (const WorkSpan& span : spans_) {
    if (span.begin_ns < end_ns && span.end_ns > begin_ns && requests_.contains(span.request))
      found.push_back(span);
  }
  return found;
}

RequestEnergy Ledger::SettledOf(uint64_t id, const Request& request) const {
  RequestEnergy energy;
  energy.id = id;
  energy.request_id = request.request_id;
  energy.begin_ns = request.begin_ns;
  energy.output_tokens = request.output_tokens;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceEnergy& device = energy.devices.emplace_back();
    device.device = devices_[i].device;
    if (i < request.devices.size()) device.steps = request.devices[i];
  }
  return energy;
}

std::vector<DivisionInput> Ledger::OpenIntervals(const Device& device, int64_t now_ns) const {
  std::vector<DivisionInput> open(device.pending.begin(), device.pending.end());
  const int64_t since = device.last_end_ns;
  if (since < now_ns && now_ns - since < kSilentNs) open.push_back(PresentInterval(device, now_ns));
  for (DivisionInput& input : open) input.idle_watts = device.idle.watts();
  return open;
}

DivisionInput Ledger::PresentInterval(const Device& device, int64_t now_ns) const {
  const int64_t since = device.last_end_ns;
  const auto seconds = [](int64_t ns) { return static_cast<double>(ns) * 1e-9; };
  const std::vector<WorkSpan> spans = SpansIn(since, now_ns);
  int64_t known_until = since;
  for (const WorkSpan& span : spans) {
    if (span.device.Covers(device.device)) known_until = std::max(known_until, std::min(span.end_ns, now_ns));
  }
  const double idle_watts = std::min(device.last_watts, device.idle.watts());
  const double active_watts = device.last_watts - idle_watts;
  double own = active_watts * device.last_share * seconds(now_ns - since);
  if (device.recent_work_ns > 0) {
    own = WorkIn(device.device, since, now_ns, spans) * device.recent_own_joules / device.recent_work_ns +
          active_watts * device.last_share * seconds(now_ns - known_until);
  }
  const double active = own + active_watts * (1 - device.last_share) * seconds(now_ns - since);
  return {{device.device, since, now_ns, idle_watts * seconds(now_ns - since) + active, device.last_work},
          active > 0 ? own / active : device.last_share,
          0,
          options_.idle_share};
}

// Adds the parts of open intervals to those of `requests`.
void Ledger::AddPending(int64_t now_ns, std::map<uint64_t, RequestEnergy>* requests) const {
  Division division;
  for (size_t i = 0; i < devices_.size(); ++i) {
    for (const DivisionInput& input : OpenIntervals(devices_[i], now_ns)) {
      const energy::EnergyInterval& interval = input.interval;
      Divide(input, SpansIn(interval.begin_ns, interval.end_ns),
             RequestsIn(interval.begin_ns, interval.end_ns), &division);
      for (const Share& share : division.shares) {
        const auto it = requests->find(share.request);
        if (it != requests->end()) it->second.devices[i].steps[StepIndex(share.step)] += share.joules;
      }
    }
  }
}

RequestEnergy Ledger::Estimate(uint64_t id, int64_t now_ns) const {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return {};
  std::map<uint64_t, RequestEnergy> requests = {{id, SettledOf(id, it->second)}};
  AddPending(now_ns, &requests);
  SortByDevice(&requests.begin()->second.devices);
  return std::move(requests.begin()->second);
}

std::vector<RequestEnergy> Ledger::Running(int64_t now_ns) const {
  std::map<uint64_t, RequestEnergy> requests;
  for (const auto& [id, request] : requests_) {
    if (request.end_ns == InFlight::kRunning) requests.emplace(id, SettledOf(id, request));
  }
  AddPending(now_ns, &requests);
  std::vector<RequestEnergy> list;
  for (auto& [id, request] : requests) {
    SortByDevice(&request.devices);
    list.push_back(std::move(request));
  }
  return list;
}

std::vector<DeviceAccount> Ledger::Devices() const {
  std::vector<DeviceAccount> accounts;
  for (const Device& device : devices_) {
    accounts.push_back(
        {device.device, device.uses, device.idle.watts(), device.idle.origin(), device.work_watts});
  }
  SortByDevice(&accounts);
  return accounts;
}

std::vector<StepAccount> Ledger::Steps() const {
  std::vector<StepAccount> accounts;
  for (const Device& device : devices_) {
    for (const auto& [method, steps] : device.methods) {
      accounts.push_back({device.device, methods_[static_cast<size_t>(method)], steps});
    }
  }
  SortByDevice(&accounts);
  return accounts;
}

}  // namespace mnemo::attribution
