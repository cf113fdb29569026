#include "fpga/sim/hbm_channel.h"

#include <algorithm>
#include <bit>

namespace mnemo::sim {
namespace {

alignas(64) constexpr uint8_t kNothing[kBeatBytes] = {};

}  // namespace

HbmChannel::HbmChannel(const HbmOptions& options, Range range, Memory* memory)
    : options_(options),
      range_(range),
      memory_(memory),
      rng_(static_cast<uint32_t>(options.seed)),
      buffer_(std::bit_ceil(options.buffer_beats)),
      next_refresh_ps_(options.refresh_every_ps) {}

void HbmChannel::Reset() {
  bursts_open_.clear();
  first_ = end_ = 0;
  answers_open_ = 0;
  ar_ready_ = r_valid_ = false;
  bus_ps_ = now_ps_;
}

void HbmChannel::Step(bool ar_valid, uint64_t address, uint8_t length, bool r_ready) {
  now_ps_ += options_.clock_ps;
  if (ar_valid && ar_ready_) Take(address, uint32_t{length} + 1);
  const bool taken = r_valid_ && r_ready;
  if (taken) {
    answers_open_ -= Front().last;
    ++first_;
    ++beats_;
  }
  if (!bursts_open_.empty()) Serve();
  const bool stalls = options_.stall_percent != 0;
  ar_ready_ = answers_open_ < options_.open_bursts && !(stalls && rng_() % 100 < options_.stall_percent);
  if (!r_valid_ || taken) {
    r_valid_ =
        first_ != end_ && Front().ready_ps <= now_ps_ && !(stalls && rng_() % 100 < options_.stall_percent);
  }
}

void HbmChannel::Take(uint64_t address, uint32_t beats) {
  rules_.CheckBurst(false, address, beats);
  if (!range_.Contains(address, beats * kBeatBytes)) {
    rules_.Record("outside of the channel", false, address, beats * kBeatBytes);
  }
  const int64_t jitter = static_cast<int64_t>(rng_() % static_cast<uint64_t>(options_.jitter_ps + 1));
  bursts_open_.push_back({.number = bursts_++,
                          .address = address,
                          .beats = beats,
                          .served = 0,
                          .known_ps = now_ps_,
                          .latency_ps = options_.latency_ps + jitter});
  ++answers_open_;
}

// Serves what the data bus has time for until now.
void HbmChannel::Serve() {
  while (!bursts_open_.empty() && bus_ps_ <= now_ps_) {
    Burst& burst = bursts_open_.front();
    if (burst.number >= options_.stop_at) return;
    if (end_ - first_ >= options_.buffer_beats) {
      bus_ps_ = now_ps_;
      return;
    }
    const uint64_t address = burst.address + burst.served * kBeatBytes;
    bus_ps_ = StartOf(burst, address) + options_.beat_ps;
    banks_[address / kRowBytes % kBanks].free_ps =
        std::max(banks_[address / kRowBytes % kBanks].free_ps, bus_ps_);

    const uint8_t* data = range_.Contains(address, kBeatBytes) ? memory_->BeatForRead(address) : nullptr;
    Beat& beat = buffer_[end_ & (buffer_.size() - 1)];
    beat.response = data == nullptr ? kDecodeError : burst.number == options_.error_at ? kSlaveError : 0;
    beat.data = data == nullptr ? kNothing : data;
    beat.last = ++burst.served == burst.beats;
    beat.ready_ps = bus_ps_ + burst.latency_ps;
    ++end_;
    if (beat.last) bursts_open_.pop_front();
  }
}

// When the data bus begins with the beat. Opens its row.
int64_t HbmChannel::StartOf(const Burst& burst, uint64_t address) {
  int64_t start = std::max(bus_ps_, burst.known_ps);
  Refresh(&start);
  Bank& bank = banks_[address / kRowBytes % kBanks];
  const auto row = static_cast<int64_t>(address / kRowBytes / kBanks);
  if (bank.row == row) return start;
  const int64_t refreshed = next_refresh_ps_ - options_.refresh_every_ps + options_.refresh_ps;
  const int64_t activation = std::max({burst.known_ps, bank.free_ps, refreshes_ == 0 ? 0 : refreshed}) +
                             (bank.row < 0 ? 0 : options_.precharge_ps);
  bank.row = row;
  bank.free_ps = activation + options_.row_cycle_ps;
  ++activations_;
  return std::max(start + options_.row_gap_ps, activation + options_.activate_ps);
}

// Moves the start behind a refresh that it falls into. A refresh closes all rows.
void HbmChannel::Refresh(int64_t* start_ps) {
  if (*start_ps < next_refresh_ps_) return;
  const int64_t passed = (*start_ps - next_refresh_ps_) / options_.refresh_every_ps;
  const int64_t refresh = next_refresh_ps_ + passed * options_.refresh_every_ps;
  next_refresh_ps_ = refresh + options_.refresh_every_ps;
  refreshes_ += static_cast<uint64_t>(passed) + 1;
  for (Bank& bank : banks_) bank.row = -1;
  *start_ps = std::max(*start_ps, refresh + options_.refresh_ps);
}

}  // namespace mnemo::sim
