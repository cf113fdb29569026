#include "server/energy_service/energy_options.h"

#include <CLI/CLI.hpp>

#include "config/config_options.h"
#include "devices/base/command_line.h"

#ifndef MNEMO_VERSION
#error MNEMO_VERSION is set by CMakeLists.txt
#endif

namespace mnemo::energy_service {

absl::StatusOr<EnergyOptions> ParseEnergyOptions(int argc, const char* const* argv) {
  EnergyOptions options;
  CLI::App app(
      "Reads the machine's energy counters, which are root's alone, and serves rounded readings of them on a "
      "Unix socket. Its settings are those of mnemod, see docs/CONFIGURATION.md.",
      "mnemo-energy");
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", "mnemo-energy " MNEMO_VERSION);
  app.add_option("--socket-group", options.socket_group,
                 "Group that may connect; the group of the process if not given");
  config::ConfigOptions settings(&app, /*is_child=*/false);
  settings.AddShort("--socket", "energy.socket", "Path of the socket, unless systemd passes one");
  settings.AddShort("--powercap-root", "energy.powercap_root", "Directory of the kernel's powercap zones");
  settings.AddShort("--interval-ms", "energy.interval_ms",
                    "Time between two readings; at least 100 are taken");
  settings.AddLogShorts();
  MNEMO_RETURN_IF_ERROR(ParseCommandLine(&app, argc, argv));
  MNEMO_ASSIGN_OR_RETURN(options.config, settings.LoadForChild());
  return options;
}

}  // namespace mnemo::energy_service
