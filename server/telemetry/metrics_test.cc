#include "server/telemetry/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <thread>

#include "devices/base/unique_fd.h"

namespace mnemo::telemetry {
namespace {

using namespace std::chrono_literals;
using Catch::Matchers::Contains;

std::string Scrape(int port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  const std::string request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  REQUIRE(::send(fd.get(), request.data(), request.size(), 0) == static_cast<ssize_t>(request.size()));
  std::string reply;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;) {
    reply.append(buffer, static_cast<size_t>(n));
  }
  return reply;
}

// Sets one value of every metric.
void Fill(Metrics* metrics) {
  metrics->SetBuildInfo("0.1.0", "cpu-avx512_vnni-f16", "tiny");
  metrics->AddPromptTokens(12);
  metrics->AddGenerationTokens(8);
  metrics->ObserveTimeToFirstToken(15ms);
  metrics->ObserveInterTokenLatency(4ms);
  RequestTimes times;
  times.queue = 1ms;
  times.prefill = 10ms;
  times.decode = 70ms;
  times.total = 85ms;
  times.completion_tokens = 8;
  times.has_first_token = true;
  metrics->RequestSucceeded("length", times);
  metrics->RequestFailed("CANCELLED");
  metrics->RequestRejected("queue_full");
  metrics->RequestReplayed("worker0");
  metrics->SetRequests(3, 2, 1000);
  WorkerGauges worker;
  worker.worker = "worker0";
  worker.ready = true;
  worker.running = 3;
  worker.kv_pages_used = 25;
  worker.kv_pages_total = 100;
  metrics->SetWorkers({worker});
}

TEST_CASE("Every metric name exists from the first scrape on") {
  Metrics metrics;
  metrics.SetWorkers({WorkerGauges{.worker = "worker0"}});
  std::string text = metrics.Expose();
  for (const char* name :
       {"mnemo_time_to_first_token_seconds_count 0", "mnemo_inter_token_latency_seconds_count 0",
        "mnemo_request_time_per_output_token_seconds_count 0", "mnemo_e2e_request_latency_seconds_count 0",
        "mnemo_request_queue_time_seconds_count 0", "mnemo_request_prefill_time_seconds_count 0",
        "mnemo_request_decode_time_seconds_count 0", "mnemo_prompt_tokens_total 0",
        "mnemo_generation_tokens_total 0", "mnemo_prefix_cache_queries_total{worker=\"worker0\"} 0",
        "mnemo_prefix_cache_hits_total{worker=\"worker0\"} 0", "mnemo_num_requests_running 0",
        "mnemo_num_requests_waiting 0", "mnemo_kv_cache_usage_ratio{worker=\"worker0\"} 0",
        "mnemo_num_preemptions_total{worker=\"worker0\"} 0",
        "mnemo_request_success_total{finish_reason=\"eos\"} 0",
        "mnemo_requests_rejected_total{reason=\"queue_full\"} 0",
        "mnemo_worker_restarts_total{worker=\"worker0\"} 0"}) {
    CHECK_THAT(text, Contains(name));
  }
}

TEST_CASE("Recorded events are exposed") {
  Metrics metrics;
  Fill(&metrics);
  std::string text = metrics.Expose();
  for (const char* sample :
       {"mnemo_prompt_tokens_total 12\n", "mnemo_generation_tokens_total 8\n",
        "mnemo_time_to_first_token_seconds_bucket{le=\"0.01\"} 0\n",
        "mnemo_time_to_first_token_seconds_bucket{le=\"0.02\"} 1\n",
        "mnemo_request_success_total{finish_reason=\"length\"} 1\n",
        "mnemo_request_failure_total{code=\"CANCELLED\"} 1\n",
        "mnemo_requests_rejected_total{reason=\"queue_full\"} 1\n",
        "mnemo_request_replays_total{worker=\"worker0\"} 1\n", "mnemo_num_requests_running 3\n",
        "mnemo_num_requests_waiting 2\n", "mnemo_tokens_in_flight 1000\n",
        "mnemo_kv_cache_usage_ratio{worker=\"worker0\"} 0.25\n",
        // 70 ms over the seven tokens after the first
        "mnemo_request_time_per_output_token_seconds_sum 0.01", "version=\"0.1.0\""}) {
    CHECK_THAT(text, Contains(sample));
  }
  metrics.SetBuildInfo("0.1.0", "cpu-avx2-f16", "tiny");
  CHECK_THAT(metrics.Expose(), Contains("cpu-avx2-f16") && !Contains("avx512_vnni"));
}

TEST_CASE("One output token has no time per output token") {
  Metrics metrics;
  metrics.RequestSucceeded("length", {.completion_tokens = 1, .has_first_token = true});
  CHECK_THAT(metrics.Expose(), Contains("mnemo_request_time_per_output_token_seconds_count 0") &&
                                   Contains("mnemo_e2e_request_latency_seconds_count 1"));
}

TEST_CASE("Counters of a worker have the reported values, and stay when the worker goes") {
  Metrics metrics;
  auto set = [&](uint64_t preemptions, uint64_t restarts) {
    metrics.SetWorkers(
        {WorkerGauges{.worker = "worker0", .running = 1, .preemptions = preemptions, .restarts = restarts}});
  };
  set(5, 0);
  set(9, 0);
  CHECK_THAT(metrics.Expose(), Contains("num_preemptions_total{worker=\"worker0\"} 9"));
  set(12, 1);
  CHECK_THAT(metrics.Expose(), Contains("num_preemptions_total{worker=\"worker0\"} 12") &&
                                   Contains("worker_restarts_total{worker=\"worker0\"} 1"));
  metrics.SetWorkers({});
  CHECK_THAT(metrics.Expose(), Contains("num_preemptions_total{worker=\"worker0\"} 12") &&
                                   Contains("worker_requests_running{worker=\"worker0\"} 0"));
}

TEST_CASE("A scrape over HTTP runs the hook and passes promtool") {
  Metrics metrics;
  Fill(&metrics);
  int calls = 0;
  metrics.BeforeExposition([&] { metrics.SetRequests(++calls, 0, 0); });
  absl::StatusOr<int> port = metrics.Listen("127.0.0.1:0");
  REQUIRE(port.ok());
  Scrape(*port);
  std::string reply = Scrape(*port);
  REQUIRE_THAT(reply, Contains("200 OK") && Contains("mnemo_num_requests_running 2"));
  metrics.BeforeExposition(nullptr);
  Scrape(*port);
  CHECK(calls == 2);

  Metrics second;
  absl::StatusOr<int> taken = second.Listen("127.0.0.1:" + std::to_string(*port));
  CHECK(absl::IsUnavailable(taken.status()));
  CHECK_THAT(std::string(taken.status().message()), Contains(std::to_string(*port)));
#ifdef MNEMO_PROMTOOL
  std::string body = reply.substr(reply.find("\r\n\r\n") + 4);
  FILE* promtool = ::popen(MNEMO_PROMTOOL " check metrics", "w");
  REQUIRE(promtool != nullptr);
  REQUIRE(std::fwrite(body.data(), 1, body.size(), promtool) == body.size());
  CHECK(::pclose(promtool) == 0);
#endif
}

TEST_CASE("Observations from many threads are all counted") {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        metrics.AddGenerationTokens(1);
        metrics.ObserveInterTokenLatency(1ms);
        metrics.RequestRejected("invalid");
        if (i % 100 == 0) metrics.Expose();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_THAT(metrics.Expose(), Contains("mnemo_generation_tokens_total 4000\n") &&
                                   Contains("mnemo_inter_token_latency_seconds_count 4000\n") &&
                                   Contains("mnemo_requests_rejected_total{reason=\"invalid\"} 4000\n"));
}

}  // namespace
}  // namespace mnemo::telemetry
