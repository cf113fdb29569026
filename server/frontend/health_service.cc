#include "server/frontend/health_service.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"

namespace mnemo::frontend {
namespace {

namespace health = grpc::health::v1;
using Response = health::HealthCheckResponse;

constexpr std::string_view kLive = "live";
constexpr std::array<std::string_view, 5> kServices = {"", "ready", kLive, "mnemo.v1.Generation",
                                                       "mnemo.v1.Admin"};

bool IsKnown(std::string_view service) {
  return std::find(kServices.begin(), kServices.end(), service) != kServices.end();
}

}  // namespace

class HealthService::Impl final : public health::Health::CallbackService {
 public:
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* call,
                                  const health::HealthCheckRequest* request, Response* response) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    if (!IsKnown(request->service())) {
      reactor->Finish({grpc::StatusCode::NOT_FOUND,
                       "service: unknown; known: \"\", ready, live, mnemo.v1.Generation, mnemo.v1.Admin"});
      return reactor;
    }
    {
      std::lock_guard lock(mutex_);
      response->set_status(Current(request->service()));
    }
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<Response>* Watch(grpc::CallbackServerContext*,
                                            const health::HealthCheckRequest* request) override {
    auto* watcher = new Watcher(this, request->service());
    std::lock_guard lock(mutex_);
    watchers_.insert(watcher);
    watcher->Pump();
    return watcher;
  }

  void SetReady(bool is_ready) {
    std::lock_guard lock(mutex_);
    is_ready_ = is_ready;
    PumpAll();
  }

  void SetLive(bool is_live) {
    std::lock_guard lock(mutex_);
    is_live_ = is_live;
    PumpAll();
  }

  void Shutdown() {
    std::lock_guard lock(mutex_);
    is_ending_ = true;
    PumpAll();
  }

 private:
  // All state of watchers is guarded by the service's mutex. One write at a time; a state that changes back
  // before it was written is not written.
  class Watcher final : public grpc::ServerWriteReactor<Response> {
   public:
    Watcher(Impl* owner, std::string service)
        : owner_(owner), service_(std::move(service)), is_known_(IsKnown(service_)) {}

    void Pump() {
      if (is_writing_ || is_finished_) return;
      const Response::ServingStatus now = is_known_ ? owner_->Current(service_) : Response::SERVICE_UNKNOWN;
      if (!is_gone_ && (!was_written_ || now != response_.status())) {
        was_written_ = true;
        is_writing_ = true;
        response_.set_status(now);
        StartWrite(&response_);
      } else if (is_gone_ || owner_->is_ending_) {
        is_finished_ = true;
        Finish({grpc::StatusCode::UNAVAILABLE, "the server ends"});
      }
    }
    void OnWriteDone(bool ok) override {
      std::lock_guard lock(owner_->mutex_);
      is_writing_ = false;
      is_gone_ = is_gone_ || !ok;
      Pump();
    }
    void OnCancel() override {
      std::lock_guard lock(owner_->mutex_);
      is_gone_ = true;
      Pump();
    }
    void OnDone() override {
      {
        std::lock_guard lock(owner_->mutex_);
        owner_->watchers_.erase(this);
      }
      delete this;
    }

   private:
    Impl* const owner_;
    const std::string service_;
    const bool is_known_;
    bool was_written_ = false;
    bool is_writing_ = false;
    bool is_finished_ = false;
    bool is_gone_ = false;
    Response response_;
  };

  // With mutex_ held.
  Response::ServingStatus Current(std::string_view service) const {
    const bool is_good = service == kLive ? is_live_ : is_ready_;
    return is_good && !is_ending_ ? Response::SERVING : Response::NOT_SERVING;
  }
  void PumpAll() {
    for (Watcher* watcher : watchers_) watcher->Pump();
  }

  std::mutex mutex_;
  bool is_ready_ = false;
  bool is_live_ = true;
  bool is_ending_ = false;
  std::unordered_set<Watcher*> watchers_;
};

HealthService::HealthService() : impl_(std::make_unique<Impl>()) {}
HealthService::~HealthService() = default;
grpc::Service* HealthService::service() { return impl_.get(); }
void HealthService::SetReady(bool is_ready) { impl_->SetReady(is_ready); }
void HealthService::SetLive(bool is_live) { impl_->SetLive(is_live); }
void HealthService::Shutdown() { impl_->Shutdown(); }

}  // namespace mnemo::frontend
