#include "server/frontend/energy_report.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "server/frontend/duration.h"

namespace mnemo::frontend {
namespace {

using attribution::IdleWatts;
using telemetry::ForeignFamily;

const energy::MeterState* StateOf(const attribution::EnergySnapshot& snapshot,
                                  const energy::MeteredDevice& device) {
  const auto at = std::find_if(snapshot.meters.begin(), snapshot.meters.end(), [&](const auto& meter) {
    return energy::IsSameDevice(meter.device, device) && meter.device.source == device.source;
  });
  return at == snapshot.meters.end() ? nullptr : &*at;
}

telemetry::ForeignHistogram ToHistogram(const attribution::JouleHistogram& histogram) {
  return {{histogram.bounds.begin(), histogram.bounds.end()}, histogram.buckets, histogram.sum};
}

struct Families {
  ForeignFamily joules{"mnemo_energy_joules_total"};
  ForeignFamily uses{"mnemo_energy_use_joules_total"};
  ForeignFamily steps{"mnemo_step_energy_joules_total"};
  ForeignFamily watts{"mnemo_power_watts"};
  ForeignFamily idle{"mnemo_idle_power_watts"};
  ForeignFamily up{"mnemo_energy_meter_up"};
  ForeignFamily dropped{"mnemo_energy_samples_dropped_total"};
};

void AddMeter(const energy::MeterState& meter, Families* families) {
  const std::string device = meter.device.Label();
  families->up.samples.push_back(
      {{{"device", device}, {"source", meter.device.source}}, meter.is_up ? 1.0 : 0.0});
}

void AddDropped(const std::vector<energy::MeterState>& meters, Families* families) {
  // Two sources of one device share the label.
  std::map<std::string, std::array<uint64_t, energy::kDropReasons>> sums;
  for (const energy::MeterState& meter : meters) {
    auto& sum = sums[meter.device.Label()];
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += meter.dropped[i];
  }
  for (const auto& [device, sum] : sums) {
    for (size_t i = 0; i < sum.size(); ++i) {
      const char* reason = energy::Name(static_cast<energy::DropReason>(i));
      families->dropped.samples.push_back(
          {{{"device", device}, {"reason", reason}}, static_cast<double>(sum[i])});
    }
  }
}

void AddDevice(const attribution::EnergySnapshot& snapshot, const attribution::DeviceAccount& account,
               Families* families) {
  const std::pair<std::string, std::string> device{"device", account.device.Label()};
  families->joules.samples.push_back(
      {{device, {"kind", energy::Name(account.device.kind)}, {"source", account.device.source}},
       account.uses.sum()});
  const std::pair<const char*, double> uses[] = {{"request", account.uses.request},
                                                 {"overhead", account.uses.overhead},
                                                 {"idle", account.uses.idle},
                                                 {"other", account.uses.other}};
  for (const auto& [use, joules] : uses) families->uses.samples.push_back({{device, {"use", use}}, joules});
  const energy::MeterState* const meter = StateOf(snapshot, account.device);
  if (meter != nullptr) families->watts.samples.push_back({{device}, meter->watts + account.work_watts});
  const bool is_configured = account.idle_origin == IdleWatts::Origin::kConfigured;
  families->idle.samples.push_back(
      {{device, {"origin", is_configured ? "configured" : "measured"}}, account.idle_watts});
}

}  // namespace

std::vector<ForeignFamily> EnergyFamilies(const attribution::EnergySnapshot& snapshot) {
  Families families;
  for (const energy::MeterState& meter : snapshot.meters) AddMeter(meter, &families);
  AddDropped(snapshot.meters, &families);
  for (const attribution::DeviceAccount& account : snapshot.devices) AddDevice(snapshot, account, &families);
  for (const attribution::StepAccount& account : snapshot.steps) {
    for (size_t step = 0; step < attribution::kEnergySteps; ++step) {
      families.steps.samples.push_back({{{"device", account.device.Label()},
                                         {"method", account.method},
                                         {"step", attribution::kEnergyStepNames[step]}},
                                        account.steps[step]});
    }
  }
  std::vector<ForeignFamily> list = {families.joules, families.uses, families.steps,  families.watts,
                                     families.idle,   families.up,   families.dropped};
  if (snapshot.devices.empty()) return list;
  list.push_back({"mnemo_request_energy_joules", {{{}, 0, ToHistogram(snapshot.requests)}}});
  list.push_back({"mnemo_output_token_energy_joules", {{{}, 0, ToHistogram(snapshot.output_tokens)}}});
  return list;
}

void FillEnergyResponse(const attribution::EnergyMonitor& monitor,
                        const std::vector<dispatch::RunningRequest>& tokens, v1::EnergyResponse* response) {
  const attribution::EnergySnapshot snapshot = monitor.Snapshot();
  for (const attribution::DeviceAccount& account : snapshot.devices) {
    v1::EnergyResponse::Device* out = response->add_devices();
    out->set_device(account.device.Label());
    out->set_source(account.device.source);
    const energy::MeterState* const meter = StateOf(snapshot, account.device);
    out->set_meter_up(meter != nullptr && meter->is_up);
    out->set_watts(meter == nullptr ? 0 : meter->watts + account.work_watts);
    out->set_joules(account.uses.sum());
    out->set_idle_watts(account.idle_watts);
    out->set_idle_watts_measured(account.idle_origin == IdleWatts::Origin::kMeasured);
    out->set_request_joules(account.uses.request);
    out->set_overhead_joules(account.uses.overhead);
    out->set_idle_joules(account.uses.idle);
    out->set_other_joules(account.uses.other);
  }
  for (const attribution::StepAccount& account : snapshot.steps) {
    for (size_t step = 0; step < attribution::kEnergySteps; ++step) {
      v1::EnergyResponse::Step* out = response->add_steps();
      out->set_device(account.device.Label());
      out->set_method(account.method);
      out->set_step(attribution::kEnergyStepNames[step]);
      out->set_joules(account.steps[step]);
    }
  }
  const int64_t now_ns = monitor.NowNs();
  for (const attribution::RequestEnergy& request : monitor.Running()) {
    v1::EnergyResponse::Request* out = response->add_requests();
    out->set_request_id(request.request_id);
    out->set_joules(request.joules());
    const auto same = std::find_if(tokens.begin(), tokens.end(), [&](const dispatch::RunningRequest& known) {
      return known.id == request.id;
    });
    if (same != tokens.end()) out->set_completion_tokens(same->output_tokens);
    SetDuration(std::chrono::nanoseconds(now_ns - request.begin_ns), out->mutable_age());
  }
}

}  // namespace mnemo::frontend
