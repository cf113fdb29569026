// Round trip of one empty query through a memory service, beside a raw ping-pong of two processes that wait
// in the same way, in turns within one run:
//
//   build/release/bin/mnemo_round_trip [--rounds N] [--bursts N]
//
// Prints the median and the 99th percentile of each in microseconds, and the ratio of the medians.
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "devices/base/unique_fd.h"
#include "devices/base/wait.h"
#include "devices/transport/memory_attachment.h"
#include "devices/transport/peer_socket.h"
#include "devices/transport/region.h"
#include "proto/layout/layout_hash.h"

namespace mnemo {
namespace {

using Clock = std::chrono::steady_clock;
using transport::Ring;

struct Options {
  std::string program;  // mnemo-memory
  int rounds = 20000;   // of a burst
  int bursts = 5;
  int pause_us = 0;  // between round trips: over 50, both sides fall asleep
};

// Pins this thread to the n-th core, from 0. With two cores, this process stays on the first and its partners
// on the second, so that both are measured alike. The scheduler would sometimes let them share one.
void StayOn(int n) {
  cpu_set_t may;
  CPU_ZERO(&may);
  if (::sched_getaffinity(0, sizeof may, &may) != 0 || CPU_COUNT(&may) < 2) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &may) || n-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    (void)::sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

// One direction of the ping-pong: a counter, and a flag that its reader sleeps.
struct alignas(64) Word {
  std::atomic<uint32_t> count;
  alignas(64) std::atomic<uint32_t> asleep;
};
struct Pair {
  Word ping;
  Word pong;
};

void Tell(Word& word, int socket) {
  word.count.fetch_add(1);
  if (word.asleep.exchange(0) != 0) (void)transport::SendWake(socket);
}

// Waits until the counter is no longer `seen`. False when the other side has gone.
bool Await(Word& word, uint32_t seen, int socket) {
  const auto look = [&] { return word.count.load() != seen; };
  if (SpinUntil(look)) return true;
  while (!look()) {
    word.asleep = 1;
    if (!transport::DrainWakes(socket)) return false;
    if (!look()) {
      pollfd fd = {socket, POLLIN | POLLRDHUP, 0};
      ::poll(&fd, 1, 1000);
    }
    word.asleep = 0;
  }
  return true;
}

class PingPong {
 public:
  PingPong() {
    absl::StatusOr<transport::Region> region = transport::Region::Create("bench", sizeof(Pair));
    MNEMO_CHECK(region.ok());
    region_ = std::move(*region);
    pair_ = new (region_.bytes().data()) Pair();
    int sockets[2];
    MNEMO_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
    socket_ = UniqueFd(sockets[0]);
    child_ = ::fork();
    if (child_ == 0) {
      StayOn(1);
      socket_.Reset();
      for (uint32_t seen = 0; Await(pair_->ping, seen, sockets[1]); ++seen) Tell(pair_->pong, sockets[1]);
      ::_exit(0);
    }
    ::close(sockets[1]);
  }
  ~PingPong() {
    socket_.Reset();
    ::waitpid(child_, nullptr, 0);
  }
  void Once() {
    const uint32_t seen = pair_->pong.count.load();
    Tell(pair_->ping, socket_.get());
    MNEMO_CHECK(Await(pair_->pong, seen, socket_.get()));
  }

 private:
  transport::Region region_;
  Pair* pair_ = nullptr;
  UniqueFd socket_;
  pid_t child_ = -1;
};

// The service, and one index without a token in it.
class Service {
 public:
  explicit Service(const std::string& program) {
    const std::string base = "/tmp/mnemo-round-trip-" + std::to_string(::getpid());
    child_ = ::fork();
    if (child_ == 0) {
      StayOn(1);
      const std::string data = "--data-socket=" + base;
      const std::string control = "--control-address=unix:" + base + ".control";
      ::execl(program.c_str(), "mnemo-memory", data.c_str(), control.c_str(), "--threads=1",
              "--memory-bytes=67108864", "--log-level=error", nullptr);
      std::perror(program.c_str());
      ::_exit(127);
    }
    transport::AttachOptions options;
    options.address = "unix:" + base;
    options.owner = "round_trip";
    options.wanted = layout::NewHello();
    options.wanted.region_bytes = 1 << 20;
    absl::StatusOr<std::unique_ptr<transport::MemoryAttachment>> link = transport::Attach(options);
    for (int i = 0; i < 1000 && !link.ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      link = transport::Attach(options);
    }
    if (!link.ok()) std::fprintf(stderr, "%s\n", std::string(link.status().message()).c_str());
    MNEMO_CHECK(link.ok());
    link_ = std::move(*link);
    CreateIndex();
  }
  ~Service() {
    link_.reset();
    ::kill(child_, SIGTERM);
    ::waitpid(child_, nullptr, 0);
  }
  void Once() { Run(Ring::kQuery, query_); }

 private:
  void CreateIndex() {
    layout::IndexSpec spec{};
    spec.max_tokens = 64;
    spec.layer_slots = spec.heads = 1;
    spec.dim = 64;
    spec.record_format = layout::kFormatCodes2;
    std::memcpy(link_->payload_area(Ring::kBulk).bytes.data(), &spec, sizeof spec);
    layout::Descriptor create{};
    create.op = layout::kOpCreate;
    create.index_generation = 1;
    create.format = spec.record_format;
    create.payload_length = 1;
    Run(Ring::kBulk, create);
    query_.op = layout::kOpScoreSelect;
    query_.index_generation = 1;
    query_.heads = query_.queries = 1;
    query_.select_op = layout::kSelectLatest;
    query_.format = layout::kFormatCodes2;
    query_.k = 1;
    query_.result_offset = static_cast<uint32_t>(link_->result_area().offset_bytes / layout::kUnitBytes);
    query_.result_length = 1;
  }
  void Run(Ring ring, layout::Descriptor descriptor) {
    MNEMO_CHECK(link_->Submit(ring, std::span(&descriptor, 1)).ok());
    MNEMO_CHECK(link_->Wait(ring, std::chrono::seconds(10)).ok());
    layout::Completion done;
    MNEMO_CHECK(link_->Poll(ring, std::span(&done, 1)) == 1 && done.status == layout::kStatusOk);
  }

  pid_t child_ = -1;
  std::unique_ptr<transport::MemoryAttachment> link_;
  layout::Descriptor query_{};
};

template <typename Subject>
void Burst(Subject& subject, const Options& options, std::vector<double>* times_us) {
  for (int i = 0; i < options.rounds; ++i) {
    const Clock::time_point begin = Clock::now();
    subject.Once();
    times_us->push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    if (options.pause_us > 0) ::usleep(static_cast<useconds_t>(options.pause_us));
  }
}

double Quantile(std::vector<double>& values, double part) {
  const auto at = values.begin() + static_cast<ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

int Main(int argc, char** argv) {
  Options options;
  options.program = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "mnemo-memory").string();
  CLI::App app("Round trip of an empty query, beside a raw ping-pong");
  app.add_option("--program", options.program, "mnemo-memory");
  app.add_option("--rounds", options.rounds, "Round trips of a burst")->check(CLI::Range(1, 10000000));
  app.add_option("--bursts", options.bursts, "Bursts of each, in turns")->check(CLI::Range(1, 1000));
  app.add_option("--pause-us", options.pause_us, "Between round trips; over 50, both sides fall asleep")
      ->check(CLI::Range(0, 1000000));
  CLI11_PARSE(app, argc, argv);
  PingPong raw;
  Service service(options.program);
  StayOn(0);
  std::vector<double> raw_us;
  std::vector<double> service_us;
  for (int burst = 0; burst < options.bursts; ++burst) {
    Burst(raw, options, &raw_us);
    Burst(service, options, &service_us);
  }
  const double raw_median = Quantile(raw_us, 0.5);
  const double service_median = Quantile(service_us, 0.5);
  std::printf("raw ping-pong   p50 %.2f us, p99 %.2f us\n", raw_median, Quantile(raw_us, 0.99));
  std::printf("memory service  p50 %.2f us, p99 %.2f us\n", service_median, Quantile(service_us, 0.99));
  std::printf("ratio of p50    %.2f\n", service_median / raw_median);
  return 0;
}

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) { return mnemo::Main(argc, argv); }
