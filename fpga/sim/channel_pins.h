#pragma once

// Read ports of a Verilated module with the pins of card_top: packed arrays, channel 0 in the lowest bits.
// Pins are looked at once a clock.

#include <cstdint>
#include <cstring>
#include <span>

#include "fpga/sim/hbm_channel.h"

namespace mnemo::sim {

// The value of a pin of up to 64 bits.
template <typename Pin>
uint64_t PinValue(const Pin& pin) {
  static_assert(sizeof(Pin) <= 8);
  return pin;
}

// Before the clock's edge: `top` has settled with what DriveChannels offered.
template <typename Top>
void StepChannels(Top& top, std::span<HbmChannel> channels) {
  const uint64_t valid = PinValue(top.ar_valid);
  const uint64_t ready = PinValue(top.r_ready);
  const auto* addresses = reinterpret_cast<const uint8_t*>(&top.ar_addr);
  const auto* lengths = reinterpret_cast<const uint8_t*>(&top.ar_len);
  for (size_t i = 0; i < channels.size(); ++i) {
    const bool asks = valid >> i & 1;
    uint64_t address = 0;
    if (asks) std::memcpy(&address, addresses + 5 * i, 5);
    channels[i].Step(asks, address, asks ? lengths[i] : 0, ready >> i & 1);
  }
}

// Behind the edge: what the channels offer in the next clock.
template <typename Top>
void DriveChannels(Top& top, std::span<const HbmChannel> channels) {
  uint64_t ar_ready = 0;
  uint64_t r_valid = 0;
  uint64_t r_resp = 0;
  uint64_t r_last = 0;
  auto* data = reinterpret_cast<uint8_t*>(&top.r_data);
  for (size_t i = 0; i < channels.size(); ++i) {
    const HbmChannel& channel = channels[i];
    ar_ready |= uint64_t{channel.ar_ready()} << i;
    if (!channel.r_valid()) continue;
    r_valid |= uint64_t{1} << i;
    r_resp |= uint64_t{channel.r_resp()} << (2 * i);
    r_last |= uint64_t{channel.r_last()} << i;
    std::memcpy(data + kBeatBytes * i, channel.r_data(), kBeatBytes);
  }
  top.ar_ready = static_cast<decltype(+top.ar_ready)>(ar_ready);
  top.r_valid = static_cast<decltype(+top.r_valid)>(r_valid);
  top.r_resp = static_cast<decltype(+top.r_resp)>(r_resp);
  top.r_last = static_cast<decltype(+top.r_last)>(r_last);
}

}  // namespace mnemo::sim
