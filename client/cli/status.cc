#include <unistd.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/json_output.h"

namespace mnemo::cli {
namespace {

struct StatusOptions {
  ServerOptions server;
  bool json = false;
  bool watch = false;
  std::string interval = "1s";
};

std::string StatusText(const v1::StatusResponse& status) {
  std::string text =
      fmt::format("mnemod {}  up {}  {}  running {}  queued {}  tokens in flight {}\n", status.version(),
                  FormatSeconds(Seconds(status.uptime())), status.draining() ? "draining" : "serving",
                  status.requests_running(), status.requests_queued(), status.tokens_in_flight());
  std::vector<std::vector<std::string>> rows = {{"WORKER", "STATE", "MODEL", "DEVICE", "PID", "RESTARTS",
                                                 "RUNNING", "KV USED", "KV CACHED", "KV TOTAL", "ADDRESS",
                                                 "DETAIL"}};
  for (const v1::StatusResponse::Worker& worker : status.workers()) {
    const double share = worker.kv_pages_total() > 0 ? 100.0 * static_cast<double>(worker.kv_pages_used()) /
                                                           static_cast<double>(worker.kv_pages_total())
                                                     : 0.0;
    rows.push_back({worker.name(), StateName(worker.state()), worker.model(), worker.device(),
                    fmt::format("{}", worker.pid()), fmt::format("{}", worker.restarts()),
                    fmt::format("{}", worker.requests_running()),
                    fmt::format("{} ({:.0f}%)", worker.kv_pages_used(), share),
                    fmt::format("{}", worker.kv_pages_cached()), fmt::format("{}", worker.kv_pages_total()),
                    worker.address(), worker.detail()});
  }
  text += FormatTable(rows);
  if (status.memory_services_size() == 0) return text;
  rows = {{"MEMORY SERVICE", "STATE", "DEVICE", "PID", "RESTARTS", "USED", "TOTAL", "INDEXES", "ADDRESS",
           "DETAIL"}};
  for (const v1::StatusResponse::MemoryService& service : status.memory_services()) {
    const std::string device = service.device() + (service.simulated_time() ? " (simulated time)" : "");
    // Each has some memory: 0 is that of a service that others run, or that is down.
    const auto bytes = [&](int64_t value) {
      return service.bytes_total() == 0 ? std::string("-") : FormatBytes(static_cast<double>(value));
    };
    rows.push_back({service.name(), StateName(service.state()), device, fmt::format("{}", service.pid()),
                    fmt::format("{}", service.restarts()), bytes(service.bytes_used()),
                    bytes(service.bytes_total()), fmt::format("{}", service.indexes()), service.address(),
                    service.detail()});
  }
  return text + FormatTable(rows);
}

// Prints the table again and again, in place on a terminal. Shows an unreachable daemon as such; the client
// reconnects.
int Watch(client::Client* client, const StatusOptions& options, std::chrono::nanoseconds interval) {
  std::mutex mutex;
  std::condition_variable stop;
  bool stopped = false;
  InterruptGuard interrupt([&] {
    std::lock_guard lock(mutex);
    stopped = true;
    stop.notify_all();
  });
  const bool terminal = IsTerminal(STDOUT_FILENO) && !options.json;
  client::CallOptions call;
  call.timeout = std::chrono::seconds(5);
  call.retry.max_attempts = 1;
  while (true) {
    const absl::StatusOr<v1::StatusResponse> status = client->Status(call);
    std::string text;
    if (status.ok()) {
      text = options.json ? StatusJson(*status) + "\n" : StatusText(*status);
    } else if (terminal) {
      text =
          "no answer from " + options.server.address + ": " + std::string(status.status().message()) + "\n";
    } else {
      Fail(status.status());
    }
    if (terminal) text = "\x1b[H\x1b[2J" + text + "\nevery " + options.interval + "; Ctrl-C ends\n";
    if (!terminal && !options.json) text += "\n";
    if (!WriteOut(text)) return kExitBrokenPipe;
    std::unique_lock lock(mutex);
    if (stop.wait_for(lock, interval, [&] { return stopped; })) return kExitOk;
  }
}

int RunStatus(const StatusOptions& options) {
  const absl::StatusOr<std::chrono::nanoseconds> interval = ParseDuration(options.interval);
  if (!interval.ok()) return FailUsage("--interval: " + std::string(interval.status().message()));
  if (*interval < std::chrono::milliseconds(50)) return FailUsage("--interval: at least 50ms");
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  if (options.watch) return Watch(client.get(), options, *interval);
  const absl::StatusOr<v1::StatusResponse> status = client->Status();
  if (!status.ok()) return Fail(status.status());
  return WriteOut(options.json ? StatusJson(*status) + "\n" : StatusText(*status)) ? kExitOk
                                                                                   : kExitBrokenPipe;
}

}  // namespace

RunCommand AddStatus(CLI::App* command) {
  auto options = std::make_shared<StatusOptions>();
  command->add_flag("--json", options->json, "Print a JSON object (with --watch: one a line)");
  command->add_flag("-w,--watch", options->watch, "Show it again and again until Ctrl-C");
  command->add_option("--interval", options->interval, "Time between two looks with --watch, at least 50ms")
      ->capture_default_str()
      ->type_name("DURATION");
  AddServerOptions(command, &options->server);
  command->footer(
      "KV figures are pages: USED by running requests, CACHED for prefix reuse and free to be taken.");
  return [options] { return RunStatus(*options); };
}

}  // namespace mnemo::cli
