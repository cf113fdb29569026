// The world as it is: worker processes of this machine, links over sockets, and the thread that watches them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "devices/base/unique_fd.h"
#include "server/dispatch/child_set.h"
#include "server/dispatch/dispatch_core.h"
#include "server/dispatch/link.h"
#include "server/dispatch/socket_link.h"

namespace mnemo::dispatch {

class ProcessHost final : public WorkerHost {
 public:
  struct Worker {
    std::string address;
    std::vector<std::string> arguments;  // of a child's command line
  };
  struct Options {
    Program program;
    // Makes what a child needs and somebody may have removed; an error is that of the start. May be empty.
    std::function<absl::Status()> before_spawn;
    std::vector<Worker> workers;  // as in CoreOptions::workers
    link::Keepalive keepalive;
    std::shared_ptr<const UniqueFd> config;  // that children inherit; null = none
  };
  // `weights`: the image that children inherit; may be none.
  static absl::StatusOr<std::unique_ptr<ProcessHost>> Create(Options options, UniqueFd weights);
  ~ProcessHost() override;

  // Calls core->Tick and tells it of children until it is stopped, on a thread of its own.
  void Run(std::shared_ptr<DispatchCore> core);
  // SIGHUP for all children, soon. Any thread.
  void HangUp();
  // Turns of Run's thread so far; asks it for another one, soon. Any thread.
  uint64_t AskForTurn();
  // Returns when the core is stopped (see DispatchCore::Stop) and no link is left.
  void Join();

  absl::StatusOr<int> Spawn(int worker, uint64_t life) override;
  std::shared_ptr<WorkerLink> Connect(int worker, uint64_t life) override;
  void Signal(int worker, uint64_t life, int number) override;
  std::chrono::nanoseconds CoreWait(int worker, uint64_t life) override;
  void Wake() override;

 private:
  ProcessHost(Options options, UniqueFd weights, ChildSet children);
  void Loop();

  const Options options_;
  const UniqueFd weights_;
  std::shared_ptr<DispatchCore> core_;
  SocketConnector connector_;
  ChildSet children_;  // by worker; the supervising thread's
  std::atomic<bool> hangs_up_ = false;
  std::atomic<uint64_t> turns_ = 0;
  std::thread thread_;
};

}  // namespace mnemo::dispatch
