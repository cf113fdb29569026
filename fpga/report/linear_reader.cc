#include "fpga/report/linear_reader.h"

#include <cmath>
#include <cstdint>

#include "fpga/sim/hbm_channel.h"

namespace mnemo::card::report {

std::optional<double> LinearReaderRate(double clock_mhz) {
  constexpr uint64_t kBytes = 16 << 20;
  constexpr uint64_t kBurstBytes = 4096;
  constexpr uint64_t kBurstBeats = kBurstBytes / sim::kBeatBytes;
  constexpr uint64_t kOpenBursts = 32;
  sim::HbmOptions options;
  options.clock_ps = std::lround(1e6 / clock_mhz);
  const sim::Range range{0, kBytes};
  sim::SparseMemory memory(range, options.seed);
  sim::HbmChannel channel(options, range, &memory);
  uint64_t asked = 0;
  uint64_t clocks = 0;
  for (; channel.beats() < kBytes / sim::kBeatBytes; ++clocks) {
    const uint64_t answered = channel.beats() / kBurstBeats;
    const bool asks = asked < kBytes / kBurstBytes && asked - answered < kOpenBursts;
    const bool takes = asks && channel.ar_ready();
    channel.Step(asks, asked * kBurstBytes, kBurstBeats - 1, true);
    asked += takes;
  }
  return static_cast<double>(kBytes) * 1e6 / static_cast<double>(clocks) /
         static_cast<double>(options.clock_ps);
}

}  // namespace mnemo::card::report
