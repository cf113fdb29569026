// A stand-in for librocm_smi64.so: GPUs whose answers the test sets through FakeGpus.
#include <cstdint>

#include "devices/energy/testing/fake_gpus.h"

namespace {

mnemo::energy::testing::FakeGpus state;

}  // namespace

extern "C" {

mnemo::energy::testing::FakeGpus* FakeGpusState() { return &state; }

int rsmi_init(uint64_t) {
  ++state.starts;
  return state.start_result;
}
int rsmi_shut_down() {
  ++state.stops;
  return 0;
}
int rsmi_num_monitor_devices(uint32_t* count) {
  *count = static_cast<uint32_t>(state.count);
  return 0;
}
int rsmi_dev_energy_count_get(uint32_t index, uint64_t* count, float* resolution_uj, uint64_t* timestamp_ns) {
  const mnemo::energy::testing::FakeGpu& gpu = state.gpus[index];
  *count = gpu.energy;
  *resolution_uj = gpu.resolution_uj;
  *timestamp_ns = 1;
  return gpu.energy_result;
}

}  // extern "C"
