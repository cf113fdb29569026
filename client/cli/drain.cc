#include <CLI/CLI.hpp>
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/common.h"

namespace mnemo::cli {
namespace {

struct DrainOptions {
  ServerOptions server;
  std::string timeout = "30s";
  bool json = false;
};

int RunDrain(const DrainOptions& options) {
  const absl::StatusOr<std::chrono::nanoseconds> timeout = ParseDuration(options.timeout);
  if (!timeout.ok()) return FailUsage("--timeout: " + std::string(timeout.status().message()));
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  const absl::StatusOr<v1::DrainResponse> drained =
      client->Drain(std::chrono::ceil<std::chrono::milliseconds>(*timeout));
  if (!drained.ok()) return Fail(drained.status());
  const std::string text =
      options.json ? fmt::format("{{\"finished\":{},\"cut\":{}}}\n", drained->finished(), drained->cut())
                   : fmt::format("drained: {} finished, {} cut\n", drained->finished(), drained->cut());
  return WriteOut(text) ? kExitOk : kExitBrokenPipe;
}

}  // namespace

RunCommand AddDrain(CLI::App* command) {
  auto options = std::make_shared<DrainOptions>();
  command
      ->add_option("--timeout", options->timeout,
                   "Wait so long for running requests, then cut them (500ms, 30s, 5m)")
      ->capture_default_str()
      ->type_name("DURATION");
  command->add_flag("--json", options->json, "Print one JSON object: finished, cut");
  AddServerOptions(command, &options->server);
  command->footer(
      "New requests are refused from now on, until `mnemo resume`; health checks report NOT_SERVING.");
  return [options] { return RunDrain(*options); };
}

}  // namespace mnemo::cli
