#include "host_memory.h"

#include <cstring>

namespace mnemo::rtl_command {
namespace {

sim::HostPortOptions Options(uint64_t seed) {
  sim::HostPortOptions options;
  options.clock_ps = 1;
  options.seed = seed;
  options.read_latency_ps = options.write_latency_ps = options.beat_ps = 0;
  options.open = 8;
  return options;
}

}  // namespace

HostMemory::HostMemory(uint64_t bytes, uint64_t seed)
    : bytes_(bytes), random_(seed), port_(Options(seed + 1), &memory_) {
  memory_.Map(kBase, bytes_);
}

uint32_t HostMemory::Word(uint64_t address) {
  uint32_t value;
  std::memcpy(&value, At(address), 4);
  return value;
}

void HostMemory::SetWord(uint64_t address, uint32_t value) { std::memcpy(At(address), &value, 4); }

uint64_t HostMemory::Take(uint64_t bytes) {
  const uint64_t address = kBase + taken_;
  taken_ += (bytes + 63) / 64 * 64 + 64 * (1 + random_() % 100);
  (void)bytes_.at(taken_);
  return address;
}

const sim::HostPort& HostMemory::Drive() {
  sim::HostPortOptions& options = port_.options();
  options.ready_percent = ready_percent;
  options.jitter_ps = latency + 1;
  options.answers = answers;
  if (fail_read >= 0) options.read_error_beat = port_.beats_read() + static_cast<uint64_t>(fail_read);
  if (fail_write >= 0) options.write_error_at = port_.writes_taken() + static_cast<uint64_t>(fail_write);
  fail_read = fail_write = -1;
  return port_;
}

}  // namespace mnemo::rtl_command
