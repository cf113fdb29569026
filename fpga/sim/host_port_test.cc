// Host memory over PCIe: answers against an array, whatever the order of handshakes, and its faults.
#include "fpga/sim/host_port.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

namespace mnemo::sim {
namespace {

constexpr uint64_t kBase = 1 << 20;
constexpr uint64_t kBytes = 1 << 16;

HostPortOptions Quick(uint32_t ready_percent, uint64_t seed) {
  HostPortOptions options;
  options.seed = seed;
  options.read_latency_ps = 20'000;
  options.write_latency_ps = 12'000;
  options.jitter_ps = 40'000;
  options.ready_percent = ready_percent;
  options.open = 4;
  return options;
}

// A master with bursts and writes that a test queues, and what it saw of them.
class Master {
 public:
  struct Beat {
    std::array<uint8_t, kBeatBytes> data;
    uint8_t response;
    bool last;
    uint64_t clock;
  };

  explicit Master(const HostPortOptions& options, uint32_t ready_percent = 100)
      : bytes(kBytes), random_(options.seed + 1), ready_percent_(ready_percent), port(options, &memory_) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    memory_.Map(kBase, bytes);
  }

  void QueueRead(uint64_t address, uint32_t count) { reads_.emplace_back(address, count); }
  void QueueWrite(uint64_t address, const std::vector<HostPort::Data>& data) {
    write_addresses_.emplace_back(address, static_cast<uint32_t>(data.size()));
    write_data_.insert(write_data_.end(), data.begin(), data.end());
  }

  void Clock() {
    // An offer stays until it is taken; a new one comes by chance.
    offers_ar_ = !reads_.empty() && (offers_ar_ || Chance());
    offers_aw_ = !write_addresses_.empty() && (offers_aw_ || Chance());
    offers_w_ = !write_data_.empty() && (offers_w_ || Chance());
    HostPort::Request request;
    request.ar_valid = offers_ar_;
    if (offers_ar_) {
      request.ar_addr = reads_.front().first;
      request.ar_len = static_cast<uint8_t>(reads_.front().second - 1);
    }
    request.aw_valid = offers_aw_;
    if (offers_aw_) {
      request.aw_addr = write_addresses_.front().first;
      request.aw_len = static_cast<uint8_t>(write_addresses_.front().second - 1);
    }
    request.w_valid = offers_w_;
    if (offers_w_) {
      request.w_data = write_data_.front().bytes;
      request.w_strb = write_data_.front().strobes;
      request.w_last = write_data_.front().last;
    }
    request.r_ready = Chance();
    request.b_ready = Chance();
    CheckHeld();
    if (port.r_valid() && request.r_ready) TakeBeat();
    if (port.b_valid() && request.b_ready) responses.push_back(port.b_resp());
    const bool took_ar = offers_ar_ && port.ar_ready();
    const bool took_aw = offers_aw_ && port.aw_ready();
    const bool took_w = offers_w_ && port.w_ready();
    withheld +=
        (offers_ar_ && !took_ar ? 1 : 0) + (offers_aw_ && !took_aw ? 1 : 0) + (offers_w_ && !took_w ? 1 : 0);
    owes_r_ = port.r_valid() && !request.r_ready;
    owes_b_ = port.b_valid() && !request.b_ready;
    port.Step(request);
    ++clock;
    if (took_ar) {
      reads_.erase(reads_.begin());
      offers_ar_ = false;
    }
    if (took_aw) {
      write_addresses_.erase(write_addresses_.begin());
      offers_aw_ = false;
    }
    if (took_w) {
      write_data_.pop_front();
      offers_w_ = false;
    }
  }
  // Until nothing is open; at most so many clocks.
  bool Finish(int clocks = 20'000) {
    while (clocks-- > 0) {
      if (reads_.empty() && write_addresses_.empty() && write_data_.empty() && port.idle()) return true;
      Clock();
    }
    return false;
  }
  void Forget() {
    reads_.clear();
    write_addresses_.clear();
    write_data_.clear();
    offers_ar_ = offers_aw_ = offers_w_ = owes_r_ = owes_b_ = false;
    port.Reset();
  }

  std::vector<uint8_t> bytes;  // of the memory
  std::vector<Beat> beats;
  std::vector<uint8_t> responses;
  uint64_t clock = 0;
  uint64_t withheld = 0;  // clocks in which the port did not take what was offered

 private:
  bool Chance() { return random_() % 100 < ready_percent_; }
  void TakeBeat() {
    Beat beat{.data = {}, .response = port.r_resp(), .last = port.r_last(), .clock = clock};
    std::memcpy(beat.data.data(), port.r_data(), kBeatBytes);
    beats.push_back(beat);
    owed_ = beat;
  }
  void CheckHeld() {
    if (owes_r_) {
      REQUIRE(port.r_valid());
      REQUIRE(std::memcmp(owed_.data.data(), port.r_data(), kBeatBytes) == 0);
      REQUIRE(owed_.last == port.r_last());
      REQUIRE(owed_.response == port.r_resp());
    }
    if (owes_b_) REQUIRE(port.b_valid());
    if (port.r_valid()) {
      owed_ = {.data = {}, .response = port.r_resp(), .last = port.r_last(), .clock = clock};
      std::memcpy(owed_.data.data(), port.r_data(), kBeatBytes);
    }
  }

  std::mt19937_64 random_;
  const uint32_t ready_percent_;
  MappedMemory memory_;
  std::deque<std::pair<uint64_t, uint32_t>> reads_;
  std::deque<std::pair<uint64_t, uint32_t>> write_addresses_;
  std::deque<HostPort::Data> write_data_;
  bool offers_ar_ = false, offers_aw_ = false, offers_w_ = false;
  bool owes_r_ = false, owes_b_ = false;
  Beat owed_{};

 public:
  HostPort port;
};

// Beats of a burst that does not cross 4 KiB.
std::pair<uint64_t, uint32_t> RandomBurst(std::mt19937_64& random) {
  const uint64_t beat = random() % (kBytes / kBeatBytes);
  const auto room = static_cast<uint32_t>(64 - beat % 64);
  return {kBase + beat * kBeatBytes, 1 + static_cast<uint32_t>(random() % room)};
}

std::vector<HostPort::Data> RandomBeats(uint32_t count, std::mt19937_64& random) {
  std::vector<HostPort::Data> beats(count);
  for (HostPort::Data& beat : beats) {
    for (uint8_t& byte : beat.bytes) byte = static_cast<uint8_t>(random());
    beat.strobes = random() % 2 == 0 ? UINT64_MAX : random() & random();
    beat.last = &beat == &beats.back();
  }
  return beats;
}

TEST_CASE("reads bring the memory's beats in order, under any back-pressure") {
  for (const uint32_t percent : {100U, 60U, 10U}) {
    for (const uint32_t master_percent : {100U, 30U}) {
      CAPTURE(percent, master_percent);
      Master master(Quick(percent, percent + master_percent), master_percent);
      std::mt19937_64 random(percent);
      std::vector<std::pair<uint64_t, uint32_t>> bursts(30);
      for (auto& burst : bursts) {
        burst = RandomBurst(random);
        master.QueueRead(burst.first, burst.second);
      }
      REQUIRE(master.Finish());
      size_t n = 0;
      for (const auto& [address, count] : bursts) {
        for (uint32_t beat = 0; beat < count; ++beat, ++n) {
          REQUIRE(n < master.beats.size());
          REQUIRE(std::memcmp(master.beats[n].data.data(), &master.bytes[address - kBase + beat * kBeatBytes],
                              kBeatBytes) == 0);
          REQUIRE(master.beats[n].response == 0);
          REQUIRE(master.beats[n].last == (beat + 1 == count));
        }
      }
      CHECK(n == master.beats.size());
      CHECK(master.port.beats_read() == n);
      CHECK(master.withheld > 0);  // four are open at a time
      CHECK(master.port.rules().violations() == 0);
    }
  }
}

TEST_CASE("writes change the strobed bytes when their response is given, in order") {
  for (const uint32_t percent : {100U, 60U, 10U}) {
    CAPTURE(percent);
    Master master(Quick(percent, percent), percent);
    std::mt19937_64 random(percent);
    std::vector<std::vector<uint8_t>> states = {master.bytes};  // after each write
    uint64_t strobed = 0;
    std::vector<uint64_t> observed;
    master.port.observer().on_write = [&](const HostPort::Write& write) {
      observed.push_back(write.address);
    };
    std::vector<uint64_t> addresses;
    for (int n = 0; n < 30; ++n) {
      auto [address, count] = RandomBurst(random);
      count = std::min(count, 4U);
      const std::vector<HostPort::Data> beats = RandomBeats(count, random);
      master.QueueWrite(address, beats);
      addresses.push_back(address);
      states.push_back(states.back());
      for (uint32_t beat = 0; beat < count; ++beat) {
        for (uint32_t byte = 0; byte < kBeatBytes; ++byte) {
          if ((beats[beat].strobes >> byte & 1) == 0) continue;
          states.back()[address - kBase + beat * kBeatBytes + byte] = beats[beat].bytes[byte];
          ++strobed;
        }
      }
    }
    for (int clocks = 0; clocks < 20'000 && master.responses.size() < 30; ++clocks) {
      master.Clock();
      const size_t given = master.responses.size() + (master.port.b_valid() ? 1 : 0);
      REQUIRE(master.bytes == states[given]);
    }
    CHECK(master.responses == std::vector<uint8_t>(30, 0));
    CHECK(master.port.idle());
    CHECK(master.port.bytes_written() == strobed);
    CHECK(observed == addresses);
  }
}

TEST_CASE("the first beat takes the latency, and the others come at the link's rate") {
  HostPortOptions options;
  options.jitter_ps = 0;
  Master master(options);
  for (uint32_t n = 0; n < 16; ++n) master.QueueRead(kBase + n * kBoundaryBytes, 64);
  REQUIRE(master.Finish());
  const auto first = static_cast<int64_t>(master.beats.front().clock);
  CHECK(first >= options.read_latency_ps / options.clock_ps);
  CHECK(first <= options.read_latency_ps / options.clock_ps + 2);
  // 1,024 beats of 5 ns in clocks of 4 ns.
  const auto took = static_cast<int64_t>(master.beats.back().clock) - first;
  const int64_t least = 1023 * options.beat_ps / options.clock_ps;
  CHECK(took >= least - 16);
  CHECK(took <= least + 64);
}

TEST_CASE("memory that is nearer answers sooner, behind what was asked for before") {
  HostPortOptions options;
  options.near = {kBase + kBoundaryBytes, kBoundaryBytes};
  const auto clocks = [&options](const std::vector<uint64_t>& pages) {
    Master master(options);
    for (const uint64_t page : pages) master.QueueRead(kBase + page * kBoundaryBytes, 1);
    REQUIRE(master.Finish());
    std::vector<int64_t> at;
    for (const Master::Beat& beat : master.beats) at.push_back(static_cast<int64_t>(beat.clock));
    return at;
  };
  CHECK(clocks({1}).front() <= options.near_read_latency_ps / options.clock_ps + 2);
  CHECK(clocks({2}).front() >= options.read_latency_ps / options.clock_ps);
  const std::vector<int64_t> behind = clocks({0, 1});
  CHECK(behind.back() > behind.front());
  // Writes: the clock of the only response.
  const auto written = [&options](uint64_t page) {
    Master master(options);
    std::mt19937_64 random(1);
    master.QueueWrite(kBase + page * kBoundaryBytes, RandomBeats(1, random));
    REQUIRE(master.Finish());
    return static_cast<int64_t>(master.clock);
  };
  CHECK(written(1) <= options.near_write_latency_ps / options.clock_ps + 4);
  CHECK(written(2) >= options.write_latency_ps / options.clock_ps);
}

TEST_CASE("the seed alone decides delays and back-pressure") {
  const auto clocks = [](uint64_t seed) {
    Master master(Quick(50, seed));
    std::mt19937_64 random(1);
    for (int n = 0; n < 10; ++n) {
      const auto [address, count] = RandomBurst(random);
      master.QueueRead(address, count);
    }
    REQUIRE(master.Finish());
    std::vector<uint64_t> at;
    for (const Master::Beat& beat : master.beats) at.push_back(beat.clock);
    return at;
  };
  CHECK(clocks(1) == clocks(1));
  CHECK(clocks(1) != clocks(2));
}

TEST_CASE("errors come at the burst, beat or write that was asked for, which is not stored") {
  HostPortOptions options = Quick(70, 3);
  options.read_error_at = 1;
  options.read_error_beat = 9;
  options.write_error_at = 2;
  Master master(options, 70);
  std::mt19937_64 random(3);
  for (uint32_t n = 0; n < 4; ++n) master.QueueRead(kBase + n * kBoundaryBytes, 4);
  std::vector<uint8_t> wanted = master.bytes;
  for (uint32_t n = 0; n < 4; ++n) {
    std::vector<HostPort::Data> beats = RandomBeats(2, random);
    const uint64_t at = (8 + n) * kBoundaryBytes;
    for (HostPort::Data& beat : beats) beat.strobes = UINT64_MAX;
    master.QueueWrite(kBase + at, beats);
    for (uint32_t beat = 0; beat < 2 && n != 2; ++beat) {
      std::memcpy(&wanted[at + beat * kBeatBytes], beats[beat].bytes, kBeatBytes);
    }
  }
  REQUIRE(master.Finish());
  for (size_t n = 0; n < master.beats.size(); ++n) {
    CHECK(master.beats[n].response == ((n >= 4 && n < 8) || n == 9 ? 2 : 0));
  }
  CHECK(master.beats.size() == 16);
  CHECK(master.responses == std::vector<uint8_t>{0, 0, 2, 0});
  CHECK(master.bytes == wanted);
}

TEST_CASE("a port that stops answers nothing more, and after a reset nothing is open") {
  for (const bool by_number : {true, false}) {
    CAPTURE(by_number);
    HostPortOptions options = Quick(100, 4);
    if (by_number) options.stop_at = 2;
    Master master(options);
    std::mt19937_64 random(4);
    const std::vector<uint8_t> before = master.bytes;
    if (!by_number) master.port.options().answers = false;
    for (uint32_t n = 0; n < 4; ++n) master.QueueRead(kBase + n * kBoundaryBytes, 1);
    for (uint32_t n = 0; n < 4; ++n) master.QueueWrite(kBase, RandomBeats(1, random));
    CHECK_FALSE(master.Finish(2000));
    CHECK(master.beats.size() == (by_number ? 2 : 0));
    CHECK(master.responses.size() == (by_number ? 2 : 0));
    if (!by_number) CHECK(master.bytes == before);
    CHECK(master.port.open_writes().size() == (by_number ? 2 : 4));
    if (!by_number) {
      master.port.options().answers = true;
      CHECK(master.Finish());
      CHECK(master.beats.size() == 4);
      continue;
    }
    const std::vector<uint8_t> stopped = master.bytes;
    master.Forget();
    CHECK(master.port.idle());
    CHECK_FALSE(master.port.r_valid());
    CHECK_FALSE(master.port.b_valid());
    for (int n = 0; n < 200; ++n) master.Clock();
    CHECK(master.bytes == stopped);
  }
}

TEST_CASE("what is not allowed or of a wrong shape is recorded, answered with an error and not stored") {
  Master master(Quick(100, 5));
  master.port.rules().AllowReads({kBase, 4096});
  master.port.rules().AllowWrites({kBase + 4096, 100});
  const std::vector<uint8_t> before = master.bytes;
  std::mt19937_64 random(5);
  master.QueueRead(kBase + 4096, 1);        // may only be written
  master.QueueRead(kBase + 2 * kBytes, 1);  // is not there either
  master.QueueRead(kBase + 4096 - 64, 1);   // good
  std::vector<HostPort::Data> data = RandomBeats(1, random);
  data[0].strobes = uint64_t{1} << 36;  // byte 100 of the range
  master.QueueWrite(kBase + 4096 + 64, data);
  data[0].strobes = uint64_t{1} << 35;
  master.QueueWrite(kBase + 4096 + 64, data);  // good
  REQUIRE(master.Finish());
  REQUIRE(master.beats.size() == 3);
  CHECK(master.beats[0].response == 3);
  CHECK(master.beats[1].response == 3);
  CHECK(master.beats[2].response == 0);
  CHECK(master.responses == std::vector<uint8_t>{3, 0});
  CHECK(master.port.rules().violations() == 3);
  std::vector<uint8_t> wanted = before;
  wanted[4096 + 99] = data[0].bytes[35];
  CHECK(master.bytes == wanted);

  Master shapes(Quick(100, 6));
  shapes.QueueRead(kBase + 4096 - 64, 2);
  data = RandomBeats(2, random);
  data[0].last = true;
  shapes.QueueWrite(kBase, data);
  REQUIRE(shapes.Finish());
  REQUIRE(shapes.port.rules().recorded().size() == 2);
  std::vector<std::string> rules;
  for (const Violation& one : shapes.port.rules().recorded()) rules.emplace_back(one.rule);
  std::sort(rules.begin(), rules.end());
  CHECK(rules == std::vector<std::string>{"crosses 4 KiB", "last beat"});
}

}  // namespace
}  // namespace mnemo::sim
