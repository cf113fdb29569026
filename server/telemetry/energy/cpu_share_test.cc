#include "server/telemetry/energy/cpu_share.h"

#include <time.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <map>
#include <optional>
#include <vector>

namespace mnemo::attribution {

TEST_CASE("the CPU time of a process grows with its work") {
  const auto before = ProcessCpuNs(::getpid());
  REQUIRE(before.has_value());
  volatile unsigned work = 0;
  for (int i = 0; i < 1'000'000; ++i) work = work + 1;
  CHECK(*ProcessCpuNs(::getpid()) > *before);
  clockid_t clock = 0;
  REQUIRE(::clock_getcpuclockid(::getppid(), &clock) == 0);
  timespec least{}, most{};
  ::clock_gettime(clock, &least);
  const auto parent = ProcessCpuNs(::getppid());
  ::clock_gettime(clock, &most);
  CHECK(*parent >= int64_t{least.tv_sec} * 1'000'000'000 + least.tv_nsec);
  CHECK(*parent <= int64_t{most.tv_sec} * 1'000'000'000 + most.tv_nsec);
  CHECK_FALSE(ProcessCpuNs(1 << 27).has_value());  // above every pid_max
  CHECK_FALSE(ProcessCpuNs(0).has_value());
}

TEST_CASE("shares follow processes that come and go") {
  std::map<pid_t, int64_t> used = {{1, 1000}};
  double busy = 5000e-9;
  CpuShare share([&](pid_t pid) { return used.contains(pid) ? std::optional(used[pid]) : std::nullopt; });
  const std::vector<pid_t> one = {1};
  const std::vector<pid_t> both = {1, 2};
  CHECK(share.Share(0, 100) == 1);
  share.Sample(0, busy, one);
  used = {{1, 1050}, {2, 700}};  // the second one is new: its past is not this interval's
  busy += 100e-9;
  share.Sample(100, busy, both);
  CHECK(share.Share(0, 100) == Approx(0.5));
  used = {{1, 1060}, {2, 710}};
  busy += 200e-9;
  share.Sample(200, busy, both);
  CHECK(share.Share(100, 200) == Approx(0.1));
  CHECK(share.Share(50, 150) == Approx(35.0 / 150));  // half of each
  used = {{2, 720}};                                  // the first one has ended
  busy += 40e-9;
  share.Sample(300, busy, both);
  CHECK(share.Share(200, 300) == Approx(0.25));
  used = {{2, 820}};
  busy += 40e-9;  // ticks lag behind the clock of the process
  share.Sample(400, busy, both);
  CHECK(share.Share(300, 400) == 1);
}

}  // namespace mnemo::attribution
