#include "devices/energy/rocm_smi.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "devices/energy/dynamic_library.h"

namespace mnemo::energy {
namespace {

// The part of the library's interface that is used here; its header is not needed.
using Status = int;
constexpr Status kSuccess = 0;
constexpr Status kNotSupported = 2;
constexpr uint32_t kMostGpus = 1024;
constexpr double kMaxGpuWatts = 5000;

struct Functions {
  Status (*init)(uint64_t flags) = nullptr;
  Status (*shut_down)() = nullptr;
  Status (*count)(uint32_t*) = nullptr;
  Status (*energy)(uint32_t index, uint64_t* count, float* resolution_uj, uint64_t* timestamp_ns) = nullptr;
};

class RocmSmi {
 public:
  static absl::StatusOr<std::shared_ptr<RocmSmi>> Start(const std::string& name) {
    auto smi = std::make_shared<RocmSmi>();
    MNEMO_ASSIGN_OR_RETURN(smi->library_, DynamicLibrary::Open(name));
    smi->library_.Find("rsmi_init", &smi->call.init);
    smi->library_.Find("rsmi_shut_down", &smi->call.shut_down);
    smi->library_.Find("rsmi_num_monitor_devices", &smi->call.count);
    smi->library_.Find("rsmi_dev_energy_count_get", &smi->call.energy);
    if (!smi->call.init || !smi->call.shut_down || !smi->call.count || !smi->call.energy) {
      return NotFound("{} lacks functions of ROCm SMI", name);
    }
    MNEMO_RETURN_IF_ERROR(Result(smi->call.init(0), "rsmi_init"));
    smi->is_started_ = true;
    return smi;
  }
  ~RocmSmi() {
    if (is_started_) call.shut_down();
  }

  static absl::Status Result(Status status, const char* function) {
    if (status == kSuccess) return absl::OkStatus();
    if (status == kNotSupported) return Unimplemented("{}: not supported", function);
    return Unavailable("{}: error {}", function, status);
  }

  Functions call;

 private:
  DynamicLibrary library_;
  bool is_started_ = false;
};

class RocmSmiCounter : public Counter {
 public:
  RocmSmiCounter(std::shared_ptr<RocmSmi> smi, uint32_t index, int first_index)
      : smi_(std::move(smi)), index_(index) {
    info_.device = {DeviceKind::kGpu, first_index + static_cast<int>(index), "rocm_smi"};
    info_.max_watts = kMaxGpuWatts;
  }
  const CounterInfo& info() const override { return info_; }
  absl::StatusOr<RawReading> Read() override {
    uint64_t count = 0, timestamp_ns = 0;
    float resolution_uj = 0;
    MNEMO_RETURN_IF_ERROR(RocmSmi::Result(smi_->call.energy(index_, &count, &resolution_uj, &timestamp_ns),
                                          "rsmi_dev_energy_count_get"));
    if (!(resolution_uj > 0 && resolution_uj < 1e6F)) {
      return DataLoss("rsmi_dev_energy_count_get: a resolution of {} uJ", resolution_uj);
    }
    info_.joules_per_count = static_cast<double>(resolution_uj) * 1e-6;
    return RawReading{.count = count};
  }

 private:
  const std::shared_ptr<RocmSmi> smi_;
  const uint32_t index_;
  CounterInfo info_;
};

}  // namespace

absl::StatusOr<Counters> FindRocmSmiCounters(const std::string& library, int first_index) {
  MNEMO_ASSIGN_OR_RETURN(const std::shared_ptr<RocmSmi> smi, RocmSmi::Start(library));
  uint32_t count = 0;
  MNEMO_RETURN_IF_ERROR(RocmSmi::Result(smi->call.count(&count), "rsmi_num_monitor_devices"));
  Counters counters;
  for (uint32_t index = 0; index < std::min(count, kMostGpus); ++index) {
    counters.push_back(std::make_unique<RocmSmiCounter>(smi, index, first_index));
  }
  return counters;
}

}  // namespace mnemo::energy
