#include "fpga/sim/host_port.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mnemo::sim {
namespace {

constexpr uint8_t kNothing[kBeatBytes] = {};

}  // namespace

HostPort::HostPort(const HostPortOptions& options, Memory* memory)
    : options_(options), memory_(memory), rng_(options.seed) {}

int64_t HostPort::Later(int64_t latency_ps) {
  const int64_t jitter = options_.jitter_ps == 0 ? 0 : static_cast<int64_t>(rng_() % options_.jitter_ps);
  return now_ps_ + latency_ps + jitter;
}

void HostPort::Find(Read* read) {
  const uint8_t* beat = read->response == kDecodeError ? nullptr : memory_->BeatForRead(read->address);
  read->data = beat == nullptr ? kNothing : beat;
  if (beat == nullptr) read->response = kDecodeError;
}

void HostPort::Step(const Request& request) {
  const bool taken_r = r_valid() && request.r_ready;
  const bool taken_b = b_valid() && request.b_ready;
  const bool takes_ar = ar_ready() && request.ar_valid;
  const bool takes_aw = aw_ready() && request.aw_valid;
  const bool takes_w = w_ready() && request.w_valid;
  now_ps_ += options_.clock_ps;
  if (taken_r) {
    Read& read = reads_.front();
    if (--read.left == 0) {
      reads_.pop_front();
    } else {
      read.address += kBeatBytes;
      read.due_ps = std::max(read.due_ps, read_bus_ps_);
      read_bus_ps_ = std::max(read_bus_ps_, now_ps_) + options_.beat_ps;
      Find(&read);
    }
  }
  if (taken_b) writes_.pop_front();
  if (takes_ar) {
    Read read{.address = request.ar_addr,
              .left = uint32_t{request.ar_len} + 1,
              .due_ps = Later(options_.read_latency_ps),
              .data = nullptr,
              .response = 0,
              .number = reads_taken_++};
    if (!rules_.CheckBurst(/*write=*/false, read.address, read.left)) read.response = kDecodeError;
    if (read.number == options_.read_error_at) read.response = kSlaveError;
    if (read.number >= options_.stop_at) read.due_ps = INT64_MAX;
    if (!reads_.empty()) read.due_ps = std::max(read.due_ps, reads_.back().due_ps);
    reads_.push_back(read);
    Find(&reads_.back());
  }
  if (takes_aw) addresses_.push_back({request.aw_addr, uint32_t{request.aw_len} + 1, writes_taken_++});
  if (takes_w) {
    Data data{.bytes = {}, .strobes = request.w_strb, .last = request.w_last};
    std::memcpy(data.bytes, request.w_data, kBeatBytes);
    data_.push_back(data);
  }
  Pair();
  if (!writes_.empty() && writes_.front().due_ps <= now_ps_ && !writes_.front().beats.empty()) {
    Store(writes_.front());
    writes_.front().beats.clear();
  }
}

// Puts addresses and their data together.
void HostPort::Pair() {
  while (!addresses_.empty() && data_.size() >= addresses_.front().beats) {
    const Address address = addresses_.front();
    addresses_.pop_front();
    Write write{
        .address = address.address, .due_ps = Later(options_.write_latency_ps), .response = 0, .beats = {}};
    write_bus_ps_ = std::max(write_bus_ps_, now_ps_) + address.beats * options_.beat_ps;
    write.due_ps = std::max(write.due_ps, write_bus_ps_);
    if (!writes_.empty()) write.due_ps = std::max(write.due_ps, writes_.back().due_ps);
    if (!rules_.CheckBurst(/*write=*/true, address.address, address.beats)) write.response = kDecodeError;
    for (uint32_t beat = 0; beat < address.beats; ++beat) {
      const Data& data = data_.front();
      if (data.last != (beat + 1 == address.beats)) {
        rules_.Record("last beat", true, address.address + beat * kBeatBytes, kBeatBytes);
      }
      if (!rules_.CheckStrobes(address.address + beat * kBeatBytes, data.strobes))
        write.response = kDecodeError;
      write.beats.push_back(data);
      data_.pop_front();
    }
    if (address.number == options_.write_error_at) write.response = kSlaveError;
    if (address.number >= options_.stop_at) write.due_ps = INT64_MAX;
    writes_.push_back(std::move(write));
  }
}

void HostPort::Store(const Write& write) {
  if (write.response != 0) return;
  uint64_t address = write.address;
  for (const Data& data : write.beats) {
    uint8_t* beat = memory_->BeatForWrite(address);
    address += kBeatBytes;
    if (beat == nullptr) continue;
    if (data.strobes == UINT64_MAX) {
      std::memcpy(beat, data.bytes, kBeatBytes);
      continue;
    }
    for (size_t i = 0; i < kBeatBytes; ++i) {
      if ((data.strobes >> i & 1) != 0) beat[i] = data.bytes[i];
    }
  }
}

void HostPort::Reset() {
  reads_.clear();
  addresses_.clear();
  data_.clear();
  writes_.clear();
}

}  // namespace mnemo::sim
