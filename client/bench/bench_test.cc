#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "client/bench/profile.h"
#include "client/bench/report.h"
#include "client/bench/statistics.h"
#include "client/bench/workload.h"

namespace mnemo::bench {
namespace {

RequestRecord Record(double due, double first, double last, double end, int tokens) {
  RequestRecord record;
  record.due = due;
  record.sent = due + 0.001;
  record.first_token = first;
  record.last_token = last;
  record.end = end;
  record.prompt_tokens = 10;
  record.output_tokens = tokens;
  for (int i = 1; i < tokens; ++i) record.gaps.push_back(static_cast<float>((last - first) / (tokens - 1)));
  return record;
}

TEST_CASE("percentiles interpolate between ranks as numpy does") {
  const std::vector<double> one = {7};
  CHECK(Percentile(one, 0) == 7);
  CHECK(Percentile(one, 99) == 7);
  const std::vector<double> four = {1, 2, 3, 4};
  CHECK(Percentile(four, 0) == 1);
  CHECK(Percentile(four, 50) == 2.5);
  CHECK(Percentile(four, 90) == Approx(3.7));
  CHECK(Percentile(four, 100) == 4);
  std::vector<double> hundred;
  for (int i = 100; i >= 1; --i) hundred.push_back(i);
  const Summary summary = Summarize(hundred);
  CHECK(summary.count == 100);
  CHECK(summary.mean == Approx(50.5));
  CHECK(summary.p50 == Approx(50.5));
  CHECK(summary.p90 == Approx(90.1));
  CHECK(summary.p99 == Approx(99.01));
  CHECK(summary.min == 1);
  CHECK(summary.max == 100);
  CHECK(Summarize({}).count == 0);
}

TEST_CASE("TTFT, TPOT and end to end follow their formulas") {
  const RequestRecord record = Record(1.0, 1.5, 2.5, 2.75, 11);
  CHECK(*record.TimeToFirstToken() == Approx(0.5));
  CHECK(*record.TimePerOutputToken() == Approx(0.1));
  CHECK(record.EndToEnd() == Approx(1.75));
  CHECK_FALSE(Record(0, 1, 1, 1, 1).TimePerOutputToken().has_value());
  RequestRecord none = Record(0, -1, -1, 1, 0);
  CHECK_FALSE(none.TimeToFirstToken().has_value());
}

TEST_CASE("objectives parse, and a request meets all or not") {
  const absl::StatusOr<Slo> slo = Slo::Parse("ttft=500ms,tpot=0.1,e2e=2s");
  REQUIRE(slo.ok());
  CHECK(*slo->ttft == Approx(0.5));
  CHECK(*slo->tpot == Approx(0.1));
  CHECK_FALSE(slo->itl.has_value());
  CHECK(slo->Met(Record(0, 0.5, 0.9, 1, 6)));
  CHECK_FALSE(slo->Met(Record(0, 0.6, 0.9, 1, 6)));
  CHECK_FALSE(slo->Met(Record(0, 0.5, 1.5, 1.6, 6)));
  CHECK_FALSE(slo->Met(Record(0, 0.5, 0.9, 2.1, 6)));
  CHECK(slo->Met(Record(0, 0.5, 0.5, 0.6, 1)));  // one token has no TPOT to miss
  RequestRecord failed = Record(0, 0.1, 0.2, 0.3, 2);
  failed.status = absl::UnavailableError("gone");
  CHECK_FALSE(slo->Met(failed));

  RequestRecord stutter = Record(0, 0.1, 0.5, 0.6, 3);
  stutter.gaps = {0.01f, 0.39f};
  CHECK_FALSE(Slo::Parse("itl=100ms")->Met(stutter));
  CHECK(Slo::Parse("itl=400ms")->Met(stutter));
  for (const char* wrong : {"ttft", "ttft=", "ttft=0", "ttft=5x", "speed=1", "ttft=nan", "=5ms"}) {
    CHECK(absl::IsInvalidArgument(Slo::Parse(wrong).status()));
  }
  CHECK_FALSE(Slo::Parse("")->any());
}

TEST_CASE("a report counts, sums and divides by the span") {
  std::vector<RequestRecord> records = {Record(0, 0.2, 1.0, 1.0, 5), Record(1, 1.4, 3.0, 3.0, 5),
                                        Record(2, 2.1, 4.0, 4.0, 10)};
  records.push_back(Record(2.5, -1, -1, 5.0, 0));
  records.back().status = absl::ResourceExhaustedError("full");
  const Report report = MakeReport(records, *Slo::Parse("ttft=300ms"));
  CHECK(report.total == 4);
  CHECK(report.succeeded == 3);
  CHECK(report.errors.at("RESOURCE_EXHAUSTED") == 1);
  CHECK(report.span == Approx(5.0));
  CHECK(report.output_tokens == 20);
  CHECK(report.PerSecond(20) == Approx(4.0));
  CHECK(report.ttft.count == 3);
  CHECK(report.itl.count == 4 + 4 + 9);
  CHECK(*report.slo_met == 2);
  CHECK(report.lag.mean == Approx(0.001));

  RunDescription run;
  run.slo = "ttft=300ms";
  const nlohmann::json json = nlohmann::json::parse(ReportJson(run, report));
  CHECK(json["goodput"]["requests_per_second"] == Approx(0.4));
  CHECK(json["goodput"]["fraction"] == Approx(0.5));
  CHECK(json["throughput"]["output_tokens_per_second"] == Approx(4.0));
  CHECK(json["ttft_seconds"]["p50"] == Approx(0.2));
  CHECK(ReportText(run, report).find("goodput    0.40 requests/s within ttft=300ms; 2 of 4") !=
        std::string::npos);
  CHECK(nlohmann::json::parse(RecordJson(records[3]))["ttft_seconds"].is_null());
  CHECK_FALSE(nlohmann::json::parse(ReportJson(run, MakeReport({}, Slo()))).contains("goodput"));
}

TEST_CASE("Mooncake traces are read, sorted and checked") {
  const auto trace = ParseTrace(
      "{\"timestamp\": 3000, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1, "
      "18446744073709551615]}\r\n"
      "\n"
      "{\"timestamp\": 2500.5, \"input_length\": 1, \"output_length\": 0}",
      "t.jsonl");
  REQUIRE(trace.ok());
  REQUIRE(trace->size() == 2);
  CHECK((*trace)[0].input_tokens == 1);
  CHECK((*trace)[0].arrival == 0);
  CHECK((*trace)[1].arrival == Approx(0.4995));
  CHECK((*trace)[1].hash_ids == std::vector<uint64_t>{0, 1, 18446744073709551615ULL});
  const auto error = [](const char* text) { return std::string(ParseTrace(text, "t").status().message()); };
  CHECK(error("") == "t: holds no requests");
  CHECK(error("[]") == "t:1: not a JSON object");
  CHECK(error("\n{\"timestamp\": 0, \"input_length\": 0, \"output_length\": 1}")
            .find("t:2: input_length = 0 is outside [1, ") == 0);
  CHECK(error("{\"timestamp\": \"0\", \"input_length\": 1, \"output_length\": 1}") ==
        "t:1: timestamp is missing or no number");
  CHECK(error("{\"timestamp\": 0, \"input_length\": 1.5, \"output_length\": 1}") ==
        "t:1: input_length is no integer");
  CHECK(error("{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [\"a\"]}")
            .find("hash_ids") != std::string::npos);
}

TEST_CASE("prompt files hold text or objects") {
  const auto prompts = ParsePrompts("hello  world\n{\"prompt\": \"two\\nlines\", \"max_tokens\": 7}\n", "p");
  REQUIRE(prompts.ok());
  REQUIRE(prompts->size() == 2);
  CHECK((*prompts)[0].text == "hello  world");
  CHECK((*prompts)[0].max_tokens == -1);
  CHECK((*prompts)[1].text == "two\nlines");
  CHECK((*prompts)[1].max_tokens == 7);
  CHECK(ParsePrompts("{\"text\": 1}", "p").status().message() == "p:1: prompt is missing or no string");
  CHECK_FALSE(ParsePrompts("\n\n", "p").ok());
}

TEST_CASE("lengths parse") {
  CHECK(LengthRange::Parse("128")->high == 128);
  CHECK(LengthRange::Parse("4:9")->low == 4);
  CHECK(LengthRange::Parse("4:9")->high == 9);
  for (const char* wrong : {"", "x", "9:4", "-1", "4:", ":4", "4:5:6", "99999999999"})
    CHECK_FALSE(LengthRange::Parse(wrong).ok());
}

TEST_CASE("Poisson arrivals have the rate asked for, and depend on the seed alone") {
  PoissonArrivals arrivals(50, 3);
  PoissonArrivals again(50, 3);
  PoissonArrivals other(50, 4);
  double last = 0;
  double squares = 0;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const double time = arrivals.Next();
    REQUIRE(time >= last);
    squares += (time - last) * (time - last);
    last = time;
    REQUIRE(again.Next() == time);
    REQUIRE(other.Next() != time);
  }
  CHECK(last == Approx(kCount / 50.0).epsilon(0.03));
  CHECK(squares / kCount == Approx(2.0 / (50 * 50)).epsilon(0.06));  // E[gap^2] = 2 / rate^2
}

TEST_CASE("prompts depend on seed, index and hash ids alone") {
  std::vector<int32_t> vocabulary;
  for (int32_t id = 100; id < 300; ++id) vocabulary.push_back(id);
  const PromptMaker maker(vocabulary, 1);
  const PromptMaker other_seed(vocabulary, 2);
  const std::vector<int32_t> a = maker.Random(5, 64, 16);
  CHECK(a == PromptMaker(vocabulary, 1).Random(5, 64, 16));
  CHECK(a != maker.Random(6, 64, 16));
  CHECK(a != other_seed.Random(5, 64, 16));
  CHECK(std::equal(a.begin(), a.begin() + 16, maker.Random(6, 64, 16).begin()));
  CHECK(maker.Random(6, 16, 16) == maker.Random(5, 16, 16));
  CHECK(std::all_of(a.begin(), a.end(), [](int32_t id) { return id >= 100 && id < 300; }));
  CHECK(std::set<int32_t>(a.begin(), a.end()).size() > 30);

  TraceEntry entry;
  entry.input_tokens = 1200;
  entry.hash_ids = {4, 9};  // fewer than blocks: the rest is the entry's own
  const std::vector<int32_t> first = maker.FromTrace(0, entry);
  const std::vector<int32_t> second = maker.FromTrace(1, entry);
  REQUIRE(first.size() == 1200);
  CHECK(std::equal(first.begin(), first.begin() + 1024, second.begin()));
  CHECK_FALSE(std::equal(first.begin() + 1024, first.end(), second.begin() + 1024));
  entry.input_tokens = 700;
  const std::vector<int32_t> shorter = maker.FromTrace(2, entry);
  CHECK(std::equal(shorter.begin(), shorter.end(), first.begin()));
}

// Sent at `sent` seconds; the first token 1 s later, then ten in 2 s, of which `apply` took 0.5 s.
ProfileSample Sample(double sent, const std::string& device) {
  ProfileSample sample;
  sample.sent = sent;
  sample.final.mutable_usage()->set_prompt_tokens(30);
  sample.final.mutable_usage()->set_completion_tokens(11);
  sample.final.mutable_timing()->mutable_time_to_first_token()->set_seconds(1);
  sample.final.mutable_timing()->mutable_decode()->set_seconds(2);
  v1::MemoryStep* apply = sample.final.add_memory_steps();
  apply->set_step(v1::MemoryStep::STEP_APPLY);
  apply->set_device(device);
  apply->mutable_time()->set_nanos(500'000'000);
  apply->set_bytes_moved(1000);
  v1::MemoryStep* relevancy = sample.final.add_memory_steps();
  relevancy->set_step(v1::MemoryStep::STEP_RELEVANCY);
  relevancy->set_round_trips(280);
  v1::MemoryStep* prepare = sample.final.add_memory_steps();
  prepare->set_step(v1::MemoryStep::STEP_PREPARE);
  prepare->mutable_time()->set_nanos(400'000'000);
  return sample;
}

TEST_CASE("a profile's shares are of the time from a batch's first token to its last") {
  const ProfileCase of = {"cascade", "inline", 30, 2};
  const absl::StatusOr<ProfileRow> row =
      MakeProfileRow(of, std::vector{Sample(0, "cpu0"), Sample(0.5, "gpu0")});
  REQUIRE(row.ok());
  CHECK(row->wall_seconds == Approx(2.5));
  CHECK(row->decode_seconds_per_token == Approx(0.2));
  REQUIRE(row->steps.has_value());
  // A quarter of the tokens that prepare saw were decoded.
  CHECK((*row->steps)[0].share == Approx(0.2 / 2.5));
  CHECK(row->prompt_prepare_seconds == Approx(0.6));
  CHECK((*row->steps)[1].share == 0);
  CHECK((*row->steps)[3].share == Approx(1.0 / 2.5));
  CHECK((*row->steps)[3].device == "cpu0+gpu0");
  CHECK(row->memory_share == Approx(1.2 / 2.5));
  CHECK(row->bytes_per_token == Approx(100));
  CHECK(row->round_trips_per_token == Approx(28));
  CHECK_FALSE(row->overlapped);
}

TEST_CASE("a profile takes no request that did not decode") {
  const ProfileCase of = {"cascade", "inline", 30, 1};
  ProfileSample sample = Sample(0, "cpu0");
  sample.final.mutable_usage()->set_completion_tokens(1);
  CHECK(MakeProfileRow(of, std::vector{sample}).status().message().find("1 tokens") != std::string::npos);
  sample = Sample(0, "cpu0");
  sample.final.mutable_timing()->clear_decode();
  CHECK(absl::IsInternal(MakeProfileRow(of, std::vector{sample}).status()));
}

}  // namespace
}  // namespace mnemo::bench
