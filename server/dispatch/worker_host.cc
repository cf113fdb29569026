#include "server/dispatch/worker_host.h"

#include <csignal>
#include <utility>

namespace mnemo::dispatch {

absl::StatusOr<std::unique_ptr<ProcessHost>> ProcessHost::Create(Options options, UniqueFd weights) {
  MNEMO_ASSIGN_OR_RETURN(ChildSet children, ChildSet::Create());
  return std::unique_ptr<ProcessHost>(
      new ProcessHost(std::move(options), std::move(weights), std::move(children)));
}

ProcessHost::ProcessHost(Options options, UniqueFd weights, ChildSet children)
    : options_(std::move(options)),
      weights_(std::move(weights)),
      connector_(options_.keepalive),
      children_(std::move(children)) {}

ProcessHost::~ProcessHost() { MNEMO_CHECK(!thread_.joinable()); }

void ProcessHost::Run(std::shared_ptr<DispatchCore> core) {
  core_ = std::move(core);
  thread_ = std::thread([this] { Loop(); });
}

void ProcessHost::Join() {
  thread_.join();
  connector_.WaitForAll();
}

absl::StatusOr<int> ProcessHost::Spawn(int worker, uint64_t life) {
  if (options_.before_spawn) MNEMO_RETURN_IF_ERROR(options_.before_spawn());
  const int config_fd = options_.config != nullptr ? options_.config->get() : -1;
  return children_.Spawn(worker, life, options_.program, options_.workers[worker].arguments, weights_.get(),
                         config_fd);
}

std::shared_ptr<WorkerLink> ProcessHost::Connect(int worker, uint64_t life) {
  return connector_.Connect(options_.workers[worker].address, core_.get(), worker, life);
}

void ProcessHost::Signal(int worker, uint64_t life, int number) { children_.Signal(worker, life, number); }

std::chrono::nanoseconds ProcessHost::CoreWait(int worker, uint64_t life) {
  return children_.CoreWait(worker, life);
}

void ProcessHost::HangUp() {
  hangs_up_ = true;
  children_.Wake();
}

uint64_t ProcessHost::AskForTurn() {
  children_.Wake();
  return turns_;
}

void ProcessHost::Wake() { children_.Wake(); }

void ProcessHost::Loop() {
  const ChildSet::Listener listener = {
      .listening = [this](int worker, uint64_t life) { core_->OnListening(worker, life); },
      .exited = [this](int worker, uint64_t life,
                       const std::string& how) { core_->OnExited(worker, life, how); },
  };
  while (true) {
    const TimePoint until = core_->Tick();
    ++turns_;
    if (core_->stopped()) return;
    children_.Poll(until, listener);
    if (hangs_up_.exchange(false)) children_.SignalAll(SIGHUP);
  }
}

}  // namespace mnemo::dispatch
