// The command line of mnemo-energy.
#pragma once

#include <string>

#include "config/config.h"
#include "devices/base/status.h"

namespace mnemo::energy_service {

struct EnergyOptions {
  std::string socket_group;  // owning group of the socket's file; empty = that of the process
  // The program reads `energy` and `log`.
  config::Config config;
};

// Reads the command line and the configuration that it names. INVALID_ARGUMENT or NOT_FOUND: what is wrong
// with them. CANCELLED: --help or --version was asked for; the message is the answer.
absl::StatusOr<EnergyOptions> ParseEnergyOptions(int argc, const char* const* argv);

}  // namespace mnemo::energy_service
