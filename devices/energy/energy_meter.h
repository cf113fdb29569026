// Energy meters: joules that a device has consumed, read from the machine's own counters.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "devices/energy/cpu_times.h"

namespace mnemo::energy {

// Part of the machine that a meter covers. A label's value is the name and a number: "cpu0", "dram0", "gpu1".
enum class DeviceKind { kCpu, kDram, kGpu, kFpga };

// "cpu", "dram", "gpu", "fpga".
const char* Name(DeviceKind kind);

struct MeteredDevice {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  std::string source;  // rapl | perf | nvml | rocm_smi | xrt | model

  std::string Label() const;  // "cpu0"
};

// The device of a label, without a source; none: not the form of Label, or a number above 1023.
std::optional<MeteredDevice> ParseDevice(std::string_view label);
// Whether both are the same device, of whatever source.
bool IsSameDevice(const MeteredDevice& a, const MeteredDevice& b);

// Figures of a model that counts work: energy of each byte and of each multiply-add.
struct WorkFigures {
  double joules_per_byte = 0;
  double joules_per_operation = 0;

  bool any() const { return joules_per_byte > 0 || joules_per_operation > 0; }
};

// Energy of one device between two readings. Readings that were dropped lie between no two intervals: an
// interval is present only if both of its ends can be trusted.
struct EnergyInterval {
  MeteredDevice device;
  int64_t begin_ns = 0;  // CLOCK_MONOTONIC, as NowNs of devices/base/clock.h
  int64_t end_ns = 0;    // > begin_ns
  double joules = 0;     // >= 0
  // Any: the interval is that of a model of work, and `joules` are those without work. Attribution, which
  // knows the work, adds its energy.
  WorkFigures work;
};

// Reasons for which a reading is not used.
enum class DropReason { kBackwards, kStuck, kGap, kError };
inline constexpr int kDropReasons = 4;

// "backwards", "stuck", "gap", "error": values of the label of mnemo_energy_samples_dropped_total.
const char* Name(DropReason reason);

struct MeterState {
  MeteredDevice device;
  bool is_up = false;
  double joules_total = 0;  // sum of the intervals that Sample has handed out
  double watts = 0;         // mean over the last second or so of intervals; 0 while it is down
  uint64_t dropped[kDropReasons] = {};
};

// Circumstances of one round of readings.
struct Round {
  int64_t now_ns = 0;  // CLOCK_MONOTONIC
  CpuTimes cpu;        // since boot; zeros when they cannot be read
};

// All meters of the machine, behind one sampler. Several sources may cover one device, and States has them
// all. Intervals come from the most preferred one that is up, so that no time of a device counts twice.
// One thread calls Sample; States may be called from any thread.
class EnergySource {
 public:
  virtual ~EnergySource() = default;
  // Reads every meter once and appends an interval for each that has one since the last call. Blocks for the
  // reading of counters alone, a few hundred microseconds. A meter that fails is reported in States and tried
  // again later.
  virtual void Sample(const Round& round, std::vector<EnergyInterval>* intervals) = 0;
  virtual std::vector<MeterState> States() const = 0;
};

}  // namespace mnemo::energy
