// Time that mnemod adds to a worker's own time to first token, for a client in C++. overhead.py starts both
// sides:
//
//   build/release/bin/mnemo_first_token --mnemod HOST:PORT --worker unix:PATH --floor HOST:PORT [--pairs N]
//
// A prompt of token ids goes to mnemod over gRPC, to a second worker by the internal protocol, and over gRPC
// to mnemo_stream_floor, which has a third worker. They take turns in being first. Each time runs from the
// call to the first token in the caller's hands. Prints the worker's median and the medians of the
// differences.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
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

internal::v1::ToWorker Submit(uint64_t number, const Ids& ids) {
  internal::v1::ToWorker request;
  *request.mutable_submit() = testing::MakeSubmit(number, 1);
  request.mutable_submit()->mutable_prompt()->Assign(ids.begin(), ids.end());
  return request;
}

// True when a worker's message has the first token of the request.
absl::StatusOr<bool> HasToken(const internal::v1::FromWorker& message, uint64_t number) {
  for (const internal::v1::Event& event : message.events().events()) {
    if (event.id() == number && event.token_ids_size() > 0) return true;
    if (event.has_finish()) return Unavailable("the worker: {}", event.finish().status_message());
  }
  return false;
}

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
    const internal::v1::ToWorker request = Submit(++number_, ids);
    const Clock::time_point began = Clock::now();
    MNEMO_RETURN_IF_ERROR(Write(request));
    while (true) {
      MNEMO_RETURN_IF_ERROR(connection_.Read(&message_));
      MNEMO_ASSIGN_OR_RETURN(const bool came, HasToken(message_, number_));
      if (came) return MillisecondsSince(began);
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

// A worker behind mnemo_stream_floor.
class Floor {
 public:
  explicit Floor(const std::string& address)
      : channel_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())) {}

  absl::StatusOr<double> FirstToken(const Ids& ids) {
    std::string frame;
    MNEMO_RETURN_IF_ERROR(link::AppendFrame(Submit(++number_, ids), &frame));
    grpc::ClientContext call;
    const Clock::time_point began = Clock::now();
    const grpc::Slice slice(frame);
    const std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> stream(
        grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(channel_.get(), method_, &call,
                                                                      grpc::ByteBuffer(&slice, 1)));
    double took = -1;
    for (grpc::ByteBuffer response; took < 0 && stream->Read(&response);) {
      grpc::Slice bytes;
      if (!response.DumpToSingleSlice(&bytes).ok() ||
          !message_.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()))) {
        return Unavailable("the floor: no message of a worker");
      }
      MNEMO_ASSIGN_OR_RETURN(const bool came, HasToken(message_, number_));
      if (came) took = MillisecondsSince(began);
    }
    call.TryCancel();  // the server would pass on all later messages
    const grpc::Status status = stream->Finish();
    if (took < 0) return Unavailable("the floor: {}", status.error_message());
    return took;
  }

 private:
  uint64_t number_ = 0;
  const std::shared_ptr<grpc::Channel> channel_;
  const grpc::internal::RpcMethod method_{"/mnemo.bench/Stream", grpc::internal::RpcMethod::SERVER_STREAMING};
  internal::v1::FromWorker message_;
};

struct Options {
  std::string mnemod;
  std::string worker;
  std::string floor;
  int pairs = 200;
  int prompt_tokens = 16;
  uint32_t ids = 30000;  // upper bound of the prompts' ids
};

absl::Status Compare(const Options& options) {
  const std::atomic<bool> cancelled = false;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, link::Connect(options.worker, {}, cancelled));
  Worker worker(std::move(socket));
  MNEMO_RETURN_IF_ERROR(worker.Greet());
  Mnemod mnemod(options.mnemod);
  Floor floor(options.floor);
  const std::array<std::function<absl::StatusOr<double>(const Ids&)>, 3> ways = {
      [&](const Ids& ids) { return worker.FirstToken(ids); },
      [&](const Ids& ids) { return mnemod.FirstToken(ids); },
      [&](const Ids& ids) { return floor.FirstToken(ids); }};
  std::mt19937 random(1);
  std::array<std::vector<double>, 3> added;
  for (int round = -1; round < options.pairs; ++round) {
    Ids ids(static_cast<size_t>(options.prompt_tokens));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % options.ids);
    std::array<double, 3> took = {};
    for (size_t i = 0; i < ways.size(); ++i) {
      const size_t way = (i + static_cast<size_t>(round + 1)) % ways.size();
      MNEMO_ASSIGN_OR_RETURN(took[way], ways[way](ids));
    }
    if (round < 0) continue;  // warm-up: connections are made
    for (size_t way = 0; way < ways.size(); ++way) added[way].push_back(took[way] - (way == 0 ? 0 : took[0]));
  }
  std::printf(
      "time to first token, client in C++: the worker alone %.2f ms, mnemod adds %.2f ms, gRPC alone %.2f ms "
      "(medians of %d)\n",
      bench::Summarize(added[0]).p50, bench::Summarize(added[1]).p50, bench::Summarize(added[2]).p50,
      options.pairs);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("what mnemod adds to a worker's time to first token");
  Options options;
  app.add_option("--mnemod", options.mnemod, "HOST:PORT")->required();
  app.add_option("--worker", options.worker, "address of a mnemo-worker")->required();
  app.add_option("--floor", options.floor, "HOST:PORT of a mnemo_stream_floor")->required();
  app.add_option("--pairs", options.pairs)->check(CLI::Range(1, 1000000));
  app.add_option("--prompt-tokens", options.prompt_tokens)->check(CLI::Range(1, 1000000));
  app.add_option("--ids", options.ids, "token ids of prompts lie below it")->check(CLI::PositiveNumber);
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
