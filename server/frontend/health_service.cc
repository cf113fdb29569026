#include "server/frontend/health_service.h"

#include <array>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>

#include "grpc/health/v1/health.grpc.pb.h"

namespace mnemo::frontend {
namespace {

namespace health = grpc::health::v1;
using Response = health::HealthCheckResponse;

constexpr std::array<std::string_view, 3> kServices = {"", "mnemo.v1.Generation", "mnemo.v1.Admin"};

bool IsKnown(std::string_view service) {
  for (const std::string_view known : kServices) {
    if (service == known) return true;
  }
  return false;
}

}  // namespace

class HealthService::Impl final : public health::Health::CallbackService {
 public:
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* call,
                                  const health::HealthCheckRequest* request, Response* response) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    if (!IsKnown(request->service())) {
      reactor->Finish({grpc::StatusCode::NOT_FOUND,
                       "service: unknown; known: \"\", mnemo.v1.Generation, "
                       "mnemo.v1.Admin"});
      return reactor;
    }
    {
      std::lock_guard lock(mutex_);
      response->set_status(Current());
    }
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<Response>* Watch(grpc::CallbackServerContext*,
                                            const health::HealthCheckRequest* request) override {
    auto* watcher = new Watcher(this, IsKnown(request->service()));
    std::lock_guard lock(mutex_);
    watchers_.insert(watcher);
    watcher->Pump();
    return watcher;
  }

  void SetServing(bool is_serving) {
    std::lock_guard lock(mutex_);
    is_serving_ = is_serving;
    PumpAll();
  }

  void Shutdown() {
    std::lock_guard lock(mutex_);
    is_serving_ = false;
    is_ending_ = true;
    PumpAll();
  }

 private:
  // All state of watchers is guarded by the service's mutex. One write at a time; a state that changes back
  // before it was written is not written.
  class Watcher final : public grpc::ServerWriteReactor<Response> {
   public:
    Watcher(Impl* owner, bool is_known) : owner_(owner), is_known_(is_known) {}

    void Pump() {
      if (is_writing_ || is_finished_) return;
      const Response::ServingStatus now = is_known_ ? owner_->Current() : Response::SERVICE_UNKNOWN;
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
    const bool is_known_;
    bool was_written_ = false;
    bool is_writing_ = false;
    bool is_finished_ = false;
    bool is_gone_ = false;
    Response response_;
  };

  Response::ServingStatus Current() const { return is_serving_ ? Response::SERVING : Response::NOT_SERVING; }
  void PumpAll() {
    for (Watcher* watcher : watchers_) watcher->Pump();
  }

  std::mutex mutex_;
  bool is_serving_ = false;
  bool is_ending_ = false;
  std::unordered_set<Watcher*> watchers_;
};

HealthService::HealthService() : impl_(std::make_unique<Impl>()) {}
HealthService::~HealthService() = default;
grpc::Service* HealthService::service() { return impl_.get(); }
void HealthService::SetServing(bool is_serving) { impl_->SetServing(is_serving); }
void HealthService::Shutdown() { impl_->Shutdown(); }

}  // namespace mnemo::frontend
