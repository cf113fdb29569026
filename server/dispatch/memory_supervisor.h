// Starts the memory services of this machine, watches them, starts them again, and ends them. Nothing waits
// for them: a worker whose service is away does without.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "config/config.h"
#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "server/dispatch/dispatcher.h"
#include "server/dispatch/program.h"

namespace mnemo::dispatch {

class MemorySupervisor {
 public:
  struct Service {
    std::string name;             // "memory0"
    std::string data_socket;      // path of the Unix socket where workers attach
    std::string control_address;  // "unix:/path"
    std::vector<std::string> arguments;
  };
  struct Options {
    Program program;
    std::function<absl::Status()> before_spawn;  // as ProcessHost::Options has it
    std::vector<Service> services;
    config::Config::Memory timing;
    std::shared_ptr<const UniqueFd> config;  // that services inherit; null = none
  };

  static absl::StatusOr<std::unique_ptr<MemorySupervisor>> Start(Options options);
  // SIGTERM to each, SIGKILL to one that does not end; returns when all are gone.
  ~MemorySupervisor();

  std::vector<MemorySnapshot> Snapshots() const;  // any thread
  std::vector<int> ProcessIds() const;            // any thread; those that run
  void HangUp();                                  // SIGHUP for all services, soon; any thread
  // Turns of the supervising thread so far; asks it for another one, soon. Any thread.
  uint64_t AskForTurn();

 private:
  struct Impl;
  explicit MemorySupervisor(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::dispatch
