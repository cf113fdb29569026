#include "server/frontend/dispatch/grpc_link.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "mnemo/internal/worker.grpc.pb.h"

namespace mnemo::frontend {

using internal::v1::FromWorker;
using internal::v1::ToWorker;

// gRPC's threads end with the last channel, and wait for themselves when it goes on one of them. So links
// that are done stay here until another thread drops them.
struct GrpcConnector::Alive {
  std::mutex mutex;
  std::condition_variable changed;
  int links = 0;
  std::vector<std::shared_ptr<WorkerLink>> done;
};

namespace {

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const GrpcConnector::Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // our own worker, which bounds what it has pending
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // no back-off of an earlier life
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  if (!address.starts_with("unix:")) {
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, options.keepalive_time_ms);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, options.keepalive_timeout_ms);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  }
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

// Keeps itself alive until OnDone. One operation of each kind at a time; a hold keeps the call open for
// writes, which begin outside of gRPC's callbacks.
class GrpcConnector::Link final : public WorkerLink,
                                  public grpc::ClientBidiReactor<ToWorker, FromWorker>,
                                  public std::enable_shared_from_this<Link> {
 public:
  Link(std::shared_ptr<grpc::Channel> channel, LinkListener* listener, int worker, uint64_t life,
       std::shared_ptr<Alive> alive)
      : channel_(std::move(channel)),
        stub_(internal::v1::Worker::NewStub(channel_)),
        listener_(listener),
        worker_(worker),
        life_(life),
        alive_(std::move(alive)) {}

  void Begin() {
    self_ = shared_from_this();
    stub_->async()->Session(&context_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  void Queue(ToWorker message) override {
    std::lock_guard lock(mutex_);
    if (!broken_) queue_.push_back(std::move(message));
  }
  void Flush() override {
    {
      std::lock_guard lock(mutex_);
      if (broken_ || writing_ || queue_.empty()) return;
      writing_ = true;
      outgoing_ = std::move(queue_.front());
      queue_.pop_front();
    }
    StartWrite(&outgoing_);
  }
  void Close() override { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) Break();
    }
    ReleaseIfBroken();
    Flush();
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        std::lock_guard lock(mutex_);
        Break();
      }
      ReleaseIfBroken();
      return;
    }
    switch (incoming_.message_case()) {
      case FromWorker::kEvents:
        listener_->OnLinkEvents(worker_, life_, incoming_.mutable_events());
        break;
      case FromWorker::kHeartbeat:
        listener_->OnLinkHeartbeat(worker_, life_, incoming_.heartbeat());
        break;
      case FromWorker::kReady:
        listener_->OnLinkReady(worker_, life_, incoming_.ready());
        break;
      default:
        break;  // of a newer worker
    }
    StartRead(&incoming_);
  }
  void OnDone(const grpc::Status& status) override {
    listener_->OnLinkClosed(
        worker_, life_,
        absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                     status.ok() ? "the worker ended the session" : status.error_message()));
    const std::shared_ptr<Alive> alive = alive_;
    std::lock_guard lock(alive->mutex);
    alive->done.push_back(std::move(self_));
    --alive->links;
    alive->changed.notify_all();
  }

 private:
  void Break() {
    broken_ = true;
    queue_.clear();
  }
  void ReleaseIfBroken() {
    {
      std::lock_guard lock(mutex_);
      if (!broken_ || writing_ || released_) return;
      released_ = true;
    }
    RemoveHold();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<internal::v1::Worker::Stub> stub_;
  LinkListener* const listener_;
  const int worker_;
  const uint64_t life_;
  const std::shared_ptr<Alive> alive_;
  grpc::ClientContext context_;
  FromWorker incoming_;
  ToWorker outgoing_;
  std::shared_ptr<Link> self_;

  std::mutex mutex_;
  std::deque<ToWorker> queue_;
  bool writing_ = false;
  bool broken_ = false;
  bool released_ = false;
};

GrpcConnector::GrpcConnector(Options options) : options_(options), alive_(std::make_shared<Alive>()) {}

GrpcConnector::~GrpcConnector() { WaitForAll(); }

std::shared_ptr<WorkerLink> GrpcConnector::Connect(const std::string& address, LinkListener* listener,
                                                   int worker, uint64_t life) {
  const auto link = std::make_shared<Link>(MakeChannel(address, options_), listener, worker, life, alive_);
  {
    std::lock_guard lock(alive_->mutex);
    ++alive_->links;
  }
  link->Begin();
  std::vector<std::shared_ptr<WorkerLink>> done;
  {
    std::lock_guard lock(alive_->mutex);
    done.swap(alive_->done);
  }
  return link;
}

void GrpcConnector::WaitForAll() {
  std::vector<std::shared_ptr<WorkerLink>> done;
  std::unique_lock lock(alive_->mutex);
  alive_->changed.wait(lock, [&] { return alive_->links == 0; });
  done.swap(alive_->done);
  lock.unlock();
}

}  // namespace mnemo::frontend
