#include "host_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <vector>

namespace mnemo::rtl_command {

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

bool HostMemory::Inside(const std::vector<Range>& ranges, uint64_t begin, uint64_t end) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& range) { return range.begin <= begin && end <= range.end; });
}

HostMemory::Outputs HostMemory::Drive() {
  out_.ar_ready = bursts_.size() < 8 && Chance();
  out_.aw_ready = addresses_.size() < 4 && Chance();
  out_.w_ready = data_.size() < 4 && Chance();
  if (!out_.r_valid && !bursts_.empty() && bursts_.front().due <= cycle_ && answers && Chance()) {
    out_.r_valid = true;
    out_.r_last = bursts_.front().left == 1;
    out_.r_resp = fail_read == 0 ? 2 : 0;
    if (fail_read >= 0) --fail_read;
    std::memset(beat_, 0xEE, sizeof beat_);
    const uint64_t at = bursts_.front().address - kBase;
    if (at + 64 <= bytes_.size()) std::memcpy(beat_, &bytes_[at], 64);
    out_.r_data = beat_;
  }
  if (!out_.b_valid && !writes_open_.empty() && writes_open_.front().due <= cycle_ && answers && Chance()) {
    const Write& write = writes_open_.front();
    for (uint32_t byte = 0; byte < 64; ++byte) {
      const uint64_t at = write.address - kBase + byte;
      if ((write.strobes >> byte & 1) != 0 && at < bytes_.size()) {
        bytes_[at] = reinterpret_cast<const uint8_t*>(write.words)[byte];
      }
    }
    out_.b_valid = true;
    out_.b_resp = fail_write == 0 ? 2 : 0;
    if (fail_write >= 0) --fail_write;
  }
  return out_;
}

void HostMemory::Clock(const Inputs& in) {
  ++cycle_;
  if (in.ar_valid && out_.ar_ready) {
    const uint64_t bytes = (uint64_t{in.ar_len} + 1) * 64;
    if (!Inside(reads_, in.ar_addr, in.ar_addr + bytes)) ++violations_;
    bursts_.push_back({in.ar_addr, in.ar_len + 1, cycle_ + random_() % static_cast<uint64_t>(latency + 1)});
    if (on_read) on_read(in.ar_addr, in.ar_len + 1);
  }
  if (out_.r_valid && in.r_ready) {
    ++beats_read_;
    bursts_.front().address += 64;
    if (--bursts_.front().left == 0) bursts_.pop_front();
    out_.r_valid = false;
  }
  if (out_.b_valid && in.b_ready) {
    writes_open_.pop_front();
    out_.b_valid = false;
  }
  if (in.aw_valid && out_.aw_ready) addresses_.push_back(in.aw_addr);
  if (in.w_valid && out_.w_ready) {
    Write write{.address = 0, .strobes = in.w_strb, .words = {}, .due = 0};
    std::memcpy(write.words, in.w_data, sizeof write.words);
    data_.push_back(write);
  }
  if (!addresses_.empty() && !data_.empty()) {
    Write write = data_.front();
    write.address = addresses_.front();
    write.due = cycle_ + random_() % static_cast<uint64_t>(latency + 1);
    data_.pop_front();
    addresses_.pop_front();
    words_written_ += static_cast<uint64_t>(std::popcount(write.strobes)) / 4;
    const uint64_t first = static_cast<uint64_t>(std::countr_zero(write.strobes));
    const uint64_t last = static_cast<uint64_t>(std::countl_zero(write.strobes));
    if (write.strobes == 0 || !Inside(writes_, write.address + first, write.address + 64 - last))
      ++violations_;
    if (on_write) on_write(write);
    writes_open_.push_back(write);
  }
}

}  // namespace mnemo::rtl_command
