// Cost of gRPC alone for a streamed token: a callback server that passes every frame of a worker unread to
// the one client that streams. overhead.py compares mnemod with it:
//
//   build/release/bin/mnemo_stream_floor --listen 127.0.0.1:PORT --worker unix:PATH [--interval MS]
//
// Any method of any service is served. The server greets the worker and passes on the client's one message as
// it is, with its frame. Each frame of the worker comes back as one message, until the client cancels. As in
// mnemod one thread reads the worker's socket and begins the writes.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "devices/base/unique_fd.h"
#include "mnemo/internal/worker.pb.h"
#include "server/link/frame.h"
#include "server/link/socket.h"

namespace mnemo {
namespace {

class Relay;

// The worker's socket and the stream that is served; guarded by mutex.
struct Shared {
  explicit Shared(UniqueFd the_socket) : socket(std::move(the_socket)) {}

  const UniqueFd socket;
  std::mutex mutex;
  Relay* current = nullptr;
};

class Relay final : public grpc::ServerGenericBidiReactor {
 public:
  explicit Relay(Shared* shared) : shared_(shared) { StartRead(&request_); }

  // With the mutex held.
  void Add(std::string_view frame) {
    queue_.emplace_back(frame);
    Pump();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    grpc::Slice request;
    if (!request_.DumpToSingleSlice(&request).ok()) return;
    {
      std::lock_guard lock(shared_->mutex);
      if (is_finished_) return;
      shared_->current = this;
    }
    if (::send(shared_->socket.get(), request.begin(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
      std::perror("the worker takes no request");
    }
  }
  void OnWriteDone(bool /*ok*/) override {
    std::lock_guard lock(shared_->mutex);
    is_writing_ = false;
    Pump();
  }
  void OnCancel() override {
    std::lock_guard lock(shared_->mutex);
    if (shared_->current == this) shared_->current = nullptr;
    is_finished_ = true;
    Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

 private:
  void Pump() {
    if (is_writing_ || is_finished_ || queue_.empty()) return;
    const grpc::Slice slice(queue_.front());
    queue_.pop_front();
    response_ = grpc::ByteBuffer(&slice, 1);
    is_writing_ = true;
    StartWrite(&response_);
  }

  Shared* const shared_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
  std::deque<std::string> queue_;
  bool is_writing_ = false;
  bool is_finished_ = false;
};

class Service final : public grpc::CallbackGenericService {
 public:
  explicit Service(Shared* shared) : shared_(shared) {}
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* /*call*/) override {
    return new Relay(shared_);  // deletes itself
  }

 private:
  Shared* const shared_;
};

// Runs until the worker ends.
absl::Status ReadWorker(Shared* shared) {
  link::FrameReader reader;
  while (true) {
    MNEMO_ASSIGN_OR_RETURN(const std::optional<std::string_view> frame, reader.Next());
    if (frame) {
      std::lock_guard lock(shared->mutex);
      if (shared->current != nullptr) shared->current->Add(*frame);
      continue;
    }
    const std::span<char> space = reader.Space();
    const ssize_t got = ::recv(shared->socket.get(), space.data(), space.size(), 0);
    if (got <= 0) return absl::OkStatus();
    reader.Add(static_cast<size_t>(got));
  }
}

absl::Status Greet(int socket, uint32_t interval_ms) {
  internal::v1::ToWorker hello;
  hello.mutable_hello()->set_protocol(link::kProtocolVersion);
  hello.mutable_hello()->set_heartbeat_interval_ms(1000);
  hello.mutable_hello()->set_event_interval_ms(interval_ms);
  std::string frame;
  MNEMO_RETURN_IF_ERROR(link::AppendFrame(hello, &frame));
  if (::send(socket, frame.data(), frame.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(frame.size()))
    return absl::OkStatus();
  return Unavailable("the worker takes no greeting");
}

absl::Status Serve(const std::string& listen, const std::string& worker, uint32_t interval_ms) {
  const std::atomic<bool> cancelled = false;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, link::Connect(worker, {}, cancelled));
  MNEMO_RETURN_IF_ERROR(Greet(socket.get(), interval_ms));
  Shared shared(std::move(socket));
  Service service(&shared);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return absl::UnavailableError("cannot listen on " + listen);
  absl::Status status = ReadWorker(&shared);
  server->Shutdown(std::chrono::system_clock::now());
  return status;
}

int Main(int argc, char** argv) {
  CLI::App app("what gRPC alone spends on a streamed token");
  std::string listen;
  std::string worker;
  uint32_t interval_ms = 0;
  app.add_option("--listen", listen, "HOST:PORT")->required();
  app.add_option("--worker", worker, "address of a mnemo-worker")->required();
  app.add_option("--interval", interval_ms, "milliseconds that tokens may wait for each other");
  CLI11_PARSE(app, argc, argv);
  if (const absl::Status status = Serve(listen, worker, interval_ms); !status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) { return mnemo::Main(argc, argv); }
