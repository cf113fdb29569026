// The sampler: all meters of the machine as one source of energy.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "devices/energy/meter.h"

namespace mnemo::energy {

struct SamplerOptions {
  std::function<void(const std::string&)> log;  // a line for the operator
};

// Place of a source in the order of preference, 0 first: rapl, perf, nvml, rocm_smi, xrt, model.
int Preference(const std::string& source);

// Several sources may cover one device. The intervals and joules of the most preferred one that is up count,
// and no time of a device counts twice. The others are compared with it: a difference of 30 % over 10 s is
// logged once for each pair.
class Sampler : public EnergySource {
 public:
  Sampler(std::vector<std::unique_ptr<Meter>> meters, SamplerOptions options);
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override;
  std::vector<MeterState> States() const override;

 private:
  struct Key {
    DeviceKind kind;
    int index;
    int preference;
    auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  struct Account {
    MeteredDevice device;
    MeterReport report;
    double joules_total = 0;
    std::deque<EnergyInterval> recent;  // of the last second, counted or not
    std::deque<EnergyInterval> window;  // of the last 10 s, for the comparison
    double window_joules = 0;
  };
  static Key KeyOf(const MeteredDevice& device);
  void Note(const EnergyInterval& interval);
  void Count(const Key& first, std::vector<EnergyInterval>* intervals, int64_t now_ns);
  void Compare(const Account& counted, const Account& other);

  const std::vector<std::unique_ptr<Meter>> meters_;
  const SamplerOptions options_;
  // Used by the sampling thread alone.
  std::vector<EnergyInterval> fresh_;
  std::vector<MeterReport> reports_;
  std::map<std::pair<DeviceKind, int>, int64_t> counted_until_ns_;
  std::set<std::pair<Key, Key>> differing_;
  mutable std::mutex mutex_;
  std::map<Key, Account> accounts_;
};

}  // namespace mnemo::energy
