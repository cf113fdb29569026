#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "client/cli/calibrate.h"
#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/json_output.h"

namespace mnemo::cli {
namespace {

struct EnergyOptions {
  ServerOptions server;
  bool json = false;
  bool once = false;
  int count = 0;  // 0: until Ctrl-C
  std::string interval = "1s";
  bool calibrate = false;
  CalibrateOptions calibration;
  std::string phase = "10s";
};

std::string Share(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} ({:.0f}%)", part, 100 * part / whole) : fmt::format("{:.1f}", part);
}

std::string EnergyText(const v1::EnergyResponse& energy) {
  std::vector<std::vector<std::string>> rows = {{"DEVICE", "SOURCE", "METER", "WATTS", "IDLE WATTS", "JOULES",
                                                 "REQUESTS", "OVERHEAD", "IDLE", "OTHER"}};
  std::map<std::string, double> request_joules;
  for (const v1::EnergyResponse::Device& device : energy.devices()) {
    request_joules[device.device()] += device.request_joules();
    rows.push_back({device.device(), device.source(), device.meter_up() ? "up" : "down",
                    fmt::format("{:.1f}", device.watts()),
                    fmt::format("{:.1f} {}", device.idle_watts(),
                                device.idle_watts_measured() ? "measured" : "configured"),
                    fmt::format("{:.1f}", device.joules()), Share(device.request_joules(), device.joules()),
                    Share(device.overhead_joules(), device.joules()),
                    Share(device.idle_joules(), device.joules()),
                    Share(device.other_joules(), device.joules())});
  }
  std::string text = FormatTable(rows);
  rows = {{"STEP", "METHOD", "DEVICE", "JOULES"}};
  for (const v1::EnergyResponse::Step& step : energy.steps()) {
    rows.push_back(
        {step.step(), step.method(), step.device(), Share(step.joules(), request_joules[step.device()])});
  }
  if (rows.size() > 1) text += "\n" + FormatTable(rows);
  rows = {{"REQUEST", "AGE", "TOKENS", "JOULES", "JOULES/TOKEN"}};
  for (const v1::EnergyResponse::Request& request : energy.requests()) {
    rows.push_back({request.request_id(), FormatSeconds(Seconds(request.age())),
                    fmt::format("{}", request.completion_tokens()), fmt::format("{:.2f}", request.joules()),
                    request.completion_tokens() > 0
                        ? fmt::format("{:.3f}", request.joules() / request.completion_tokens())
                        : "-"});
  }
  if (rows.size() > 1) text += "\n" + FormatTable(rows);
  return text;
}

// Prints the table `count` times, in place on a terminal. The first failure ends it: a daemon without meters
// has none later either.
int Watch(client::Client* client, const EnergyOptions& options, int count,
          std::chrono::nanoseconds interval) {
  std::mutex mutex;
  std::condition_variable stop;
  bool is_stopped = false;
  const InterruptGuard interrupt([&] {
    const std::lock_guard lock(mutex);
    is_stopped = true;
    stop.notify_all();
  });
  const bool is_terminal = IsTerminal(STDOUT_FILENO) && !options.json && count != 1;
  for (int i = 0; count == 0 || i < count; ++i) {
    if (i > 0) {
      std::unique_lock lock(mutex);
      if (stop.wait_for(lock, interval, [&] { return is_stopped; })) return kExitOk;
    }
    const absl::StatusOr<v1::EnergyResponse> energy = client->Energy();
    if (!energy.ok()) return Fail(energy.status());
    std::string text = options.json ? EnergyJson(*energy) + "\n" : EnergyText(*energy);
    if (is_terminal) text = "\x1b[H\x1b[2J" + text + "\nevery " + options.interval + "; Ctrl-C ends\n";
    if (!is_terminal && !options.json && count != 1) text += "\n";
    if (!WriteOut(text)) return kExitBrokenPipe;
  }
  return kExitOk;
}

int RunEnergy(EnergyOptions options) {
  const absl::StatusOr<std::chrono::nanoseconds> interval = ParseDuration(options.interval);
  if (!interval.ok()) return FailUsage("--interval: " + std::string(interval.status().message()));
  if (*interval < std::chrono::milliseconds(50)) return FailUsage("--interval: at least 50ms");
  const absl::StatusOr<std::chrono::nanoseconds> phase = ParseDuration(options.phase);
  if (!phase.ok()) return FailUsage("--phase: " + std::string(phase.status().message()));
  if (*phase < std::chrono::milliseconds(100) || *phase > std::chrono::hours(1)) {
    return FailUsage("--phase: 100ms to 1h");
  }
  options.calibration.phase = *phase;
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  if (!options.calibrate) return Watch(client.get(), options, options.once ? 1 : options.count, *interval);
  options.calibration.json = options.json;
  return Calibrate(client.get(), options.calibration);
}

}  // namespace

RunCommand AddEnergy(CLI::App* command) {
  auto options = std::make_shared<EnergyOptions>();
  command->add_flag("--json", options->json, "Print a JSON object a look, each on a line");
  CLI::Option* const once = command->add_flag("--once", options->once, "Look once");
  command->add_option("-n,--count", options->count, "Looks, then it ends; 0 = until Ctrl-C")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str()
      ->excludes(once);
  command->add_option("--interval", options->interval, "Time between two looks, at least 50ms")
      ->capture_default_str()
      ->type_name("DURATION");
  CLI::Option* const calibrate = command->add_flag(
      "--calibrate", options->calibrate,
      "Load the daemon, fit a model of power to its meters and print it; run on its machine");
  command->add_option("--phase", options->phase, "With --calibrate: length of each of its six phases")
      ->capture_default_str()
      ->type_name("DURATION")
      ->needs(calibrate);
  command->add_option("--proc-stat", options->calibration.proc_stat, "With --calibrate: the CPUs' times")
      ->capture_default_str()
      ->needs(calibrate);
  AddServerOptions(command, &options->server);
  command->footer(
      "Joules are counted since the daemon started. REQUESTS, OVERHEAD, IDLE and OTHER (programs) add up to "
      "a "
      "device's joules, and steps to REQUESTS.");
  return [options] { return RunEnergy(*options); };
}

}  // namespace mnemo::cli
