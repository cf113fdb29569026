#include "devices/energy/nvml.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "devices/energy/dynamic_library.h"

namespace mnemo::energy {
namespace {

// The part of NVML's interface that is used here, after NVIDIA's reference manual. Its header is not needed.
using Device = struct DeviceOpaque*;
using Return = int;
constexpr Return kSuccess = 0;
constexpr Return kNotSupported = 3;
constexpr unsigned kPowerInstant = 186;  // NVML_FI_DEV_POWER_INSTANT, mW
struct FieldValue {
  unsigned field_id;
  unsigned scope_id;
  long long timestamp_us;
  long long latency_us;
  int value_type;
  Return result;
  union {
    double as_double;
    int as_int;
    unsigned as_unsigned;
    unsigned long as_unsigned_long;
    unsigned long long as_unsigned_long_long;
    long long as_long_long;
  } value;
};
static_assert(sizeof(FieldValue) == 40);
enum ValueType { kUnsigned = 1, kUnsignedLong = 2, kUnsignedLongLong = 3 };
constexpr unsigned kMostGpus = 1024;
constexpr double kMaxGpuWatts = 5000;

struct Functions {
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  Return (*count)(unsigned*) = nullptr;
  Return (*handle)(unsigned, Device*) = nullptr;
  // These may be absent.
  const char* (*error_text)(Return) = nullptr;
  Return (*energy_mj)(Device, unsigned long long*) = nullptr;
  Return (*field_values)(Device, int, FieldValue*) = nullptr;
  Return (*power_mw)(Device, unsigned*) = nullptr;
};

// The started library, shared by the counters of all GPUs.
class Nvml {
 public:
  static absl::StatusOr<std::shared_ptr<Nvml>> Start(const std::string& name) {
    auto nvml = std::make_shared<Nvml>();
    MNEMO_ASSIGN_OR_RETURN(nvml->library_, DynamicLibrary::Open(name));
    Functions& call = nvml->call;
    nvml->library_.Find("nvmlInit_v2", &call.init);
    nvml->library_.Find("nvmlShutdown", &call.shutdown);
    nvml->library_.Find("nvmlDeviceGetCount_v2", &call.count);
    nvml->library_.Find("nvmlDeviceGetHandleByIndex_v2", &call.handle);
    nvml->library_.Find("nvmlErrorString", &call.error_text);
    nvml->library_.Find("nvmlDeviceGetTotalEnergyConsumption", &call.energy_mj);
    nvml->library_.Find("nvmlDeviceGetFieldValues", &call.field_values);
    nvml->library_.Find("nvmlDeviceGetPowerUsage", &call.power_mw);
    if (!call.init || !call.shutdown || !call.count || !call.handle) {
      return NotFound("{} lacks functions of NVML", name);
    }
    MNEMO_RETURN_IF_ERROR(nvml->Result(call.init(), "nvmlInit_v2"));
    nvml->is_started_ = true;
    return nvml;
  }
  ~Nvml() {
    if (is_started_) call.shutdown();
  }

  absl::Status Result(Return result, const char* function) const {
    if (result == kSuccess) return absl::OkStatus();
    const char* const text = call.error_text != nullptr ? call.error_text(result) : nullptr;
    const std::string message =
        fmt::format("{}: {} ({})", function, text != nullptr ? text : "error", result);
    return result == kNotSupported ? absl::UnimplementedError(message) : absl::UnavailableError(message);
  }

  Functions call;

 private:
  DynamicLibrary library_;
  bool is_started_ = false;
};

class NvmlCounter : public Counter {
 public:
  NvmlCounter(std::shared_ptr<Nvml> nvml, unsigned index) : nvml_(std::move(nvml)), index_(index) {
    info_.device = {DeviceKind::kGpu, static_cast<int>(index), "nvml"};
    info_.joules_per_count = 1e-3;
    info_.max_watts = kMaxGpuWatts;
    // A GPU that is lost at the start is asked again later, then for its energy.
    const absl::StatusOr<RawReading> energy = Read();
    info_.is_power = !energy.ok() && absl::IsUnimplemented(energy.status());
  }
  const CounterInfo& info() const override { return info_; }
  absl::StatusOr<RawReading> Read() override {
    if (device_ == nullptr) {
      MNEMO_RETURN_IF_ERROR(
          nvml_->Result(nvml_->call.handle(index_, &device_), "nvmlDeviceGetHandleByIndex_v2"));
    }
    const absl::StatusOr<RawReading> reading = info_.is_power ? ReadPower() : ReadEnergy();
    // A GPU that fell off the bus has another handle when it is back.
    if (!reading.ok()) device_ = nullptr;
    return reading;
  }

 private:
  absl::StatusOr<RawReading> ReadEnergy() const {
    if (nvml_->call.energy_mj == nullptr) return Unimplemented("no nvmlDeviceGetTotalEnergyConsumption");
    unsigned long long energy_mj = 0;
    MNEMO_RETURN_IF_ERROR(
        nvml_->Result(nvml_->call.energy_mj(device_, &energy_mj), "nvmlDeviceGetTotalEnergyConsumption"));
    return RawReading{.count = energy_mj};
  }

  absl::StatusOr<RawReading> ReadPower() const {
    if (nvml_->call.field_values != nullptr) {
      FieldValue field = {};
      field.field_id = kPowerInstant;
      MNEMO_RETURN_IF_ERROR(
          nvml_->Result(nvml_->call.field_values(device_, 1, &field), "nvmlDeviceGetFieldValues"));
      if (field.result == kSuccess) return Watts(field);
      if (field.result != kNotSupported) return nvml_->Result(field.result, "NVML_FI_DEV_POWER_INSTANT");
    }
    // GPUs without a count of energy and without that field are older than Volta. There, this power is no
    // average over a second, as it is since GA100.
    if (nvml_->call.power_mw == nullptr) return Unimplemented("no nvmlDeviceGetPowerUsage");
    unsigned power_mw = 0;
    MNEMO_RETURN_IF_ERROR(nvml_->Result(nvml_->call.power_mw(device_, &power_mw), "nvmlDeviceGetPowerUsage"));
    return RawReading{.watts = power_mw * 1e-3};
  }

  static absl::StatusOr<RawReading> Watts(const FieldValue& field) {
    switch (field.value_type) {
      case kUnsigned:
        return RawReading{.watts = field.value.as_unsigned * 1e-3};
      case kUnsignedLong:
        return RawReading{.watts = static_cast<double>(field.value.as_unsigned_long) * 1e-3};
      case kUnsignedLongLong:
        return RawReading{.watts = static_cast<double>(field.value.as_unsigned_long_long) * 1e-3};
      default:
        return DataLoss("NVML_FI_DEV_POWER_INSTANT: a value of type {}", field.value_type);
    }
  }

  const std::shared_ptr<Nvml> nvml_;
  const unsigned index_;
  CounterInfo info_;
  Device device_ = nullptr;
};

}  // namespace

absl::StatusOr<Counters> FindNvmlCounters(const std::string& library) {
  MNEMO_ASSIGN_OR_RETURN(const std::shared_ptr<Nvml> nvml, Nvml::Start(library));
  unsigned count = 0;
  MNEMO_RETURN_IF_ERROR(nvml->Result(nvml->call.count(&count), "nvmlDeviceGetCount_v2"));
  Counters counters;
  for (unsigned index = 0; index < std::min(count, kMostGpus); ++index) {
    counters.push_back(std::make_unique<NvmlCounter>(nvml, index));
  }
  return counters;
}

}  // namespace mnemo::energy
