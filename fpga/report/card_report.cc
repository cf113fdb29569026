// Prints what scans and descriptors take: on the card by the functional model's cycle estimate, and on a
// memory device of this build in the same run.

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "fpga/report/device_run.h"
#include "fpga/report/estimate.h"
#include "fpga/report/workload.h"

namespace mnemo::card::report {
namespace {

constexpr uint32_t kCardChannels = 32;
constexpr double kChannelGb = 14.375;  // a second and pseudo-channel, UG1393

struct Options {
  model::Shape shape{.channels = kCardChannels};
  std::vector<double> clocks = {250, 300};
  std::string kind = "cpu";
  std::vector<std::string> device_options;
  uint32_t device_channels = 0;
  int threads = 2;
  uint32_t times = 5;
  std::string only;
  bool json = false;
};

void AddOptions(Options* options, CLI::App* app) {
  app->add_option("--channels", options->shape.channels, "Channels of the estimated card")
      ->check(CLI::IsMember({1, 2, 4, 8, 16, 32}));
  app->add_option("--queries", options->shape.queries, "G: queries of a pass")
      ->check(CLI::IsMember({1, 2, 4, 8}));
  app->add_option("--clock-mhz", options->clocks, "Clocks of the estimated card")->check(CLI::Range(50, 600));
  app->add_option("--device", options->kind, "Kind of memory device that runs beside it; none: no device");
  app->add_option("--device-option", options->device_options, "KEY=VALUE of that kind; may be given again");
  app->add_option("--device-channels", options->device_channels,
                  "Channels of that device; then it runs as many tokens a channel as the card of 32 has")
      ->check(CLI::Range(1, 32));
  app->add_option("--threads", options->threads, "Threads of that device")->check(CLI::Range(1, 256));
  app->add_option("--times", options->times, "Runs of each workload on that device; the fastest counts")
      ->check(CLI::Range(1, 1000));
  app->add_option("--only", options->only, "One workload alone, by its name");
  app->add_flag("--json", options->json, "Print JSON");
}

absl::StatusOr<std::unique_ptr<DeviceRun>> MakeDevice(const Options& options) {
  memory_device::MemoryDeviceOptions device{
      .kind = options.kind, .name = "report", .threads = options.threads};
  for (const std::string& option : options.device_options) {
    const size_t equals = option.find('=');
    if (equals == std::string::npos) {
      return absl::InvalidArgumentError(fmt::format("--device-option {}: KEY=VALUE is wanted", option));
    }
    device.device_options.emplace_back(option.substr(0, equals), option.substr(equals + 1));
  }
  return DeviceRun::Make(device);
}

// As many tokens a channel as on the card of 32.
Workload Scaled(Workload workload, uint32_t channels) {
  if (channels != 0) workload.tokens = workload.tokens / kCardChannels * channels;
  return workload;
}

struct Row {
  Workload workload;
  std::vector<Estimate> estimates;  // by clock
  std::optional<DeviceTimes> device;
};

nlohmann::json Json(const Options& options, const std::vector<Row>& rows) {
  nlohmann::json all = {
      {"card",
       {{"source", "estimate of the functional model"},
        {"channels", options.shape.channels},
        {"queries", options.shape.queries},
        {"scores", options.shape.scores}}},
      {"device",
       {{"kind", options.kind}, {"threads", options.threads}, {"channels", options.device_channels}}},
      {"rows", nlohmann::json::array()}};
  for (const Row& row : rows) {
    nlohmann::json one = {{"name", row.workload.name},
                          {"about", row.workload.about},
                          {"tokens", row.workload.tokens},
                          {"dim", row.workload.dim},
                          {"group", row.workload.group},
                          {"k", row.workload.k},
                          {"measures", row.workload.measure == Measure::kScan ? "scan" : "descriptor"},
                          {"bound_us", row.workload.bound_us}};
    for (size_t n = 0; n < options.clocks.size(); ++n) {
      const Estimate& estimate = row.estimates[n];
      one["card"].push_back({{"clock_mhz", options.clocks[n]},
                             {"us", estimate.us},
                             {"scan_us", estimate.scan_us},
                             {"select_us", estimate.select_us},
                             {"reader_share", estimate.reader_share},
                             {"bytes", estimate.bytes}});
    }
    if (row.device) {
      one["device"] = {{"score_us", row.device->score_us},
                       {"select_us", row.device->select_us},
                       {"wall_us", row.device->wall_us},
                       {"bytes", row.device->bytes}};
    }
    all["rows"].push_back(std::move(one));
  }
  return all;
}

void PrintTable(const Options& options, const std::vector<Row>& rows) {
  fmt::print(
      "Card: {} channels, G {}, S {}; an estimate of the functional model, no simulation. Times in us.\n",
      options.shape.channels, options.shape.queries, options.shape.scores);
  if (options.kind != "none") {
    fmt::print("Device: {} with {} threads in this run{}.\n", options.kind, options.threads,
               options.device_channels == 0
                   ? ""
                   : fmt::format(", {} channels, as many tokens a channel as the card of {}",
                                 options.device_channels, kCardChannels));
  }
  fmt::print("\n{:<7} {:<29} {:>8} {:>4} {:>5} {:>8}", "name", "workload", "tokens", "dim", "group", "bound");
  for (const double clock : options.clocks) fmt::print(" {:>9}", fmt::format("{:.0f} MHz", clock));
  fmt::print(" {:>7} {:>7} {:>7} {:>10} {:>10}\n", "select", "GB/s", "reader", "dev score", "dev select");
  for (const Row& row : rows) {
    const Workload& w = row.workload;
    fmt::print("{:<7} {:<29} {:>8} {:>4} {:>5} {:>8.0f}", w.name, w.about, w.tokens, w.dim, w.group,
               w.bound_us);
    for (const Estimate& estimate : row.estimates) fmt::print(" {:>9.1f}", estimate.us);
    const Estimate& first = row.estimates.front();
    const double rate = static_cast<double>(first.bytes) / w.heads / first.scan_us / 1000;
    fmt::print(" {:>7.1f} {:>7.0f} {:>6.1f}%", first.select_us, rate, 100 * first.reader_share);
    if (row.device) fmt::print(" {:>10.1f} {:>10.1f}", row.device->score_us, row.device->select_us);
    fmt::print("\n");
  }
  fmt::print(
      "\nselect: of one head, by the first clock, beside the next head's scan. GB/s: of the scan; the "
      "channels' peak "
      "is {:.0f}.\nreader: the share that the scan reaches of a plain linear reader's rate. dev: all "
      "heads.\n",
      kChannelGb * options.shape.channels);
}

absl::StatusOr<std::vector<Row>> Measure(const Options& options) {
  std::vector<Row> rows;
  for (const Workload& workload : Workloads()) {
    if (!options.only.empty() && workload.name != options.only) continue;
    Row row{.workload = workload, .estimates = {}, .device = std::nullopt};
    for (const double clock : options.clocks) {
      row.estimates.push_back(EstimateOf(workload, options.shape, clock));
    }
    if (options.kind != "none") {
      // A device of its own for each, so that its memory starts empty.
      absl::StatusOr<std::unique_ptr<DeviceRun>> run = MakeDevice(options);
      if (!run.ok()) return run.status();
      absl::StatusOr<DeviceTimes> times =
          (*run)->Run(Scaled(workload, options.device_channels), options.times);
      if (times.ok()) {
        row.device = *times;
      } else if (!absl::IsUnimplemented(times.status())) {
        return times.status();
      }
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty())
    return absl::InvalidArgumentError(fmt::format("--only {}: no such workload", options.only));
  return rows;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Times of the FPGA card by estimate, beside a memory device of this build.");
  AddOptions(&options, &app);
  CLI11_PARSE(app, argc, argv);
  absl::StatusOr<std::vector<Row>> rows = Measure(options);
  if (!rows.ok()) {
    fmt::print(stderr, "card_report: {}\n", std::string(rows.status().message()));
    return 1;
  }
  if (options.json) {
    fmt::print("{}\n", Json(options, *rows).dump(2));
  } else {
    PrintTable(options, *rows);
  }
  return 0;
}

}  // namespace
}  // namespace mnemo::card::report

int main(int argc, char** argv) { return mnemo::card::report::Main(argc, argv); }
