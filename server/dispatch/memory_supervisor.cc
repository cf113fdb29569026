#include "server/dispatch/memory_supervisor.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "mnemo/internal/memory.grpc.pb.h"
#include "server/dispatch/backoff.h"
#include "server/dispatch/child_set.h"

namespace mnemo::dispatch {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using State = WorkerSnapshot::State;

constexpr milliseconds kEndTime{3000};  // from SIGTERM to SIGKILL
constexpr milliseconds kIdleWait{60000};

// One question for a service's figures; its answer is the sign of life.
struct Ping {
  int service = 0;
  uint64_t life = 0;
  grpc::ClientContext context;
  internal::v1::StatsRequest request;
  internal::v1::MemoryStats reply;
  grpc::Status status;
};

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // no back-off of an earlier life
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Pings that gRPC is done with, on their way to the supervising thread.
struct Answers {
  std::mutex mutex;
  std::condition_variable none_left;
  int outstanding = 0;
  std::vector<std::shared_ptr<Ping>> done;
};

struct Slot {
  enum class Phase { kWaiting, kStarting, kReady, kEnding, kStopped };

  MemorySupervisor::Service service;
  Phase phase = Phase::kWaiting;
  uint64_t life = 0;
  bool alive = false;  // the process
  bool killed = false;
  bool had_socket = false;           // at the last answer
  Clock::time_point resume_time;     // kWaiting
  Clock::time_point start_deadline;  // kStarting
  Clock::time_point ready_time;
  Clock::time_point kill_time;  // kEnding
  Clock::time_point ping_time;  // of the one under way, or when the next one is due
  std::shared_ptr<Ping> ping;
  // Dropped here and never by gRPC, whose threads would wait for themselves: so it stays while a ping is
  // under way.
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<internal::v1::Memory::Stub> stub;
  Backoff backoff;
  MemorySnapshot shown;
};

}  // namespace

struct MemorySupervisor::Impl {
  Impl(Options given, ChildSet child_set) : options(std::move(given)), children(std::move(child_set)) {
    for (Service& service : options.services) {
      Slot& slot = slots.emplace_back();
      slot.service = std::move(service);
      slot.shown.name = slot.service.name;
      slot.shown.address = "unix:" + slot.service.data_socket;
    }
  }

  void Loop();
  void Step(int index, Clock::time_point now);
  void Begin(int index, Clock::time_point now);
  void SendPing(int index, Clock::time_point now);
  void TakeAnswers(Clock::time_point now);
  void EndLife(Slot* slot, const std::string& why, Clock::time_point now, bool gently);
  void AdjustForSleep(Clock::time_point now);
  Clock::time_point NextWake(Clock::time_point now) const;
  bool done() const {
    return std::all_of(slots.begin(), slots.end(),
                       [](const Slot& slot) { return slot.phase == Slot::Phase::kStopped; });
  }

  Options options;
  ChildSet children;
  const std::shared_ptr<Answers> answers = std::make_shared<Answers>();
  Clock::time_point next_wake = Clock::now();
  std::atomic<bool> hangs_up = false;
  std::atomic<uint64_t> turns = 0;

  mutable std::mutex mutex;  // guards what follows; the supervising thread alone changes it, but for stopping
  std::vector<Slot> slots;
  bool stopping = false;
  std::thread thread;
};

void MemorySupervisor::Impl::Loop() {
  const ChildSet::Listener listener = {
      .listening =
          [this](int index, uint64_t life) {
            std::lock_guard lock(mutex);
            Slot& slot = slots[index];
            if (slot.life != life || slot.phase != Slot::Phase::kStarting) return;
            slot.channel = MakeChannel(slot.service.control_address);
            slot.stub = internal::v1::Memory::NewStub(slot.channel);
            slot.ping_time = Clock::now();
          },
      .exited =
          [this](int index, uint64_t life, const std::string& how) {
            std::lock_guard lock(mutex);
            Slot& slot = slots[index];
            if (slot.life != life) return;
            slot.alive = false;
            slot.shown.pid = 0;
            if (slot.phase != Slot::Phase::kEnding) EndLife(&slot, how, Clock::now(), false);
          },
  };
  while (true) {
    {
      std::lock_guard lock(mutex);
      const Clock::time_point now = Clock::now();
      AdjustForSleep(now);
      TakeAnswers(now);
      for (size_t i = 0; i < slots.size(); ++i) Step(static_cast<int>(i), now);
      if (stopping && done()) return;
      next_wake = NextWake(now);
    }
    ++turns;
    children.Poll(next_wake, listener);
    if (hangs_up.exchange(false)) children.SignalAll(SIGHUP);
  }
}

void MemorySupervisor::Impl::Step(int index, Clock::time_point now) {
  Slot& slot = slots[index];
  const milliseconds hang_timeout(options.timing.hang_timeout_ms);
  switch (slot.phase) {
    case Slot::Phase::kWaiting:
      if (stopping) {
        slot.phase = Slot::Phase::kStopped;
      } else if (now >= slot.resume_time) {
        Begin(index, now);
      }
      break;
    case Slot::Phase::kStarting:
    case Slot::Phase::kReady:
      if (stopping) {
        EndLife(&slot, "stopped", now, true);
      } else if (slot.phase == Slot::Phase::kStarting && now >= slot.start_deadline) {
        EndLife(&slot, fmt::format("not ready within {} ms", options.timing.start_timeout_ms), now, false);
      } else if (slot.ping == nullptr && slot.stub != nullptr && now >= slot.ping_time) {
        SendPing(index, now);
      } else if (slot.phase == Slot::Phase::kReady && slot.ping != nullptr &&
                 now >= slot.ping_time + hang_timeout) {
        EndLife(&slot, fmt::format("no answer for {} ms", hang_timeout.count()), now, false);
      }
      break;
    case Slot::Phase::kEnding:
    case Slot::Phase::kStopped:
      break;
  }
  if (slot.phase != Slot::Phase::kEnding) return;
  if (slot.alive && !slot.killed && now >= slot.kill_time) {
    slot.killed = true;
    children.Signal(index, slot.life, SIGKILL);
  }
  if (slot.alive || slot.ping != nullptr) return;
  slot.stub.reset();
  slot.channel.reset();
  slot.phase = stopping ? Slot::Phase::kStopped : Slot::Phase::kWaiting;
}

void MemorySupervisor::Impl::Begin(int index, Clock::time_point now) {
  Slot& slot = slots[index];
  if (++slot.life > 1) ++slot.shown.restarts;
  slot.phase = Slot::Phase::kStarting;
  slot.shown.state = State::kStarting;
  slot.killed = slot.had_socket = false;
  slot.start_deadline = now + milliseconds(options.timing.start_timeout_ms);
  const absl::Status prepared = options.before_spawn ? options.before_spawn() : absl::OkStatus();
  const int config_fd = options.config != nullptr ? options.config->get() : -1;
  const absl::StatusOr<int> pid =
      prepared.ok() ? children.Spawn(index, slot.life, options.program, slot.service.arguments, -1, config_fd)
                    : absl::StatusOr<int>(prepared);
  if (!pid.ok()) {
    EndLife(&slot, std::string(pid.status().message()), now, false);
    return;
  }
  slot.alive = true;
  slot.shown.pid = *pid;
}

void MemorySupervisor::Impl::SendPing(int index, Clock::time_point now) {
  Slot& slot = slots[index];
  slot.ping = std::make_shared<Ping>();
  slot.ping->service = index;
  slot.ping->life = slot.life;
  slot.ping_time = now;
  {
    std::lock_guard lock(answers->mutex);
    ++answers->outstanding;
  }
  slot.stub->async()->Stats(&slot.ping->context, &slot.ping->request, &slot.ping->reply,
                            [this, ping = slot.ping, shared = answers](grpc::Status status) {
                              ping->status = std::move(status);
                              // Under the lock: whoever waits for the last answer destroys this object next.
                              std::lock_guard lock(shared->mutex);
                              shared->done.push_back(ping);
                              children.Wake();
                              if (--shared->outstanding == 0) shared->none_left.notify_all();
                            });
}

void MemorySupervisor::Impl::TakeAnswers(Clock::time_point now) {
  std::vector<std::shared_ptr<Ping>> done;
  {
    std::lock_guard lock(answers->mutex);
    done.swap(answers->done);
  }
  for (const std::shared_ptr<Ping>& ping : done) {
    Slot& slot = slots[ping->service];
    if (slot.ping == ping) slot.ping = nullptr;
    if (slot.life != ping->life) continue;
    if (slot.phase != Slot::Phase::kStarting && slot.phase != Slot::Phase::kReady) continue;
    slot.ping_time = now + milliseconds(options.timing.health_interval_ms);
    // A refusal too is a sign of life, but no service to work with; a process that is gone tells by its end.
    if (!ping->status.ok()) continue;
    if (slot.phase == Slot::Phase::kStarting) {
      slot.phase = Slot::Phase::kReady;
      slot.ready_time = now;
      slot.shown.detail.clear();
      spdlog::info("{}: ready, process {}", slot.service.name, slot.shown.pid);
    }
    // Workers that are attached go on without it, but none could attach any more.
    const bool has_socket = ::access(slot.service.data_socket.c_str(), F_OK) == 0;
    if (std::exchange(slot.had_socket, has_socket) && !has_socket) {
      spdlog::warn("{}: its socket was removed; it is started again", slot.service.name);
      EndLife(&slot, "its socket was removed", now, true);
      continue;
    }
    slot.shown.state = ping->reply.draining() ? State::kDraining : State::kReady;
    slot.shown.stats = std::move(ping->reply);
  }
}

void MemorySupervisor::Impl::EndLife(Slot* slot, const std::string& why, Clock::time_point now, bool gently) {
  const bool was_ready = slot->phase == Slot::Phase::kReady;
  slot->phase = Slot::Phase::kEnding;
  slot->shown.state = State::kDown;
  slot->shown.detail = why;
  slot->shown.stats.Clear();
  if (slot->ping != nullptr) slot->ping->context.TryCancel();
  slot->kill_time = gently ? now + kEndTime : now;
  if (gently) {
    children.Signal(static_cast<int>(slot - slots.data()), slot->life, SIGTERM);
    return;
  }
  const auto pause = slot->backoff.Next(was_ready ? now - slot->ready_time : Clock::duration(0),
                                        milliseconds(options.timing.restart_backoff_ms),
                                        milliseconds(options.timing.restart_backoff_max_ms));
  slot->resume_time = now + pause;
  if (!stopping) {
    spdlog::warn("{}: {}; its workers do without, next start in {} ms", slot->service.name, why,
                 pause.count());
  }
}

// When this very process was stopped or starved, no service is to blame for what was not heard meanwhile.
void MemorySupervisor::Impl::AdjustForSleep(Clock::time_point now) {
  if (now < next_wake + milliseconds(options.timing.hang_timeout_ms / 2)) return;
  for (Slot& slot : slots) {
    if (slot.ping != nullptr) slot.ping_time = now;
    slot.start_deadline += now - next_wake;
  }
}

Clock::time_point MemorySupervisor::Impl::NextWake(Clock::time_point now) const {
  Clock::time_point wake = now + kIdleWait;
  for (const Slot& slot : slots) {
    switch (slot.phase) {
      case Slot::Phase::kWaiting:
        wake = std::min(wake, slot.resume_time);
        break;
      case Slot::Phase::kStarting:
        wake = std::min(wake, slot.start_deadline);
        if (slot.stub != nullptr && slot.ping == nullptr) wake = std::min(wake, slot.ping_time);
        break;
      case Slot::Phase::kReady:
        wake = std::min(wake, slot.ping == nullptr
                                  ? slot.ping_time
                                  : slot.ping_time + milliseconds(options.timing.hang_timeout_ms));
        break;
      case Slot::Phase::kEnding:
        if (!slot.alive && slot.ping == nullptr) wake = now;
        if (slot.alive && !slot.killed) wake = std::min(wake, slot.kill_time);
        break;
      case Slot::Phase::kStopped:
        break;
    }
  }
  return wake;
}

MemorySupervisor::MemorySupervisor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<MemorySupervisor>> MemorySupervisor::Start(Options options) {
  MNEMO_ASSIGN_OR_RETURN(ChildSet children, ChildSet::Create());
  auto impl = std::make_unique<Impl>(std::move(options), std::move(children));
  impl->thread = std::thread([raw = impl.get()] { raw->Loop(); });
  return std::unique_ptr<MemorySupervisor>(new MemorySupervisor(std::move(impl)));
}

MemorySupervisor::~MemorySupervisor() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->children.Wake();
  impl_->thread.join();
  std::unique_lock lock(impl_->answers->mutex);
  impl_->answers->none_left.wait(lock, [this] { return impl_->answers->outstanding == 0; });
}

void MemorySupervisor::HangUp() {
  impl_->hangs_up = true;
  impl_->children.Wake();
}

uint64_t MemorySupervisor::AskForTurn() {
  impl_->children.Wake();
  return impl_->turns;
}

std::vector<MemorySnapshot> MemorySupervisor::Snapshots() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<MemorySnapshot> snapshots;
  for (const Slot& slot : impl_->slots) snapshots.push_back(slot.shown);
  return snapshots;
}

std::vector<int> MemorySupervisor::ProcessIds() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<int> pids;
  for (const Slot& slot : impl_->slots) {
    if (slot.shown.pid > 0) pids.push_back(slot.shown.pid);
  }
  return pids;
}

}  // namespace mnemo::dispatch
