// A stand-in for libnvidia-ml.so.1: GPUs whose answers the test sets through FakeNvml. Error numbers are
// those of NVIDIA's reference manual.
#include "devices/energy/testing/fake_gpus.h"

namespace {

mnemo::energy::testing::FakeGpus state;

struct DeviceOpaque {
  int index;
};
DeviceOpaque devices[mnemo::energy::testing::FakeGpus::kMostGpus] = {{0}, {1}, {2}, {3}};

// As nvmlFieldValue_t.
struct FieldValue {
  unsigned field_id, scope_id;
  long long timestamp, latency;
  int value_type;
  int result;
  unsigned long long value;
};

}  // namespace

extern "C" {

mnemo::energy::testing::FakeGpus* FakeGpusState() { return &state; }

int nvmlInit_v2() {
  ++state.starts;
  return state.start_result;
}
int nvmlShutdown() {
  ++state.stops;
  return 0;
}
const char* nvmlErrorString(int result) { return result == 15 ? "GPU is lost" : "another error"; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(state.count);
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, DeviceOpaque** device) {
  ++state.handles;
  *device = &devices[index];
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(DeviceOpaque* device, unsigned long long* energy_mj) {
  const mnemo::energy::testing::FakeGpu& gpu = state.gpus[device->index];
  *energy_mj = gpu.energy;
  return gpu.energy_result;
}
int nvmlDeviceGetFieldValues(DeviceOpaque* device, int count, FieldValue* values) {
  const mnemo::energy::testing::FakeGpu& gpu = state.gpus[device->index];
  for (int i = 0; i < count; ++i) {
    values[i].value_type = 1;  // unsigned
    values[i].result = values[i].field_id == 186 ? gpu.field_result : 2;
    values[i].value = gpu.instant_mw;
  }
  return 0;
}
int nvmlDeviceGetPowerUsage(DeviceOpaque* device, unsigned* power_mw) {
  const mnemo::energy::testing::FakeGpu& gpu = state.gpus[device->index];
  *power_mw = gpu.average_mw;
  return gpu.power_result;
}

}  // extern "C"
