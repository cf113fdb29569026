// What mnemod adds to a worker's own time to first token, for a client in C++. overhead.py starts both sides:
//
//   build/release/bin/mnemo_first_token --mnemod HOST:PORT --worker unix:PATH [--pairs N] [--prompt-tokens N]
//
// A pair is one prompt of token ids, given to mnemod over gRPC and to a worker of its own by the internal
// protocol, in turns first. Both are timed from the call to the first token in the caller's hands. Prints the
// worker's median and the median of the differences.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/bench/statistics.h"
#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"
#include "mnemo/v1/generation.grpc.pb.h"
#include "server/link/connection.h"
#include "server/link/frame.h"
#include "server/link/socket.h"
#include "tests/support/submit.h"

namespace mnemo {
namespace {

using Clock = std::chrono::steady_clock;
using Ids = std::vector<int32_t>;

constexpr int32_t kIds = 30000;  // of every prompt they lie below it

double MillisecondsSince(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

class Mnemod {
 public:
  explicit Mnemod(const std::string& address)
      : stub_(v1::Generation::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

  absl::StatusOr<double> FirstToken(const Ids& ids) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    request.mutable_sampling()->set_max_tokens(1);
    request.mutable_sampling()->set_temperature(0);
    grpc::ClientContext call;
    const Clock::time_point began = Clock::now();
    const auto stream = stub_->Generate(&call, request);
    double took = -1;
    for (v1::GenerateResponse response; stream->Read(&response);) {
      if (took < 0 && response.delta().tokens_size() > 0) took = MillisecondsSince(began);
    }
    const grpc::Status status = stream->Finish();
    if (!status.ok() || took < 0) return Unavailable("mnemod: {}", status.error_message());
    return took;
  }

 private:
  const std::unique_ptr<v1::Generation::Stub> stub_;
};

class Worker {
 public:
  explicit Worker(UniqueFd socket) : connection_(std::move(socket), [] {}) {}

  absl::Status Greet() {
    internal::v1::ToWorker hello;
    hello.mutable_hello()->set_protocol(link::kProtocolVersion);
    hello.mutable_hello()->set_heartbeat_interval_ms(1000);
    MNEMO_RETURN_IF_ERROR(Write(hello));
    return connection_.Read(&message_);
  }

  absl::StatusOr<double> FirstToken(const Ids& ids) {
    internal::v1::ToWorker request;
    *request.mutable_submit() = testing::MakeSubmit(++number_, 1);
    request.mutable_submit()->mutable_prompt()->Assign(ids.begin(), ids.end());
    const Clock::time_point began = Clock::now();
    MNEMO_RETURN_IF_ERROR(Write(request));
    while (true) {
      MNEMO_RETURN_IF_ERROR(connection_.Read(&message_));
      for (const internal::v1::Event& event : message_.events().events()) {
        if (event.id() == number_ && event.token_ids_size() > 0) return MillisecondsSince(began);
        if (event.has_finish()) return Unavailable("the worker: {}", event.finish().status_message());
      }
    }
  }

 private:
  absl::Status Write(const internal::v1::ToWorker& message) {
    outgoing_.clear();
    MNEMO_RETURN_IF_ERROR(link::AppendFrame(message, &outgoing_));
    return connection_.Write(outgoing_) ? absl::OkStatus() : Unavailable("the worker takes no request");
  }

  uint64_t number_ = 0;
  std::string outgoing_;
  internal::v1::FromWorker message_;
  link::Connection connection_;
};

struct Options {
  std::string mnemod;
  std::string worker;
  int pairs = 200;
  int prompt_tokens = 16;
};

absl::Status Compare(const Options& options) {
  const std::atomic<bool> cancelled = false;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, link::Connect(options.worker, {}, cancelled));
  Worker worker(std::move(socket));
  MNEMO_RETURN_IF_ERROR(worker.Greet());
  Mnemod mnemod(options.mnemod);
  std::mt19937 random(1);
  std::vector<double> alone;
  std::vector<double> added;
  for (int pair = -1; pair < options.pairs; ++pair) {
    Ids ids(static_cast<size_t>(options.prompt_tokens));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % kIds);
    double through = 0;
    double own = 0;
    for (const bool is_mnemod : {pair % 2 == 0, pair % 2 != 0}) {
      const absl::StatusOr<double> took = is_mnemod ? mnemod.FirstToken(ids) : worker.FirstToken(ids);
      MNEMO_RETURN_IF_ERROR(took.status());
      (is_mnemod ? through : own) = *took;
    }
    if (pair < 0) continue;  // connections are made
    alone.push_back(own);
    added.push_back(through - own);
  }
  std::printf(
      "time to first token, client in C++: the worker alone %.2f ms, mnemod adds %.2f ms (medians of %d "
      "pairs)\n",
      bench::Summarize(alone).p50, bench::Summarize(added).p50, options.pairs);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("what mnemod adds to a worker's time to first token");
  Options options;
  app.add_option("--mnemod", options.mnemod, "HOST:PORT")->required();
  app.add_option("--worker", options.worker, "address of a mnemo-worker")->required();
  app.add_option("--pairs", options.pairs)->check(CLI::Range(1, 1000000));
  app.add_option("--prompt-tokens", options.prompt_tokens)->check(CLI::Range(1, 1000000));
  CLI11_PARSE(app, argc, argv);
  if (const absl::Status status = Compare(options); !status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) { return mnemo::Main(argc, argv); }
