#include "devices/energy/model_meter.h"

#include <utility>

namespace mnemo::energy {
namespace {

constexpr int64_t kLongestGapNs = 60'000'000'000;

}  // namespace

ModelMeter::ModelMeter(MeteredDevice device, double idle_watts, double busy_watts)
    : idle_watts_(idle_watts), busy_watts_(busy_watts) {
  report_.device = std::move(device);
  report_.device.source = "model";
}

void ModelMeter::Sample(const Round& round, std::vector<EnergyInterval>* intervals) {
  const auto drop = [&](DropReason reason) {
    ++report_.dropped[static_cast<int>(reason)];
    report_.is_up = false;
    has_start_ = false;
  };
  if (round.cpu.idle_seconds == 0 && round.cpu.busy_seconds == 0) return drop(DropReason::kError);
  if (!has_start_) {
    start_ = round;
    has_start_ = true;
    return;
  }
  const double busy = round.cpu.busy_seconds - start_.cpu.busy_seconds;
  const double idle = round.cpu.idle_seconds - start_.cpu.idle_seconds;
  // The kernel lets idle time go back a little when a CPU goes off line.
  if (busy < 0 || idle < 0) return drop(DropReason::kBackwards);
  const int64_t length_ns = round.now_ns - start_.now_ns;
  if (length_ns > kLongestGapNs) return drop(DropReason::kGap);
  // Times count in ticks of 10 ms: the next round spans this one too.
  if (length_ns <= 0 || busy + idle <= 0) return;
  const double watts = idle_watts_ + (busy_watts_ - idle_watts_) * busy / (busy + idle);
  intervals->push_back(
      {report_.device, start_.now_ns, round.now_ns, watts * static_cast<double>(length_ns) * 1e-9});
  report_.is_up = true;
  start_ = round;
}

void ModelMeter::AppendReports(std::vector<MeterReport>* reports) const { reports->push_back(report_); }

WorkModelMeter::WorkModelMeter(MeteredDevice device, double idle_watts, const WorkFigures& work)
    : idle_watts_(idle_watts), work_(work) {
  report_.device = std::move(device);
  report_.device.source = "model";
}

void WorkModelMeter::Sample(const Round& round, std::vector<EnergyInterval>* intervals) {
  const int64_t begin_ns = std::exchange(last_ns_, round.now_ns);
  if (begin_ns == 0 || round.now_ns <= begin_ns) return;
  if (round.now_ns - begin_ns > kLongestGapNs) {
    ++report_.dropped[static_cast<int>(DropReason::kGap)];
    report_.is_up = false;
    return;
  }
  const double joules = idle_watts_ * static_cast<double>(round.now_ns - begin_ns) * 1e-9;
  intervals->push_back({report_.device, begin_ns, round.now_ns, joules, work_});
  report_.is_up = true;
}

void WorkModelMeter::AppendReports(std::vector<MeterReport>* reports) const { reports->push_back(report_); }

}  // namespace mnemo::energy
