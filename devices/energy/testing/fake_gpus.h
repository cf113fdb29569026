// The state of the fake GPU libraries, which a test reaches by their function FakeGpusState.
#pragma once

namespace mnemo::energy::testing {

struct FakeGpu {
  unsigned long long energy = 0;  // mJ of NVML; counts of ROCm SMI
  int energy_result = 0;          // the library's error number
  float resolution_uj = 15.3F;    // ROCm SMI
  unsigned instant_mw = 0;        // NVML_FI_DEV_POWER_INSTANT
  int field_result = 0;
  unsigned average_mw = 0;  // nvmlDeviceGetPowerUsage
  int power_result = 0;
};

struct FakeGpus {
  static constexpr int kMostGpus = 4;
  FakeGpu gpus[kMostGpus];
  int count = 1;
  int start_result = 0;
  int starts = 0, stops = 0, handles = 0;
};

}  // namespace mnemo::energy::testing
