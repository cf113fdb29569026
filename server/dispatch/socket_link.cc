#include "server/dispatch/socket_link.h"

#include <google/protobuf/arena.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "devices/base/patient_threads.h"
#include "server/link/connection.h"

namespace mnemo::dispatch {

using internal::v1::FromWorker;
using internal::v1::ToWorker;

namespace {

// A worker that has not read so much is taken for dead; far above all prompts that it may have in flight.
constexpr size_t kMaxQueuedBytes = 256 << 20;
// Memory of a message as it comes in; those of an ordinary step fit, so that nothing is allocated for a
// token.
constexpr size_t kArenaBytes = 16 << 10;

}  // namespace

// Threads whose links are over, until another thread joins them.
struct SocketConnector::Alive {
  std::mutex mutex;
  std::condition_variable changed;
  int links = 0;
  std::vector<std::thread> done;
};

// Its thread keeps it alive. The thread reads and calls the listener; writes are done by whoever flushes, and
// what the worker does not take at once by the connection's own thread.
class SocketConnector::Link final : public WorkerLink, public std::enable_shared_from_this<Link> {
 public:
  Link(std::string address, const link::Keepalive& keepalive, LinkListener* listener, int worker,
       uint64_t life)
      : address_(std::move(address)),
        keepalive_(keepalive),
        listener_(listener),
        worker_(worker),
        life_(life) {}

  void Begin(std::shared_ptr<Alive> alive) {
    // The thread hands its own handle over when it ends, so it must not run before it is in place.
    std::lock_guard lock(mutex_);
    thread_ = std::thread([this, self = shared_from_this(), alive = std::move(alive)]() mutable {
      Run(std::move(self), std::move(alive));
    });
  }

  void Queue(ToWorker message) override {
    std::lock_guard lock(mutex_);
    if (broken_) return;
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
  }

  void Flush() override {
    while (true) {
      std::vector<ToWorker> messages;
      {
        std::lock_guard lock(mutex_);
        if (queued_bytes_ > kMaxQueuedBytes) {
          Fail(ResourceExhausted("the worker has not read {} bytes", queued_bytes_));
        }
        if (broken_ || connection_ == nullptr || writing_ || queue_.empty()) return;
        messages.swap(queue_);
        queued_bytes_ = 0;
        writing_ = true;
      }
      outgoing_.clear();
      absl::Status status;
      for (const ToWorker& message : messages) status.Update(link::AppendFrame(message, &outgoing_));
      const bool done = connection_->Write(outgoing_);
      if (!status.ok()) {
        std::lock_guard lock(mutex_);
        Fail(status);
      }
      if (!done) return;
      std::lock_guard lock(mutex_);
      writing_ = false;
    }
  }

  void Close() override {
    std::lock_guard lock(mutex_);
    Fail(absl::CancelledError("closed"));
  }

 private:
  void Run(std::shared_ptr<Link> self, std::shared_ptr<Alive> alive) {
    ::pthread_setname_np(::pthread_self(), ("link-" + std::to_string(worker_)).c_str());
    const absl::Status end = Converse();
    absl::Status status;
    {
      std::lock_guard lock(mutex_);
      Fail(end);
      status = failure_;
    }
    listener_->OnLinkClosed(worker_, life_, status);
    std::thread thread;
    {
      std::lock_guard lock(mutex_);
      thread = std::move(thread_);
    }
    self.reset();
    std::lock_guard lock(alive->mutex);
    alive->done.push_back(std::move(thread));
    --alive->links;
    alive->changed.notify_all();
  }

  // Connects, and reads until the connection ends, which the status tells.
  absl::Status Converse() {
    MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, link::Connect(address_, keepalive_, broken_));
    {
      std::lock_guard lock(mutex_);
      if (broken_) return failure_;
      connection_ = std::make_unique<link::Connection>(std::move(socket), [this] { OnWritten(); });
    }
    Flush();
    const auto block = std::make_unique<std::array<char, kArenaBytes>>();
    google::protobuf::ArenaOptions options;
    options.initial_block = block->data();
    options.initial_block_size = block->size();
    google::protobuf::Arena arena(options);
    while (true) {
      arena.Reset();
      auto* message = google::protobuf::Arena::CreateMessage<FromWorker>(&arena);
      MNEMO_RETURN_IF_ERROR(connection_->Read(message));
      switch (message->message_case()) {
        case FromWorker::kEvents:
          listener_->OnLinkEvents(worker_, life_, message->mutable_events());
          break;
        case FromWorker::kHeartbeat:
          listener_->OnLinkHeartbeat(worker_, life_, message->heartbeat());
          break;
        case FromWorker::kReady:
          listener_->OnLinkReady(worker_, life_, message->ready());
          break;
        case FromWorker::kEnd:
          if (message->end().status_code() == 0) return Unavailable("the worker ended the session");
          return absl::Status(static_cast<absl::StatusCode>(message->end().status_code()),
                              message->end().status_message());
        default:
          break;  // of a newer worker
      }
    }
  }

  // The rest of a write that the worker did not take at once is written, or the connection is broken.
  void OnWritten() {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
    }
    Flush();
  }

  // With mutex_ held. The first reason counts; the thread notices.
  void Fail(const absl::Status& status) {
    if (broken_) return;
    failure_ = status;
    broken_ = true;
    queue_.clear();
    queued_bytes_ = 0;
    if (connection_ != nullptr) connection_->Break();
  }

  const std::string address_;
  const link::Keepalive keepalive_;
  LinkListener* const listener_;
  const int worker_;
  const uint64_t life_;

  std::mutex mutex_;
  std::thread thread_;
  std::vector<ToWorker> queue_;
  size_t queued_bytes_ = 0;
  bool writing_ = false;  // outgoing_ belongs to whoever has set it
  std::atomic<bool> broken_ = false;
  absl::Status failure_;
  std::string outgoing_;
  // Set once, by the thread. The last member: its own thread ends before the others go.
  std::unique_ptr<link::Connection> connection_;
};

SocketConnector::SocketConnector(link::Keepalive keepalive)
    : keepalive_(keepalive), alive_(std::make_shared<Alive>()) {}

SocketConnector::~SocketConnector() { WaitForAll(); }

std::shared_ptr<WorkerLink> SocketConnector::Connect(const std::string& address, LinkListener* listener,
                                                     int worker, uint64_t life) {
  const auto link = std::make_shared<Link>(address, keepalive_, listener, worker, life);
  std::vector<std::thread> done;
  {
    std::lock_guard lock(alive_->mutex);
    ++alive_->links;
    done.swap(alive_->done);
  }
  for (std::thread& thread : done) thread.join();
  try {
    const ImpatientHere here;
    link->Begin(alive_);
  } catch (const std::system_error&) {
    std::lock_guard lock(alive_->mutex);
    --alive_->links;
    alive_->changed.notify_all();
    return nullptr;
  }
  return link;
}

void SocketConnector::WaitForAll() {
  std::vector<std::thread> done;
  {
    std::unique_lock lock(alive_->mutex);
    alive_->changed.wait(lock, [&] { return alive_->links == 0; });
    done.swap(alive_->done);
  }
  for (std::thread& thread : done) thread.join();
}

}  // namespace mnemo::dispatch
