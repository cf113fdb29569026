// `mnemo energy --calibrate`: figures for energy.model, from a machine with a meter.
#pragma once

#include <chrono>
#include <string>

#include "client/client.h"

namespace mnemo::cli {

struct CalibrateOptions {
  std::chrono::nanoseconds phase{std::chrono::seconds(10)};
  bool json = false;
  std::string proc_stat = "/proc/stat";
};

// Measures the power of CPUs and DRAM without load and under several numbers of requests at once. Fits the
// model to four phases, and prints its lines with the error over two others. Blocks for six phases. Returns
// the exit code; a daemon without such meters is refused.
int Calibrate(client::Client* client, const CalibrateOptions& options);

}  // namespace mnemo::cli
