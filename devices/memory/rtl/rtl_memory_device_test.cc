// Options of the kind rtl, and faults of the simulated card's memories: what was under way fails with a
// status, the next operation is right again or fails too, and nothing hangs. What the card computes is
// compared by tests/conformance.
#include "devices/memory/rtl/rtl_memory_device.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "fpga/card/card_driver.h"
#include "fpga/sim/rtl_port.h"
#include "proto/layout/card.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/reference.h"

namespace mnemo::memory_device::rtl {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kDim = 64;
constexpr uint32_t kPages = 5;
constexpr uint32_t kK = 20;

absl::StatusOr<std::unique_ptr<MemoryDevice>> Make(
    std::vector<std::pair<std::string, std::string>> device_options) {
  MemoryDeviceOptions options{.kind = "rtl", .name = "one", .device_options = std::move(device_options)};
  options.max_tokens = 1 << 12;
  return Kind().create(options);
}

TEST_CASE("values of options are checked, and the bounds are named") {
  const auto refused = [](const std::string& key, const std::string& value) {
    const absl::Status status = Make({{key, value}}).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  CHECK(refused("channels", "3") ==
        fmt::format("device option \"channels\": \"3\"; allowed: whole numbers from {0} to {0}",
                    MNEMO_RTL_CHANNELS));
  CHECK(refused("clock_mhz", "fast") ==
        "device option \"clock_mhz\": \"fast\"; allowed: whole numbers from 50 to 1000");
  CHECK(refused("fault", "smoke") ==
        "device option \"fault\": \"smoke\"; allowed: none, channel-stops, channel-error, host-stops, "
        "host-error");
  CHECK(refused("max_group", "65") ==
        "device option \"max_group\": \"65\"; allowed: whole numbers from 1 to 64");
  CHECK(refused("max_k", "0") == "device option \"max_k\": \"0\"; allowed: whole numbers from 1 to 16384");
  CHECK(refused("watchdog", "10") ==
        "device option \"watchdog\": \"10\"; allowed: whole numbers from 1000 to 4294967295");
  CHECK(refused("hbm_bytes", "200000").find("hbm_bytes: 200000; allowed: multiples of") == 0);
}

// A channel of 4,096 words has ranks of 131,072 tokens, of any group, and the largest scores of 32,768 pages
// for one pass of G queries, of as many less for more passes.
TEST_CASE("indexes have more tokens than a bank has scores, and with few entries than it has ranks") {
  constexpr uint32_t kRanks = 131072 * MNEMO_RTL_CHANNELS;
  constexpr uint32_t kMaximaOfPass = 16 * kRanks;
  constexpr uint32_t kPassesOf64 = 64 / MNEMO_RTL_QUERIES;
  constexpr uint32_t kMost = 1 << 24;
  const auto caps = [](const char* group, const char* k) {
    MemoryDeviceOptions options{
        .kind = "rtl", .name = "one", .device_options = {{"max_group", group}, {"max_k", k}}};
    options.max_tokens = kMost;
    options.max_group = 64;
    return Kind().create(options).value()->caps();
  };
  CHECK(caps("4", "16384").max_tokens == std::min(kMost, kRanks));
  CHECK(caps("4", "16384").cascade == 1);
  CHECK(caps("4", "2049").max_tokens == std::min(kMost, kRanks));
  CHECK(caps("4", "2048").max_tokens == std::min(kMost, kMaximaOfPass));
  CHECK(caps("64", "2048").max_tokens == std::min(kMost, kMaximaOfPass / kPassesOf64));
  CHECK(caps("4", "2048").max_k == 2048);
  CHECK(caps("4", "2048").cascade == 0);
  CHECK(caps("16", "16384").max_tokens == std::min(kMost, kRanks));
  CHECK(caps("16", "16384").cascade == 1);
  CHECK(caps("64", "16384").max_tokens == std::min(kMost, kRanks));
}

#if MNEMO_RTL_TRACE

TEST_CASE("waveforms go to the file that is named") {
  const std::string path = (std::filesystem::temp_directory_path() / "rtl_memory_device_test.fst").string();
  std::filesystem::remove(path);
  REQUIRE(Make({{"trace", path}}).ok());
  // Thousands of signals are in it.
  CHECK(std::filesystem::file_size(path) > 10'000);
  std::filesystem::remove(path);
  const absl::Status nowhere = Make({{"trace", "/no/such/folder/card.fst"}}).status();
  CHECK(absl::IsNotFound(nowhere));
  CHECK(nowhere.message() == "trace: cannot write /no/such/folder/card.fst");
}

#else

TEST_CASE("a build without waveforms says which has them") {
  const absl::Status status = Make({{"trace", "card.fst"}}).status();
  CHECK(absl::IsUnimplemented(status));
  CHECK(status.message() ==
        "trace: card.fst; this build writes no waveforms: configure one by cmake -DMNEMO_RTL_TRACE=ON");
}

#endif

// One index of one head, and one query that asks for its kK best tokens.
class Subject {
 public:
  explicit Subject(std::unique_ptr<MemoryDevice> device)
      : device_(std::move(device)),
        table_(IndexTable::Create({}, &device_->memory()).value()),
        owner_(table_->AddOwner({.quota_bytes = 8 << 20, .max_indexes = 1}).value()),
        keys_(size_t{kPages} * kPageTokens * kDim),
        payload_(layout::QueryBlockBytes(1, kDim)),
        wanted_(layout::ResultBlockBytes(layout::kSelectTopK, 0, kK, kDim)) {
    std::mt19937 random(3);
    std::normal_distribution<float> bell;
    for (float& key : keys_) key = bell(random);
    std::vector<float> query(kDim);
    for (float& value : query) value = bell(random);
    layout::MakeQueryBlock(query, 1, kDim, layout::kFormatCodes2, 0.125F, {}, payload_);
    std::vector<std::vector<uint8_t>> records;
    std::vector<const uint8_t*> pages;
    for (uint32_t page = 0; page < kPages; ++page) {
      records.emplace_back(layout::RecordBytes(layout::kFormatCodes2, kDim));
      layout::MakeRecord(
          {keys_.data() + size_t{page} * kPageTokens * kDim, kDim * sizeof(float), layout::kFormatF32}, kDim,
          layout::kFormatCodes2, records.back());
    }
    for (const auto& record : records) pages.push_back(record.data());
    layout::ScoreSelect(Query(), {layout::kFormatCodes2, kDim, pages}, payload_.data(), wanted_);
  }

  bool Fill() {
    layout::IndexSpec spec{};
    spec.max_tokens = kPages * kPageTokens;
    spec.layer_slots = spec.heads = 1;
    spec.dim = kDim;
    spec.record_format = layout::kFormatCodes2;
    Descriptor d{};
    d.op = layout::kOpCreate;
    if (table_->Create(owner_, d, spec).status != layout::kStatusOk) return false;
    d.op = layout::kOpAppend;
    d.heads = 1;
    d.format = layout::kFormatF32;
    d.end = kPages * kPageTokens;
    return table_->Append(owner_, d, reinterpret_cast<const uint8_t*>(keys_.data())).status ==
           layout::kStatusOk;
  }

  // The status of the query's completion, nullopt when there is none for a long time. kStatusOk: the results
  // are those of the reference, or the test has failed.
  std::optional<uint16_t> Ask() {
    constexpr int kPolls = 60;
    std::vector<uint8_t> result(wanted_.size());
    const Operation operation{Query(), owner_, payload_.data(), result.data()};
    if (device_->Submit({&operation, 1}) == 0) return std::nullopt;
    Completion done{};
    for (int polls = 0; polls < kPolls; ++polls) {
      if (device_->Poll({&done, 1}) == 0) continue;
      if (done.status == layout::kStatusOk) {
        CHECK(std::memcmp(result.data(), wanted_.data(), sizeof(layout::ResultHeader) + kK * 4) == 0);
      }
      return done.status;
    }
    return std::nullopt;
  }

  // The same, but the device waits for the card by itself.
  std::optional<uint16_t> AskAndQuiesce() {
    std::vector<uint8_t> result(wanted_.size());
    const Operation operation{Query(), owner_, payload_.data(), result.data()};
    if (device_->Submit({&operation, 1}) == 0 || !device_->Quiesce().ok()) return std::nullopt;
    Completion done{};
    if (device_->Poll({&done, 1}) == 0) return std::nullopt;
    CHECK(std::memcmp(result.data(), wanted_.data(), sizeof(layout::ResultHeader) + kK * 4) == 0);
    return done.status;
  }

  // Gives the card a query and asks for an interrupt, which comes. No answer: the card has failed.
  std::optional<uint16_t> AskAsleep(sim::RtlPort* port, uint32_t taken) {
    std::vector<uint8_t> result(wanted_.size());
    const Operation operation{Query(), owner_, payload_.data(), result.data()};
    Completion done{};
    REQUIRE(device_->Submit({&operation, 1}) == 1);
    // The answer to a question of before may come first.
    for (int wakes = 0; wakes < 2; ++wakes) {
      REQUIRE(port->WriteRegister(layout::kCardRegAwait, taken).ok());
      REQUIRE(port->WaitInterrupt(std::chrono::minutes(5)).value_or(false));
      if (device_->Poll({&done, 1}) != 0) return done.status;
    }
    return std::nullopt;
  }

  absl::Status Reset() {
    absl::Status reset = device_->Reset();
    if (!reset.ok()) table_->Forget();
    return reset;
  }

 private:
  static Descriptor Query() {
    Descriptor d{};
    d.op = layout::kOpScoreSelect;
    d.heads = d.group = d.queries = 1;
    d.score_op = layout::kScoreDot;
    d.group_op = layout::kGroupMax;
    d.select_op = layout::kSelectTopK;
    d.format = layout::kFormatCodes2;
    d.end = kPages * kPageTokens;
    d.k = kK;
    return d;
  }

  std::unique_ptr<MemoryDevice> device_;
  std::unique_ptr<IndexTable> table_;
  const uint32_t owner_;
  std::vector<float> keys_;
  std::vector<uint8_t> payload_;
  std::vector<uint8_t> wanted_;
};

TEST_CASE("a fault of a memory fails what is under way, and no result is wrong") {
  for (const char* fault : {"channel-error", "channel-stops", "host-error", "host-stops"}) {
    const bool stops = std::string(fault).find("stops") != std::string::npos;
    for (const char* at : {"0", "40"}) {
      CAPTURE(fault, at);
      auto made = Make({{"fault", fault}, {"fault_at", at}, {"watchdog", "20000"}});
      REQUIRE(made.ok());
      Subject subject(std::move(made).value());
      REQUIRE(subject.Fill());
      std::optional<uint16_t> status = layout::kStatusOk;
      for (int asked = 0; asked < 30 && status == layout::kStatusOk; ++asked) status = subject.Ask();
      // Host memory that stops can keep a descriptor from becoming a job: then the service's own bound tells.
      const bool silent = std::string(fault) == "host-stops" && !status.has_value();
      CHECK((silent || status == layout::kStatusDeviceFailed));
      const absl::Status reset = subject.Reset();
      if (stops) {  // the card cannot come to rest, so another one is made
        CHECK((reset.ok() || absl::IsDataLoss(reset)));
      } else {
        REQUIRE(reset.ok());
        CHECK(subject.Ask() == layout::kStatusOk);
      }
    }
  }
}

TEST_CASE("the simulated card interrupts for a completion and for a failure") {
  sim::RtlPort* port = nullptr;
  card::CardDriverOptions options;
  options.kind = "rtl";
  options.patience = std::chrono::minutes(5);  // of a busy host
  options.make_port = [&port]() -> absl::StatusOr<std::unique_ptr<card::CardPort>> {
    MNEMO_ASSIGN_OR_RETURN(auto made, sim::RtlPort::Make({.hbm_bytes = 16 << 20}));
    port = made.get();
    return made;
  };
  auto made = card::CardDriver::Create({.kind = "rtl", .name = "one", .max_tokens = 1 << 12}, options);
  REQUIRE(made.ok());
  Subject subject(std::move(made).value());
  REQUIRE(subject.Fill());
  CHECK(subject.AskAsleep(port, 0) == layout::kStatusOk);
  CHECK(subject.AskAndQuiesce() == layout::kStatusOk);
  CHECK(subject.AskAsleep(port, 2) == layout::kStatusOk);
  CHECK_FALSE(port->WaitInterrupt({}).value());
  REQUIRE(port->WriteRegister(layout::kCardRegWatchdog, 1).ok());
  CHECK(subject.AskAsleep(port, 3) == std::nullopt);  // woken, and told at one of the next polls
  CHECK(subject.Reset().ok());
  CHECK(subject.AskAsleep(port, 0) == layout::kStatusOk);
}

}  // namespace
}  // namespace mnemo::memory_device::rtl
