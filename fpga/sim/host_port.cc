#include "fpga/sim/host_port.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace mnemo::sim {
namespace {

constexpr uint8_t kNothing[kBeatBytes] = {};

}  // namespace

HostPort::HostPort(const HostPortOptions& options, Memory* memory)
    : options_(options), memory_(memory), rng_(options.seed) {}

// The jitter is that of PCIe.
int64_t HostPort::Later(bool near, int64_t latency_ps) {
  const int64_t jitter =
      near || options_.jitter_ps == 0 ? 0 : static_cast<int64_t>(rng_() % options_.jitter_ps);
  return now_ps_ + latency_ps + jitter;
}

void HostPort::Find(Read* read) {
  const uint8_t* beat = read->response == kDecodeError ? nullptr : memory_->BeatForRead(read->address);
  read->data = beat == nullptr ? kNothing : beat;
  if (beat == nullptr) read->response = kDecodeError;
}

// The link brings beats at its rate whether or not the card takes them.
void HostPort::UseLink(Read* read) {
  if (read->due_ps == INT64_MAX) return;
  read->due_ps = std::max(read->due_ps, read_bus_ps_);
  read_bus_ps_ = read->due_ps + options_.beat_ps;
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
    r_valid_ = false;
    ++beats_read_;
    if (--read.left == 0) {
      reads_.pop_front();
      if (!reads_.empty()) UseLink(&reads_.front());
    } else {
      read.address += kBeatBytes;
      UseLink(&read);
      Find(&read);
    }
  }
  if (taken_b) {
    writes_.pop_front();
    b_valid_ = false;
  }
  if (takes_ar) {
    const bool near = options_.near.Contains(request.ar_addr, kBeatBytes);
    Read read{.address = request.ar_addr,
              .left = uint32_t{request.ar_len} + 1,
              .due_ps = Later(near, near ? options_.near_read_latency_ps : options_.read_latency_ps),
              .data = nullptr,
              .response = 0,
              .number = reads_taken_++};
    if (!rules_.CheckBurst(/*write=*/false, read.address, read.left)) read.response = kDecodeError;
    if (read.number == options_.read_error_at) read.response = kSlaveError;
    if (read.number >= options_.stop_at) read.due_ps = INT64_MAX;
    if (!reads_.empty()) read.due_ps = std::max(read.due_ps, reads_.back().due_ps);
    reads_.push_back(read);
    if (reads_.size() == 1) UseLink(&reads_.back());
    Find(&reads_.back());
    if (observer_.on_read) observer_.on_read(read.address, read.left);
  }
  if (takes_aw) addresses_.push_back({request.aw_addr, uint32_t{request.aw_len} + 1, writes_taken_++});
  if (takes_w) {
    Data data{.bytes = {}, .strobes = request.w_strb, .last = request.w_last};
    std::memcpy(data.bytes, request.w_data, kBeatBytes);
    data_.push_back(data);
  }
  Pair();
  Show();
}

void HostPort::Show() {
  const auto takes = [&](size_t waiting) { return waiting < options_.open && Chance(); };
  ar_ready_ = takes(reads_.size());
  aw_ready_ = takes(addresses_.size());
  w_ready_ = takes(data_.size());
  if (!options_.answers) return;
  if (!r_valid_ && !reads_.empty() && reads_.front().due_ps <= now_ps_ && Chance()) {
    r_valid_ = true;
    r_resp_ = beats_read_ == options_.read_error_beat ? kSlaveError : reads_.front().response;
  }
  if (!b_valid_ && !writes_.empty() && writes_.front().due_ps <= now_ps_ && Chance()) {
    Store(writes_.front());
    b_valid_ = true;
  }
}

// Puts addresses and their data together.
void HostPort::Pair() {
  while (!addresses_.empty() && data_.size() >= addresses_.front().beats) {
    const Address address = addresses_.front();
    addresses_.pop_front();
    const bool near = options_.near.Contains(address.address, kBeatBytes);
    Write write{.address = address.address,
                .due_ps = Later(near, near ? options_.near_write_latency_ps : options_.write_latency_ps),
                .response = 0,
                .beats = {}};
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
      bytes_written_ += static_cast<uint64_t>(std::popcount(data.strobes));
      write.beats.push_back(data);
      data_.pop_front();
    }
    if (address.number == options_.write_error_at) write.response = kSlaveError;
    if (address.number >= options_.stop_at) write.due_ps = INT64_MAX;
    if (observer_.on_write) observer_.on_write(write);
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
  r_valid_ = b_valid_ = false;
  Show();
}

}  // namespace mnemo::sim
