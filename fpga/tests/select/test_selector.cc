// The selector against layout::Ranks and layout::TopK: shapes, groups, orders of scores, ties, lists, and
// random stalls on every stream.

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "bench.h"

namespace mnemo::rtl {
namespace {

enum class Order { kRandom, kNarrow, kEqual, kRising, kFalling, kSpike, kSaturated, kLowest, kOrders };

int16_t ScoreOf(Order order, uint32_t at, uint32_t count, uint32_t spike, std::mt19937& rng) {
  switch (order) {
    case Order::kNarrow:
      return static_cast<int16_t>(static_cast<int>(rng() % 5) - 2);
    case Order::kEqual:
      return 77;
    case Order::kRising:
      return static_cast<int16_t>(static_cast<int>(at * 4 % 65536) - 32768);
    case Order::kFalling:
      return static_cast<int16_t>(32767 - static_cast<int>(at * 4 % 65536));
    case Order::kSpike:
      return at == spike ? int16_t{32767} : static_cast<int16_t>(-20000 - static_cast<int>(count % 3));
    case Order::kSaturated: {
      constexpr int16_t kEnds[] = {-32768, -32767, 32767, 32766, 28672, 28671, -4096};
      return kEnds[rng() % std::size(kEnds)];
    }
    case Order::kLowest:
      return -32768;
    default:
      return static_cast<int16_t>(rng());
  }
}

void FillScores(Job& job, Order order, std::mt19937& rng) {
  const uint32_t count = static_cast<uint32_t>(job.entries.size());
  const uint32_t spike = count == 0 ? 0 : static_cast<uint32_t>(rng()) % count;
  job.scores.clear();
  for (int query = 0; query < job.group; ++query) {
    for (uint32_t at = 0; at < count; ++at) job.scores.push_back(ScoreOf(order, at, count, spike, rng));
  }
}

Order AnyOrder(std::mt19937& rng) {
  return static_cast<Order>(rng() % static_cast<unsigned>(Order::kOrders));
}

uint32_t AnyK(uint32_t count, std::mt19937& rng) {
  switch (rng() % 4) {
    case 0:
      return 1U << rng() % 15;
    case 1:
      return std::max<uint32_t>(1, count + static_cast<uint32_t>(rng() % 3) - 1);
    case 2:
      return 1 + static_cast<uint32_t>(rng()) % 16;
    default:
      return 1 + static_cast<uint32_t>(rng()) % (count + 1);
  }
}

// A range that the banks hold, anywhere in an index.
Job AnyJob(std::mt19937& rng) {
  Job job;
  job.shape = static_cast<Shape>(rng() % 3);
  job.group = 1 + static_cast<int>(rng() % 16);
  if (rng() % 2 == 0) job.group = 1 + static_cast<int>(rng() % 4);
  job.plain = rng() % 2 == 0;
  job.shift = static_cast<int>(rng() % kChannels);
  const uint32_t page = static_cast<uint32_t>(EntriesOf(job.shape));
  const uint32_t rows = static_cast<uint32_t>(kBankWords / WordsOf(job.shape) / job.passes()) - 1;
  uint32_t pages = static_cast<uint32_t>(rng()) % (rows * kChannels) + 1;
  if (rng() % 2 == 0) pages = std::min<uint32_t>(pages, 1 + rng() % 8);
  const uint32_t first = static_cast<uint32_t>(rng()) % 100 * (rng() % 2 == 0 ? 1000U : 1U);
  job.begin = first * page + static_cast<uint32_t>(rng()) % page;
  job.end = (first + pages - 1) * page + 1 + static_cast<uint32_t>(rng()) % page;
  if (rng() % 16 == 0) job.end = job.begin;
  job.end = std::max(job.end, job.begin);
  for (uint32_t entry = job.begin; entry < job.end; ++entry) job.entries.push_back(entry);
  job.k = AnyK(static_cast<uint32_t>(job.entries.size()), rng);
  FillScores(job, AnyOrder(rng), rng);
  return job;
}

// A job that makes lists, and the listed one that uses them.
std::pair<Job, Job> AnyCascade(std::mt19937& rng) {
  Job first = AnyJob(rng);
  while (first.shape != Shape::kTokens) first = AnyJob(rng);
  first.to_list = true;
  Expect(first);
  Job second;
  second.listed = true;
  second.group = first.group;
  second.plain = first.plain;
  second.shift = first.shift;
  second.entries = first.ids;
  second.k = AnyK(static_cast<uint32_t>(second.entries.size()), rng);
  FillScores(second, AnyOrder(rng), rng);
  Expect(second);
  return {first, second};
}

std::vector<Job> AnyJobs(int count, std::mt19937& rng) {
  std::vector<Job> jobs;
  while (static_cast<int>(jobs.size()) < count) {
    const unsigned kind = rng() % 8;
    if (kind >= 2) {
      jobs.push_back(AnyJob(rng));
      Expect(jobs.back());
      continue;
    }
    auto [first, second] = AnyCascade(rng);
    if (kind == 0) {
      jobs.push_back(std::move(first));
      jobs.push_back(std::move(second));
      continue;
    }
    // The next position's lists are made before this one's are used.
    auto [third, fourth] = AnyCascade(rng);
    jobs.push_back(std::move(first));
    jobs.push_back(std::move(third));
    jobs.push_back(std::move(second));
    jobs.push_back(std::move(fourth));
  }
  return jobs;
}

Rates AnyRates(std::mt19937& rng) {
  constexpr int kChoices[] = {100, 100, 90, 50, 10, 3};
  const auto any = [&] { return kChoices[rng() % std::size(kChoices)]; };
  return {.job = any(), .score = any(), .list = any(), .head = any(), .hit = any()};
}

}  // namespace

TEST_CASE("selections equal those of proto/layout") {
  constexpr int kJobs = 16;
  const int cases = Cases(MNEMO_SELECTIONS);
  for (int done = 0; done < cases; done += kJobs) {
    const uint32_t seed = 1 + static_cast<uint32_t>(done);
    INFO("seed " << seed);
    std::mt19937 rng(seed);
    Bench bench(seed);
    bench.Run(AnyJobs(kJobs, rng), AnyRates(rng));
  }
}

TEST_CASE("the order of scores neither stalls a scan nor prolongs a selection") {
  std::mt19937 rng(5);
  Bench bench(5);
  const uint32_t tokens = static_cast<uint32_t>(kBankWords * 8 * kChannels);
  for (int order = 0; order < static_cast<int>(Order::kOrders); ++order) {
    for (const bool plain : {false, true}) {
      INFO("order " << order << " plain " << plain);
      Job job;
      job.group = 4;
      job.plain = plain;
      job.end = tokens;
      job.k = std::min(1024U, tokens / 8);
      for (uint32_t entry = 0; entry < tokens; ++entry) job.entries.push_back(entry);
      FillScores(job, static_cast<Order>(order), rng);
      Expect(job);
      bench.Run({job, job, job}, Rates());
      // A lane's scores of the second job come while the first one is selected.
      REQUIRE(bench.stalls()[1] == 0);
      // A lane reads 8 entries a cycle first, then 16 a digit and 16 for the hits; a hit takes a cycle at
      // most, and two cycles more in each 16 entries that have one.
      const uint64_t reads = tokens / kChannels / 8 + (plain ? 4 : 3) * tokens / kChannels / 16;
      const uint64_t bound = reads + 5 * 50 + job.k + 2 * std::min(job.k, tokens / kChannels / 16);
      REQUIRE(bench.select_cycles()[0] <= bound);
      if (std::getenv("MNEMO_RTL_REPORT") != nullptr) {
        WARN(tokens << " tokens, " << kChannels << " lanes, k " << job.k << ", order " << order << ", plain "
                    << plain << ": " << bench.select_cycles()[0] << " cycles");
      }
    }
  }
}

}  // namespace mnemo::rtl
