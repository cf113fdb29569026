#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <sstream>
#include <vector>

#include "devices/transport/attachment_decorators.h"
#include "devices/transport/attachment_fixture.h"

namespace mnemo::transport {
namespace {

using std::chrono::milliseconds;

Descriptor Simple(const MemoryAttachment& attachment, uint32_t unit, uint8_t op = layout::kOpGather) {
  Descriptor d{};
  d.op = op;
  d.k = 3;
  d.payload_offset = static_cast<uint32_t>(attachment.payload_area(Ring::kQuery).offset_bytes / 64 + unit);
  d.result_offset = static_cast<uint32_t>(attachment.result_area().offset_bytes / 64 + unit);
  d.payload_length = d.result_length = 1;
  return d;
}

// A service of the test with access to both ends.
struct Both {
  explicit Both(const std::string& path) {
    absl::StatusOr<std::unique_ptr<Listener>> made = Listener::Create(path, "memory", &host);
    MNEMO_CHECK(made.ok());
    listener = std::move(*made);
    absl::StatusOr<std::unique_ptr<MemoryAttachment>> attached = Attach(Options(path));
    MNEMO_CHECK(attached.ok());
    worker = std::move(*attached);
    service = host.Next();
  }
  TestHost host;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<MemoryAttachment> worker;
  std::unique_ptr<ServiceAttachment> service;
};

TEST_CASE("a checked attachment reports violations of either side, and is silent otherwise") {
  Both both(SocketPath());
  std::vector<std::string> said;
  const std::unique_ptr<MemoryAttachment> attachment =
      MakeCheckedAttachment(std::move(both.worker), [&](const std::string& what) { said.push_back(what); });
  const auto exchange = [&](std::vector<Descriptor> batch, const std::function<void(Completion&)>& change) {
    REQUIRE(attachment->Submit(Ring::kQuery, batch).ok());
    Descriptor taken[64];
    REQUIRE(*both.service->Take(Ring::kQuery, taken) == batch.size());
    std::vector<Completion> done;
    for (size_t i = 0; i < batch.size(); ++i) {
      Completion completion{};
      completion.index_id = taken[i].index_id;
      completion.seq = taken[i].seq;
      change(completion);
      done.push_back(completion);
    }
    REQUIRE(both.service->Complete(Ring::kQuery, done).ok());
    Completion out[64];
    REQUIRE(attachment->Poll(Ring::kQuery, out) == batch.size());
  };
  const auto nothing = [](Completion&) {};
  exchange({Simple(*attachment, 0), Simple(*attachment, 1)}, nothing);
  CHECK(said.empty());

  const auto said_of = [&](const std::string& words) {
    REQUIRE(said.size() == 1);
    const bool found = said[0].find(words) != std::string::npos;
    INFO(said[0]);
    CHECK(found);
    said.clear();
  };
  Descriptor outside = Simple(*attachment, 0);
  outside.payload_offset = 1 << 20;
  exchange({outside}, nothing);
  said_of("payload reaches outside");
  exchange({Simple(*attachment, 0)}, [](Completion& c) { c.index_id = 5; });
  said_of("index_id 5, expected 0");
  exchange({Simple(*attachment, 0)}, [](Completion& c) { c.status = 99; });
  said_of("unknown status 99");
  exchange({Simple(*attachment, 0)}, [](Completion& c) { c.seq = 1000; });
  said_of("1000, which is not under way");

  // The descriptor is still in flight, and the next one overlaps it.
  exchange({Simple(*attachment, 0)}, nothing);
  said_of("overlap");
}

TEST_CASE("a checked attachment checks ids") {
  Both both(SocketPath());
  std::vector<std::string> said;
  const std::unique_ptr<MemoryAttachment> attachment =
      MakeCheckedAttachment(std::move(both.worker), [&](const std::string& what) { said.push_back(what); });
  const auto select = [&](std::vector<uint32_t> ids) {
    Descriptor d = Simple(*attachment, 0, layout::kOpScoreSelect);
    d.select_op = layout::kSelectTopK;
    d.format = layout::kFormatCodes2;
    d.queries = d.heads = 1;
    d.begin = 10;
    d.end = 64;
    std::vector<Descriptor> batch = {d};
    REQUIRE(attachment->Submit(Ring::kQuery, batch).ok());
    Descriptor taken[1];
    REQUIRE(*both.service->Take(Ring::kQuery, taken) == 1);
    uint8_t* const block = both.service->data().data() + size_t{d.result_offset} * 64;
    const uint32_t header[4] = {static_cast<uint32_t>(ids.size()), 54, 0, 0};
    std::memcpy(block, header, sizeof header);
    std::memcpy(block + 16, ids.data(), ids.size() * 4);
    Completion completion{};
    completion.seq = taken[0].seq;
    completion.count = 3;
    REQUIRE(both.service->Complete(Ring::kQuery, std::span(&completion, 1)).ok());
    Completion out[1];
    REQUIRE(attachment->Poll(Ring::kQuery, out) == 1);
    const size_t count = said.size();
    said.clear();
    return count;
  };
  CHECK(select({10, 20, 63}) == 0);
  CHECK(select({9, 20, 63}) == 1);
  CHECK(select({10, 20, 64}) == 1);
  CHECK(select({10, 63, 20}) == 1);
  CHECK(select({10, 20}) == 1);  // the completion says 3
  CHECK(select({10, 11, 12, 13}) == 1);
}

// Effects of faults on 300 submissions of three descriptors.
std::map<std::string, int> Disturbed(const FaultPlan& plan) {
  const std::string path = SocketPath();
  EchoService service(path);
  absl::StatusOr<std::unique_ptr<MemoryAttachment>> attached = Attach(Options(path));
  MNEMO_CHECK(attached.ok());
  const std::unique_ptr<MemoryAttachment> attachment = MakeFaultyAttachment(std::move(*attached), plan);
  std::map<std::string, int> seen;
  for (int i = 0; i < 300; ++i) {
    std::vector<Descriptor> batch = {Simple(*attachment, 0), Simple(*attachment, 1), Simple(*attachment, 2)};
    const absl::Status submitted = attachment->Submit(Ring::kQuery, batch);
    // The caller's descriptors are unchanged.
    CHECK(batch[0].op + batch[1].op + batch[2].op == 3 * layout::kOpGather);
    if (!submitted.ok()) {
      ++seen["submit " + absl::StatusCodeToString(submitted.code())];
      continue;
    }
    for (int done = 0; done < 3;) {
      const absl::Status waited = attachment->Wait(Ring::kQuery, std::chrono::seconds(20));
      if (!waited.ok()) {
        ++seen["wait " + absl::StatusCodeToString(waited.code())];
        break;
      }
      Completion out[3];
      const size_t count = attachment->Poll(Ring::kQuery, out);
      for (size_t c = 0; c < count; ++c, ++done) ++seen["status " + std::to_string(out[c].status)];
    }
  }
  if (attachment->lost()) ++seen["lost"];
  return seen;
}

TEST_CASE("faults have the planned frequency, and are the same for the same seed") {
  CHECK(Disturbed({.seed = 1}) == std::map<std::string, int>{{"status 0", 900}});
  auto seen = Disturbed({.seed = 2, .full_chance = 65536 / 3});
  CHECK(seen["submit RESOURCE_EXHAUSTED"] > 50);
  CHECK(seen["submit RESOURCE_EXHAUSTED"] < 150);
  CHECK(seen["status 0"] == 3 * (300 - seen["submit RESOURCE_EXHAUSTED"]));
  CHECK(Disturbed({.seed = 2, .full_chance = 65536 / 3}) == seen);
  CHECK(Disturbed({.seed = 3, .full_chance = 65536 / 3}) != seen);
  seen = Disturbed({.seed = 4, .drop_chance = 65536 / 100});
  CHECK(seen["lost"] == 1);
  CHECK(seen["submit UNAVAILABLE"] > 0);
  seen = Disturbed({.seed = 5, .stall_chance = 65536 / 100});
  CHECK(seen["wait DEADLINE_EXCEEDED"] == 1);
  CHECK(seen["submit FAILED_PRECONDITION"] > 0);
  CHECK(seen["lost"] == 0);
  CHECK(Disturbed({.seed = 5, .calls_before = 1000000, .stall_chance = 65536}).count("status 0") == 1);
}

TEST_CASE("garbage reaches the service, a failed device the worker") {
  Both both(SocketPath());
  const std::unique_ptr<MemoryAttachment> attachment = MakeFaultyAttachment(
      std::move(both.worker), {.seed = 9, .garbage_chance = 65536, .fail_chance = 65536});
  std::vector<Descriptor> batch = {Simple(*attachment, 0), Simple(*attachment, 1), Simple(*attachment, 2)};
  REQUIRE(attachment->Submit(Ring::kQuery, batch).ok());
  Descriptor taken[3];
  REQUIRE(*both.service->Take(Ring::kQuery, taken) == 3);
  int garbage = 0;
  for (const Descriptor& d : taken) garbage += d.op == 0xEE ? 1 : 0;
  CHECK(garbage == 1);
  const std::vector<Completion> done(3);
  REQUIRE(both.service->Complete(Ring::kQuery, done).ok());
  Completion out[3];
  REQUIRE(attachment->Poll(Ring::kQuery, out) == 3);
  int failed = 0;
  for (const Completion& completion : out) failed += completion.status == layout::kStatusDeviceFailed ? 1 : 0;
  CHECK(failed == 1);
}

TEST_CASE("a recording holds all operations, and a broken one is refused") {
  const std::string path = SocketPath();
  EchoService service(path);
  absl::StatusOr<std::unique_ptr<MemoryAttachment>> attached = Attach(Options(path));
  REQUIRE(attached.ok());
  std::stringstream recording;
  const std::unique_ptr<MemoryAttachment> attachment =
      MakeRecordedAttachment(std::move(*attached), &recording);
  std::vector<Descriptor> batch = {Simple(*attachment, 0), Simple(*attachment, 1)};
  std::memset(attachment->payload_area(Ring::kQuery).bytes.data(), 7, 128);
  REQUIRE(attachment->Submit(Ring::kQuery, batch).ok());
  for (size_t done = 0; done < 2;) {
    REQUIRE(attachment->Wait(Ring::kQuery, std::chrono::seconds(20)).ok());
    Completion out[2];
    done += attachment->Poll(Ring::kQuery, out);
  }
  const std::string text = recording.str();
  const absl::StatusOr<std::vector<RecordedEvent>> events = ReadRecording(recording);
  REQUIRE(events.ok());
  REQUIRE(events->size() == 4);
  CHECK(!(*events)[0].is_completion);
  CHECK((*events)[2].is_completion);
  CHECK((*events)[1].bytes == std::vector<uint8_t>(64, 7));
  CHECK((*events)[3].bytes == std::vector<uint8_t>(64, 8));
  Descriptor first;
  std::memcpy(&first, (*events)[0].slot, sizeof first);
  CHECK(first.seq == kFirstSeq);
  CHECK(first.epoch == attachment->granted().epoch);
  for (const size_t cut : {size_t{5}, size_t{40}, size_t{100}, text.size() - 1}) {
    std::istringstream in(text.substr(0, cut));
    CHECK(ReadRecording(in).status().code() == absl::StatusCode::kDataLoss);
  }
  std::istringstream nonsense(std::string(200, 'x'));
  CHECK(ReadRecording(nonsense).status().code() == absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace mnemo::transport
