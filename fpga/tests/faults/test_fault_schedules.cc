// Seeded schedules of faults over the card in RTL, with the driver's queue and two peers at work. After each:
// no result was wrong, nothing outside of what the card has was addressed, it worked again within bounded
// simulated time, and no memory of the card was lost.
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fpga/tests/faults/peer.h"
#include "fpga/tests/faults/stand.h"
#include "fpga/tests/testing/cases.h"

namespace mnemo::card_faults {
namespace {

using rtl_tests::Cases;

enum class Kind {
  kGarbage,       // of a peer's descriptors
  kRing,          // a peer's head is anything, its ring's header too
  kChannelStops,  // a channel answers no more
  kChannelError,
  kHostStops,
  kHostError,
  kWriteError,
  kWatchdog,  // no job ends in time
  kReset,     // in the middle of jobs
};
constexpr uint32_t kKinds = 9;
constexpr const char* kNames[kKinds] = {"garbage",       "ring",       "channel stops",
                                        "channel error", "host stops", "host error",
                                        "write error",   "watchdog",   "reset"};
constexpr uint32_t kWatchdog = 6'000;
constexpr uint64_t kMostCycles = 500'000;  // of a schedule

class Schedule {
 public:
  Schedule(uint64_t seed, Kind kind)
      : kind_(kind),
        random_(static_cast<uint32_t>(seed)),
        stand_(OptionsOf(seed, kind, random_)),
        load_(&stand_) {}

  void Run() {
    REQUIRE(stand_.Fill());
    const uint64_t numbers = stand_.driver().memory().free_numbers();
    const uint64_t lists = stand_.driver().memory().free_list_beats();
    AttachPeers();
    Allow();
    const uint32_t steps = 6 + Below(6);
    for (uint32_t n = 0; n < steps; ++n) Step();
    Settle();
    CheckAddresses();
    Recover();
    CHECK(stand_.driver().memory().free_numbers() == numbers);
    CHECK(stand_.driver().memory().free_list_beats() == lists);
    REQUIRE(stand_.Free());
    CHECK(stand_.used_beats() == 0);
    CHECK(stand_.driver().memory().free_numbers() == numbers + Stand::kIndexes);
    CheckAddresses();
    CHECK(cycles_ + stand_.port().simulated_cycles() < kMostCycles);
  }

  uint32_t right() const { return load_.right() + good_->right() + bad_->right(); }
  bool failed() const { return load_.failed() != 0 || resets_ != 0; }

 private:
  static StandOptions OptionsOf(uint64_t seed, Kind kind, std::mt19937& random) {
    StandOptions options{.seed = seed, .watchdog_cycles = kWatchdog};
    options.first_index = random();
    options.fault_channel = random() % 2;
    options.fault_at = random() % 60;
    switch (kind) {
      case Kind::kChannelStops:
        options.fault = sim::Fault::kChannelStops;
        break;
      case Kind::kChannelError:
        options.fault = sim::Fault::kChannelError;
        break;
      case Kind::kHostStops:
        options.fault = sim::Fault::kHostStops;
        break;
      case Kind::kHostError:
        options.fault = sim::Fault::kHostError;
        break;
      case Kind::kWriteError:
        options.fault = sim::Fault::kWriteError;
        break;
      case Kind::kWatchdog:
        options.watchdog_cycles = 100 + random() % 400;
        break;
      default:
        break;
    }
    return options;
  }

  uint32_t Below(uint32_t bound) { return random_() % bound; }

  void AttachPeers() {
    good_ = std::make_unique<Peer>(&stand_, 1 + Below(3), Below(2) != 0 ? Place::kHost : Place::kCard,
                                   Below(2) != 0, random_());
    bad_ = std::make_unique<Peer>(&stand_, 4 + Below(4), Below(2) != 0 ? Place::kHost : Place::kCard,
                                  Below(2) != 0, random_());
    for (Peer* peer : {good_.get(), bad_.get()}) REQUIRE(peer->Attach().ok());
  }

  // The driver's part of host memory, the peers' areas, and what is used of the channels.
  void Allow() {
    if (stand_.rtl() == nullptr) return;
    const uint64_t direct = stand_.driver().direct_spaces()[0].address - card::DirectQueues::kTableBytes;
    const uint64_t host = stand_.port().host_address();
    std::vector<card::CardSpace> spaces = {{host, direct - host}};
    for (Peer* peer : {good_.get(), bad_.get()}) {
      const std::vector<card::CardSpace> of = peer->Spaces();
      spaces.insert(spaces.end(), of.begin(), of.end());
    }
    stand_.rtl()->AllowHost(spaces);
    const card::CardMemory& memory = stand_.driver().memory();
    for (uint32_t n = 0; n < stand_.driver().shape().channels.size(); ++n) {
      stand_.rtl()->AllowChannel(
          n, {stand_.driver().shape().channels[n].base * layout::kCardBeatBytes,
              (memory.list_space_beats() + memory.used_beats(n)) * uint64_t{layout::kCardBeatBytes}});
    }
  }

  void CheckAddresses() {
    INFO(stand_.rtl()->first_violation());
    CHECK(stand_.rtl()->violations() == 0);
    CHECK(load_.wrong() == 0);
    CHECK(good_->wrong() == 0);
    CHECK(bad_->wrong() == 0);
  }

  // Some work for each queue, then some time.
  void Step() {
    load_.Submit(Below(3));
    Push(*good_, /*garbage=*/false);
    Push(*bad_, kind_ == Kind::kGarbage || Below(3) == 0);
    if (kind_ == Kind::kRing && Below(3) == 0) SpoilRing();
    if (kind_ == Kind::kReset && Below(3) == 0) Reset();
    stand_.Pass(Below(2) != 0 ? Below(300) : Below(4000));
    Poll();
  }

  void Push(Peer& peer, bool garbage) {
    if (!stand_.driver().attached(peer.number())) {  // the driver had to reset the card
      ++resets_;
      if (!peer.Attach().ok()) return;
    }
    if (spoiled_ && &peer == bad_.get()) return;
    for (uint32_t n = Below(3); n > 0 && peer.HasRoom(); --n) {
      if (garbage) {
        peer.PushGarbage();
      } else {
        peer.PushGood();
      }
    }
    peer.Ring();
  }

  // From now on the queue's completions mean nothing: it is stopped, or takes what nobody has written.
  void SpoilRing() {
    if (!stand_.driver().attached(bad_->number())) return;
    const uint32_t words = sizeof(layout::RingHeader) / sizeof(uint32_t);
    for (uint32_t n = Below(8); n > 0; --n) bad_->SetWord(bad_->queue().ring + 4 * Below(words), random_());
    bad_->RingHead(random_());
    spoiled_ = true;
  }

  void Poll() {
    load_.Poll();
    good_->Collect();
    if (!spoiled_) bad_->Collect();
  }

  // Until all that is under way is answered, or nothing comes any more.
  void Settle() {
    Wait();
    if (kind_ <= Kind::kRing) {
      CHECK(load_.under_way() == 0);
      CHECK(load_.failed() == 0);
      CHECK(good_->under_way() == 0);
      CHECK((*stand_.port().ReadRegister(layout::kCardRegState) & layout::kCardStateFailed) == 0);
    }
  }

  void Wait() {
    constexpr uint32_t kSilent = 12;  // polls, of 500 cycles at least
    for (uint32_t silent = 0; silent < kSilent && Busy(); ++silent) {
      const uint32_t before = Answered();
      Poll();
      if (Answered() != before) silent = 0;
      stand_.Pass(500);
      const absl::StatusOr<uint32_t> state = stand_.port().ReadRegister(layout::kCardRegState);
      REQUIRE(state.ok());
      if ((*state & layout::kCardStateFailed) != 0 && load_.under_way() == 0) return;
    }
  }

  uint32_t Answered() const {
    return load_.right() + load_.failed() + good_->right() + bad_->right() + bad_->refused();
  }

  bool Busy() const {
    return load_.under_way() != 0 || good_->under_way() != 0 || (!spoiled_ && bad_->under_way() != 0);
  }

  void Reset() {
    cycles_ += stand_.port().simulated_cycles();
    const bool stops = kind_ == Kind::kChannelStops || kind_ == Kind::kHostStops;
    const absl::Status status = stand_.driver().Reset();
    INFO(status);
    load_.Forget();
    ++resets_;
    if (stops && absl::IsDataLoss(status)) {  // it could not come to rest, so another one was made
      stand_.table().Forget();
      REQUIRE(stand_.Fill());
      Allow();
    } else {
      REQUIRE(status.ok());
      cycles_ = 0;  // the same card counts on
    }
    for (Peer* peer : {good_.get(), bad_.get()}) {
      CHECK(!stand_.driver().attached(peer->number()));
      peer->Forget();
    }
  }

  // After a reset every queue gives right results.
  void Recover() {
    Reset();
    spoiled_ = false;
    // An error can still be to come, or the watchdog be too strict for any job: then all that is asked fails.
    for (uint32_t tries = 0; tries < 3; ++tries) {
      for (Peer* peer : {good_.get(), bad_.get()}) {
        if (!stand_.driver().attached(peer->number())) REQUIRE(peer->Attach().ok());
      }
      const uint32_t right = load_.right() + good_->right() + bad_->right();
      const uint32_t asked = load_.Submit(2);
      good_->PushGood();
      bad_->PushGood();
      good_->Ring();
      bad_->Ring();
      Wait();
      if (asked == 2 && load_.right() + good_->right() + bad_->right() == right + 4) return;
      REQUIRE(kind_ >= Kind::kChannelStops);
      if (kind_ == Kind::kWatchdog) return;
      Reset();
    }
    FAIL("the card gives no results any more");
  }

  const Kind kind_;
  std::mt19937 random_;
  Stand stand_;
  DriverLoad load_;
  std::unique_ptr<Peer> good_;
  std::unique_ptr<Peer> bad_;
  bool spoiled_ = false;
  uint32_t resets_ = 0;
  uint64_t cycles_ = 0;  // of cards before this one
};

TEST_CASE("schedules of faults") {
  const uint32_t schedules = Cases(3 * kKinds);
  uint32_t failed[kKinds] = {};
  uint32_t right = 0;
  for (uint32_t n = 0; n < schedules; ++n) {
    const uint32_t kind = n % kKinds;
    CAPTURE(n, kNames[kind]);
    Schedule schedule(1000 + n, static_cast<Kind>(kind));
    schedule.Run();
    failed[kind] += schedule.failed();
    right += schedule.right();
  }
  CHECK(right > 5 * schedules);
  // The faults have struck.
  for (uint32_t kind = static_cast<uint32_t>(Kind::kChannelStops); kind < kKinds; ++kind) {
    CAPTURE(kNames[kind]);
    CHECK(failed[kind] > 0);
  }
}

}  // namespace
}  // namespace mnemo::card_faults
