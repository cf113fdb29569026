#include "server/telemetry/energy/cpu_share.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <vector>

namespace mnemo::attribution {

TEST_CASE("busy time is all but idle and iowait") {
  const auto busy = ParseBusyNs("cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3\n", 100);
  REQUIRE(busy.ok());
  CHECK(*busy == 1'710'000'000);
  for (const char* text :
       {"", "cpu0 1 2 3 4 5 6 7 8", "cpu  1 2 3", "cpu  1 2 x 4 5 6 7 8", "cpu  1 2 -3 4 5 6 7 8"}) {
    CHECK(ParseBusyNs(text, 100).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("the kernel tells busy time, and the CPU time of a process grows with its work") {
  BusyTime busy;
  CHECK(busy.Read().has_value());
  const auto before = ProcessCpuNs(::getpid());
  REQUIRE(before.has_value());
  volatile unsigned work = 0;
  for (int i = 0; i < 1'000'000; ++i) work = work + 1;
  CHECK(*ProcessCpuNs(::getpid()) > *before);
  CHECK_FALSE(ProcessCpuNs(1 << 27).has_value());  // above every pid_max
  CHECK_FALSE(ProcessCpuNs(0).has_value());
}

TEST_CASE("shares follow processes that come and go") {
  std::map<pid_t, int64_t> used = {{1, 1000}};
  int64_t busy = 5000;
  CpuShare share([&](pid_t pid) { return used.contains(pid) ? std::optional(used[pid]) : std::nullopt; },
                 [&] { return std::optional(busy); });
  const std::vector<pid_t> one = {1};
  const std::vector<pid_t> both = {1, 2};
  CHECK(share.Share(0, 100) == 1);
  share.Sample(0, one);
  used = {{1, 1050}, {2, 700}};  // the second one is new: its past is not this interval's
  busy += 100;
  share.Sample(100, both);
  CHECK(share.Share(0, 100) == Approx(0.5));
  used = {{1, 1060}, {2, 710}};
  busy += 200;
  share.Sample(200, both);
  CHECK(share.Share(100, 200) == Approx(0.1));
  CHECK(share.Share(50, 150) == Approx(35.0 / 150));  // half of each
  used = {{2, 720}};                                  // the first one has ended
  busy += 40;
  share.Sample(300, both);
  CHECK(share.Share(200, 300) == Approx(0.25));
  used = {{2, 820}};
  busy += 40;  // ticks lag behind the clock of the process
  share.Sample(400, both);
  CHECK(share.Share(300, 400) == 1);
}

}  // namespace mnemo::attribution
