#include "devices/energy/make_energy_source.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "config/energy_texts.h"
#include "devices/base/clock.h"
#include "devices/energy/counter_meter.h"
#include "devices/energy/model_meter.h"
#include "devices/energy/nvml.h"
#include "devices/energy/powercap.h"
#include "devices/energy/remote_meters.h"
#include "devices/energy/rocm_smi.h"
#include "devices/energy/sampler.h"
#include "devices/energy/xrt.h"

namespace mnemo::energy {
namespace {

constexpr int64_t kMillisecondNs = 1'000'000;

void Complete(Surroundings* around) {
  if (!around->now_ns) around->now_ns = NowNs;
  if (!around->log) around->log = [](const std::string&) {};
}

void Append(Counters more, Counters* counters) {
  std::move(more.begin(), more.end(), std::back_inserter(*counters));
}

// A vendor's library that is not installed is the usual case; one that fails is worth a line.
void AppendFound(const std::string& source, absl::StatusOr<Counters> found, const Surroundings& around,
                 Counters* counters) {
  if (found.ok()) return Append(*std::move(found), counters);
  if (absl::IsNotFound(found.status()) || absl::IsUnimplemented(found.status())) return;
  around.log(fmt::format("energy: {}: {}", source, std::string(found.status().message())));
}

Counters FindCounters(const config::Config::Energy& energy, const Surroundings& around) {
  const auto wanted = [&](std::string_view source) {
    return std::find(energy.sources.begin(), energy.sources.end(), source) != energy.sources.end();
  };
  Counters counters;
  if (wanted("rapl")) Append(FindPowercapCounters(energy.powercap_root), &counters);
  if (wanted("perf")) Append(FindPerfCounters(around.sys, around.open_perf_event), &counters);
  const size_t without_gpus = counters.size();
  if (wanted("nvml")) AppendFound("nvml", FindNvmlCounters(energy.nvml_library), around, &counters);
  const int first_index = static_cast<int>(counters.size() - without_gpus);
  if (wanted("rocm_smi")) {
    AppendFound("rocm_smi", FindRocmSmiCounters(energy.rocm_smi_library, first_index), around, &counters);
  }
  if (wanted("xrt")) AppendFound("xrt", FindXrtCounters(), around, &counters);
  return counters;
}

// Sorts out counters that the device does not have and those that this process may not read.
std::vector<std::unique_ptr<Meter>> MakeMeters(Counters counters, const config::Config::Energy& energy,
                                               const Surroundings& around,
                                               std::vector<MeteredDevice>* denied) {
  std::vector<std::unique_ptr<Meter>> meters;
  for (std::unique_ptr<Counter>& counter : counters) {
    const MeteredDevice& device = counter->info().device;
    const absl::Status status = counter->Read().status();
    if (absl::IsPermissionDenied(status) && denied != nullptr) {
      denied->push_back(device);
      continue;
    }
    if (absl::IsUnimplemented(status)) {
      around.log(fmt::format("energy: {} has no counter for {}: {}", device.Label(), device.source,
                             std::string(status.message())));
      continue;
    }
    meters.push_back(std::make_unique<CounterMeter>(
        std::move(counter),
        CounterMeterOptions{
            .interval_ns = energy.interval_ms * kMillisecondNs, .now_ns = around.now_ns, .log = around.log}));
  }
  return meters;
}

std::unique_ptr<EnergySource> MakeSampler(std::vector<std::unique_ptr<Meter>> meters, Surroundings around) {
  if (meters.empty()) return nullptr;
  return std::make_unique<Sampler>(std::move(meters), SamplerOptions{.log = std::move(around.log)});
}

}  // namespace

absl::StatusOr<std::unique_ptr<EnergySource>> MakeEnergySource(const config::Config::Energy& energy,
                                                               Surroundings surroundings) {
  if (!energy.enabled) return nullptr;
  Complete(&surroundings);
  MNEMO_ASSIGN_OR_RETURN(const std::vector<config::ModelFigures> models,
                         config::ParseEnergyModel(energy.model));
  std::vector<MeteredDevice> denied;
  std::vector<std::unique_ptr<Meter>> meters =
      MakeMeters(FindCounters(energy, surroundings), energy, surroundings, &denied);
  // One that is less preferred would only wait to be reported as down.
  std::sort(denied.begin(), denied.end(), [](const MeteredDevice& a, const MeteredDevice& b) {
    return std::tuple(a.kind, a.index, Preference(a.source)) <
           std::tuple(b.kind, b.index, Preference(b.source));
  });
  denied.erase(std::unique(denied.begin(), denied.end(), IsSameDevice), denied.end());
  if (!denied.empty() && energy.socket.empty()) {
    surroundings.log(
        fmt::format("energy: this process may not read the counter of {}, and energy.socket names no "
                    "mnemo-energy",
                    denied.front().Label()));
  } else if (!denied.empty()) {
    meters.push_back(std::make_unique<RemoteMeters>(
        RemoteMetersOptions{.socket = energy.socket, .devices = denied, .log = surroundings.log}));
  }
  for (const config::ModelFigures& model : models) {
    const std::optional<MeteredDevice> device = ParseDevice(model.device);
    MNEMO_CHECK(device.has_value());  // ParseEnergyModel takes devices alone
    if (model.counts_work()) {
      meters.push_back(std::make_unique<WorkModelMeter>(
          *device, model.idle_watts, WorkFigures{model.joules_per_byte, model.joules_per_operation}));
    } else {
      meters.push_back(std::make_unique<ModelMeter>(*device, model.idle_watts, model.busy_watts));
    }
  }
  return MakeSampler(std::move(meters), std::move(surroundings));
}

std::unique_ptr<EnergySource> MakeLocalSource(const config::Config::Energy& energy,
                                              Surroundings surroundings) {
  Complete(&surroundings);
  std::vector<std::unique_ptr<Meter>> meters =
      MakeMeters(FindCounters(energy, surroundings), energy, surroundings, nullptr);
  return MakeSampler(std::move(meters), std::move(surroundings));
}

}  // namespace mnemo::energy
