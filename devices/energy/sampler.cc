#include "devices/energy/sampler.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "config/energy_texts.h"

namespace mnemo::energy {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kRecentNs = kSecondNs;
constexpr int64_t kCompareNs = 10 * kSecondNs;
constexpr double kLargestDifference = 0.3;

}  // namespace

int Preference(const std::string& source) {
  const auto* const end = std::end(config::kEnergySources);
  const auto* const place = std::find(std::begin(config::kEnergySources), end, source);
  // A model comes after all meters, and a source that is not known after the model.
  return static_cast<int>(place - std::begin(config::kEnergySources)) +
         (place == end && source != "model" ? 1 : 0);
}

Sampler::Sampler(std::vector<std::unique_ptr<Meter>> meters, SamplerOptions options)
    : meters_(std::move(meters)), options_(std::move(options)) {
  for (const std::unique_ptr<Meter>& meter : meters_) meter->AppendReports(&reports_);
  for (const MeterReport& report : reports_) {
    Account& account = accounts_[KeyOf(report.device)];
    account.device = report.device;
    account.report = report;
  }
}

Sampler::Key Sampler::KeyOf(const MeteredDevice& device) {
  return {device.kind, device.index, Preference(device.source)};
}

void Sampler::Sample(const Round& round, std::vector<EnergyInterval>* intervals) {
  fresh_.clear();
  reports_.clear();
  for (const std::unique_ptr<Meter>& meter : meters_) {
    meter->Sample(round, &fresh_);
    meter->AppendReports(&reports_);
  }
  const std::lock_guard lock(mutex_);
  for (auto& [key, account] : accounts_) account.report.is_up = false;
  for (const MeterReport& report : reports_) {
    Account& account = accounts_[KeyOf(report.device)];
    account.device = report.device;
    account.report = report;
  }
  for (const EnergyInterval& interval : fresh_) Note(interval);
  // Accounts of one device stand together, the most preferred one first.
  for (auto it = accounts_.begin(); it != accounts_.end();) {
    const Key first = it->first;
    Count(first, intervals, round.now_ns);
    while (it != accounts_.end() && it->first.kind == first.kind && it->first.index == first.index) ++it;
  }
}

void Sampler::Note(const EnergyInterval& interval) {
  const auto found = accounts_.find(KeyOf(interval.device));
  if (found == accounts_.end()) return;
  Account& account = found->second;
  account.recent.push_back(interval);
  account.window.push_back(interval);
  account.window_joules += interval.joules;
  while (interval.end_ns - account.recent.front().begin_ns > kRecentNs && account.recent.size() > 1) {
    account.recent.pop_front();
  }
  while (interval.end_ns - account.window.front().end_ns > kCompareNs) {
    account.window_joules -= account.window.front().joules;
    account.window.pop_front();
  }
}

// Hands out the fresh intervals of the device's most preferred meter that is up.
void Sampler::Count(const Key& first, std::vector<EnergyInterval>* intervals, int64_t now_ns) {
  Account* counted = nullptr;
  for (auto it = accounts_.find(first);
       it != accounts_.end() && it->first.kind == first.kind && it->first.index == first.index; ++it) {
    Account& account = it->second;
    while (!account.recent.empty() && now_ns - account.recent.front().end_ns > 2 * kRecentNs) {
      account.recent.pop_front();
    }
    if (!account.report.is_up) {
      account.recent.clear();
      account.window.clear();
      account.window_joules = 0;
      continue;
    }
    if (counted != nullptr) {
      Compare(*counted, account);
    } else {
      counted = &account;
    }
  }
  if (counted == nullptr) return;
  int64_t& until_ns = counted_until_ns_[{first.kind, first.index}];
  for (EnergyInterval interval : fresh_) {
    if (KeyOf(interval.device) != KeyOf(counted->device) || interval.end_ns <= until_ns) continue;
    if (interval.begin_ns < until_ns) {
      interval.joules *= static_cast<double>(interval.end_ns - until_ns) /
                         static_cast<double>(interval.end_ns - interval.begin_ns);
      interval.begin_ns = until_ns;
    }
    until_ns = interval.end_ns;
    counted->joules_total += interval.joules;
    intervals->push_back(std::move(interval));
  }
}

void Sampler::Compare(const Account& counted, const Account& other) {
  const auto length_ns = [](const Account& account) {
    return account.window.empty() ? 0 : account.window.back().end_ns - account.window.front().begin_ns;
  };
  // A model of work has its power without work alone here.
  const auto counts_work = [](const Account& account) {
    return !account.window.empty() && account.window.back().work.any();
  };
  if (counts_work(counted) || counts_work(other)) return;
  // Nine tenths: the windows of the two hold whole intervals.
  if (std::min(length_ns(counted), length_ns(other)) < kCompareNs * 9 / 10) return;
  const double first = counted.window_joules / static_cast<double>(length_ns(counted)) * kSecondNs;
  const double second = other.window_joules / static_cast<double>(length_ns(other)) * kSecondNs;
  if (std::max(first, second) - std::min(first, second) <= kLargestDifference * std::max(first, second)) {
    return;
  }
  if (!differing_.insert({KeyOf(counted.device), KeyOf(other.device)}).second) return;
  options_.log(
      fmt::format("energy meters of {} differ: {} says {:.1f} W, {} says {:.1f} W over 10 s; {} counts",
                  counted.device.Label(), counted.device.source, first, other.device.source, second,
                  counted.device.source));
}

std::vector<MeterState> Sampler::States() const {
  std::vector<MeterState> states;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, account] : accounts_) {
    MeterState state;
    state.device = account.device;
    state.is_up = account.report.is_up;
    state.joules_total = account.joules_total;
    std::copy(std::begin(account.report.dropped), std::end(account.report.dropped), state.dropped);
    if (state.is_up && !account.recent.empty()) {
      double joules = 0;
      for (const EnergyInterval& interval : account.recent) joules += interval.joules;
      const int64_t length_ns = account.recent.back().end_ns - account.recent.front().begin_ns;
      state.watts = joules / static_cast<double>(length_ns) * kSecondNs;
    }
    states.push_back(std::move(state));
  }
  return states;
}

}  // namespace mnemo::energy
