// Prints what scans and descriptors take: on the card by the functional model's cycle estimate, and on memory
// devices of this build in the same run. A device whose clock is an option runs at each of the clocks.

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "devices/memory/memory_device_registry.h"
#include "fpga/report/device_run.h"
#include "fpga/report/estimate.h"
#include "fpga/report/linear_reader.h"
#include "fpga/report/whole_run.h"
#include "fpga/report/workload.h"

namespace mnemo::card::report {
namespace {

constexpr uint32_t kCardChannels = 32;
constexpr uint32_t kGroup = 16;        // that devices offer where a workload has no more
constexpr double kChannelGb = 14.375;  // a second and pseudo-channel, UG1393

struct Options {
  model::Shape shape{.channels = kCardChannels};
  std::vector<double> clocks = {250, 300};
  std::vector<std::string> kinds = {"cpu"};
  std::vector<std::string> device_options;
  uint32_t device_channels = 0;
  int threads = 2;
  uint32_t times = 5;
  std::string only;
  bool whole = false;
  bool json = false;
};

void AddOptions(Options* options, CLI::App* app) {
  app->add_option("--channels", options->shape.channels, "Channels of the estimated card")
      ->check(CLI::IsMember({1, 2, 4, 8, 16, 32}));
  app->add_option("--queries", options->shape.queries, "G: queries of a pass")
      ->check(CLI::IsMember({1, 2, 4, 8}));
  app->add_option("--clock-mhz", options->clocks, "Clocks of the estimated card")->check(CLI::Range(50, 600));
  app->add_option("--device", options->kinds, "Kinds of memory device that run beside it; none: no device");
  app->add_option("--device-option", options->device_options,
                  "KEY=VALUE of the kinds that have it; may be given again");
  app->add_option("--device-channels", options->device_channels,
                  "Channels of devices that have channels; then they run as many tokens a channel as the "
                  "card of 32 has")
      ->check(CLI::Range(1, 32));
  app->add_option("--threads", options->threads, "Threads of those devices")->check(CLI::Range(1, 256));
  app->add_option("--times", options->times, "Runs of each workload on each device; the fastest counts")
      ->check(CLI::Range(1, 1000));
  app->add_option("--only", options->only, "One workload alone, by its name");
  app->add_flag(
      "--whole", options->whole,
      "Whole descriptors alone, on the simulated card of this build: cycles from doorbell to completion");
  app->add_flag("--json", options->json, "Print JSON");
}

// A device that runs beside the estimate.
struct Column {
  std::string kind;
  double clock_mhz = 0;   // 0: it has none
  bool channels = false;  // it has channels
  std::vector<std::pair<std::string, std::string>> device_options;

  std::string Name() const { return clock_mhz == 0 ? kind : fmt::format("{}@{:.0f}", kind, clock_mhz); }
};

bool HasKey(const memory_device::MemoryDeviceKind& kind, const std::string& key) {
  return std::find(kind.option_keys.begin(), kind.option_keys.end(), key) != kind.option_keys.end();
}

absl::StatusOr<std::vector<Column>> Columns(const Options& options) {
  std::vector<Column> columns;
  const std::vector<memory_device::MemoryDeviceKind> kinds = memory_device::MemoryDeviceKinds();
  size_t used = 0;
  for (const std::string& name : options.kinds) {
    if (name == "none") continue;
    const auto kind =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& one) { return one.name == name; });
    if (kind == kinds.end()) {
      // The registry's own error names the kinds that there are.
      return DeviceRun::Make({.kind = name, .name = "report"}).status();
    }
    Column column{.kind = name, .clock_mhz = 0, .channels = HasKey(*kind, "channels"), .device_options = {}};
    for (const std::string& option : options.device_options) {
      const size_t equals = option.find('=');
      if (equals == std::string::npos) {
        return absl::InvalidArgumentError(fmt::format("--device-option {}: KEY=VALUE is wanted", option));
      }
      if (!HasKey(*kind, option.substr(0, equals))) continue;
      column.device_options.emplace_back(option.substr(0, equals), option.substr(equals + 1));
      ++used;
    }
    if (!HasKey(*kind, "clock_mhz")) {
      columns.push_back(column);
      continue;
    }
    for (const double clock : options.clocks) {
      columns.push_back(column);
      columns.back().clock_mhz = clock;
      columns.back().device_options.emplace_back("clock_mhz", fmt::format("{:.0f}", clock));
    }
  }
  if (used < options.device_options.size()) {
    return absl::InvalidArgumentError(
        fmt::format("--device-option: no kind of {} has one of the keys", fmt::join(options.kinds, ", ")));
  }
  return columns;
}

// As many tokens a channel as on the card of 32.
Workload Scaled(Workload workload, uint32_t channels) {
  if (channels != 0) workload.tokens = workload.tokens / kCardChannels * channels;
  return workload;
}

struct Row {
  Workload workload;
  std::vector<Estimate> estimates;                  // by clock
  std::vector<std::optional<DeviceTimes>> devices;  // by column
};

// A cascade's score_us has the selection of its first stage, and its scan is that of the channels.
double TimeOf(const Column& column, const Workload& workload, const DeviceTimes& times) {
  if (workload.sign_stage && column.clock_mhz != 0 && times.busy_cycles != 0) {
    return static_cast<double>(times.busy_cycles) / column.clock_mhz;
  }
  return workload.measure == Measure::kScan ? times.score_us : times.score_us + times.select_us;
}

// The time that selections add to the scans of a descriptor, as a share of these.
std::optional<double> Added(const Workload& workload, double us, double head_us) {
  if (workload.measure == Measure::kScan || head_us == 0) return std::nullopt;
  return us / (workload.heads * head_us) - 1;
}

// The scan's share of the rate that a plain linear reader gets from the same channels.
std::optional<double> ReaderShare(const Options& options, const Column& column, const Workload& workload,
                                  const DeviceTimes& times) {
  const double scan_us = workload.sign_stage ? TimeOf(column, workload, times) : times.score_us;
  if (column.clock_mhz == 0 || options.device_channels == 0 || scan_us == 0) return std::nullopt;
  const std::optional<double> linear = LinearReaderRate(column.clock_mhz);
  if (!linear.has_value()) return std::nullopt;
  return static_cast<double>(times.bytes) / options.device_channels / scan_us / *linear;
}

nlohmann::json Json(const Options& options, const std::vector<Column>& columns,
                    const std::vector<Row>& rows) {
  nlohmann::json all = {{"card",
                         {{"source", "estimate of the functional model"},
                          {"channels", options.shape.channels},
                          {"queries", options.shape.queries},
                          {"scores", options.shape.scores}}},
                        {"threads", options.threads},
                        {"device_channels", options.device_channels},
                        {"rows", nlohmann::json::array()}};
  for (const Row& row : rows) {
    nlohmann::json one = {{"name", row.workload.name},
                          {"about", row.workload.about},
                          {"tokens", row.workload.tokens},
                          {"dim", row.workload.dim},
                          {"group", row.workload.group},
                          {"k", row.workload.k},
                          {"measures", row.workload.measure == Measure::kScan ? "scan" : "descriptor"},
                          {"bound_us", row.workload.bound_us},
                          {"published_us", PublishedUs(row.workload)},
                          {"selection_bound", SelectionBound(row.workload)},
                          {"devices", nlohmann::json::array()}};
    for (size_t n = 0; n < options.clocks.size(); ++n) {
      const Estimate& estimate = row.estimates[n];
      one["card"].push_back({{"clock_mhz", options.clocks[n]},
                             {"us", estimate.us},
                             {"scan_us", estimate.scan_us},
                             {"select_us", estimate.select_us},
                             {"reader_share", estimate.reader_share},
                             {"bytes", estimate.bytes}});
      if (const auto added = Added(row.workload, estimate.us, estimate.scan_us)) {
        one["card"].back()["selection_adds"] = *added;
      }
    }
    for (size_t n = 0; n < columns.size(); ++n) {
      if (!row.devices[n]) continue;
      const DeviceTimes& times = *row.devices[n];
      nlohmann::json device = {{"kind", columns[n].kind},    {"us", TimeOf(columns[n], row.workload, times)},
                               {"score_us", times.score_us}, {"select_us", times.select_us},
                               {"wall_us", times.wall_us},   {"bytes", times.bytes}};
      if (columns[n].clock_mhz != 0) device["clock_mhz"] = columns[n].clock_mhz;
      if (const auto share = ReaderShare(options, columns[n], row.workload, times)) {
        device["reader_share"] = *share;
      }
      if (const auto added = Added(row.workload, TimeOf(columns[n], row.workload, times), times.head_us)) {
        device["selection_adds"] = *added;
      }
      one["devices"].push_back(std::move(device));
    }
    all["rows"].push_back(std::move(one));
  }
  return all;
}

std::string Percent(std::optional<double> share) {
  return share.has_value() ? fmt::format("{:.1f}%", 100 * *share) : "-";
}

void PrintRow(const Options& options, const std::vector<Column>& columns, const Row& row) {
  const Workload& w = row.workload;
  fmt::print("{:<7} {:<29} {:>8} {:>4} {:>5} {:>8.0f}", w.name, w.about, w.tokens, w.dim, w.group,
             w.bound_us);
  for (const Estimate& estimate : row.estimates) fmt::print(" {:>9.1f}", estimate.us);
  const Estimate& first = row.estimates.front();
  const double rate = static_cast<double>(first.bytes) / w.heads / first.scan_us / 1000;
  fmt::print(" {:>7.1f} {:>7.0f} {:>7} {:>6}", first.select_us, rate, Percent(first.reader_share),
             Percent(Added(w, first.us, first.scan_us)));
  for (size_t n = 0; n < columns.size(); ++n) {
    if (!row.devices[n]) {
      fmt::print(" {:>9} {:>7} {:>6}", "-", "-", "-");
      continue;
    }
    const DeviceTimes& times = *row.devices[n];
    const double us = TimeOf(columns[n], w, times);
    fmt::print(" {:>9.1f} {:>7} {:>6}", us, Percent(ReaderShare(options, columns[n], w, times)),
               Percent(Added(w, us, times.head_us)));
  }
  fmt::print(" {:>9}\n", PublishedUs(w) == 0 ? "-" : fmt::format("{:.0f}", PublishedUs(w)));
}

void PrintTable(const Options& options, const std::vector<Column>& columns, const std::vector<Row>& rows) {
  fmt::print(
      "Card: {} channels, G {}, S {}; an estimate of the functional model, no simulation. Times in us.\n",
      options.shape.channels, options.shape.queries, options.shape.scores);
  if (!columns.empty()) {
    fmt::print(
        "Devices of this run: {} threads{}.\n", options.threads,
        options.device_channels == 0
            ? ""
            : fmt::format("; those with channels have {}, with as many tokens a channel as the card of {}",
                          options.device_channels, kCardChannels));
  }
  fmt::print("\n{:<7} {:<29} {:>8} {:>4} {:>5} {:>8}", "name", "workload", "tokens", "dim", "group", "bound");
  for (const double clock : options.clocks) fmt::print(" {:>9}", fmt::format("{:.0f} MHz", clock));
  fmt::print(" {:>7} {:>7} {:>7} {:>6}", "select", "GB/s", "reader", "adds");
  for (const Column& column : columns) fmt::print(" {:>9} {:>7} {:>6}", column.Name(), "reader", "adds");
  fmt::print(" {:>9}\n", "published");
  for (const Row& row : rows) PrintRow(options, columns, row);
  fmt::print(
      "\nselect: of one head, by the first clock, beside the next head's scan. GB/s: of the scan; the "
      "channels' peak is {:.0f}.\nreader: the share that the scan reaches of a plain linear reader's rate. "
      "adds: what selections add to the descriptor's scans, each as it is alone; of 1M tokens {:.0f}% are "
      "wanted at most.\npublished: the least of the published card, 16 bits a number at 38 GB/s.\n",
      kChannelGb * options.shape.channels, 100 * kSelectionBound);
}

// None when the device has not the operation.
absl::StatusOr<std::optional<DeviceTimes>> RunOn(const Options& options, const Column& column,
                                                 const Workload& workload) {
  // A device of its own for each, so that its memory starts empty.
  absl::StatusOr<std::unique_ptr<DeviceRun>> run =
      DeviceRun::Make({.kind = column.kind,
                       .name = "report",
                       .threads = options.threads,
                       .max_group = std::max(kGroup, workload.group),
                       .device_options = column.device_options});
  if (!run.ok()) return run.status();
  const absl::StatusOr<DeviceTimes> times =
      (*run)->Run(Scaled(workload, column.channels ? options.device_channels : 0), options.times);
  if (times.ok()) return *times;
  if (absl::IsUnimplemented(times.status())) return std::nullopt;
  return times.status();
}

absl::StatusOr<std::vector<Row>> Measure(const Options& options, const std::vector<Column>& columns) {
  std::vector<Row> rows;
  for (const Workload& workload : Workloads()) {
    if (!options.only.empty() && workload.name != options.only) continue;
    Row row{.workload = workload, .estimates = {}, .devices = {}};
    for (const double clock : options.clocks) {
      row.estimates.push_back(EstimateOf(workload, options.shape, clock));
    }
    for (const Column& column : columns) {
      absl::StatusOr<std::optional<DeviceTimes>> times = RunOn(options, column, workload);
      if (!times.ok()) return times.status();
      row.devices.push_back(*times);
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty())
    return absl::InvalidArgumentError(fmt::format("--only {}: no such workload", options.only));
  return rows;
}

struct WholeRow {
  const Workload* workload;
  double clock_mhz;
  WholeTimes times;
};

absl::StatusOr<std::vector<WholeRow>> MeasureWhole(const Options& options) {
  std::vector<WholeRow> rows;
  for (const Workload& workload : Workloads()) {
    if (workload.measure != Measure::kDescriptor) continue;
    if (!options.only.empty() && workload.name != options.only) continue;
    for (const double clock : options.clocks) {
      const absl::StatusOr<WholeTimes> times = RunWhole(workload, clock);
      if (!times.ok()) return times.status();
      rows.push_back({&workload, clock, *times});
    }
  }
  if (rows.empty()) {
    return absl::InvalidArgumentError(fmt::format("--only {}: no such descriptor", options.only));
  }
  return rows;
}

nlohmann::json WholeJson(const std::vector<WholeRow>& rows) {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& [workload, clock, times] : rows) {
    const auto cycles = [](const WholeCycles& of) {
      return nlohmann::json{{"first_cycles", of.first}, {"again_cycles", of.again}};
    };
    all.push_back({{"name", workload->name},
                   {"clock_mhz", clock},
                   {"channels", times.channels},
                   {"jobs_us", times.jobs_us},
                   {"host", cycles(times.host)},
                   {"card", cycles(times.card)}});
  }
  return all;
}

void PrintWhole(const std::vector<WholeRow>& rows) {
  fmt::print(
      "Simulated card of {} channels, by its clock: us from first job to last result, then cycles and us "
      "from "
      "the write of the doorbell to the completion in memory.\n\n{:<7} {:>4} {:>7} {:>7}",
      rows.front().times.channels, "name", "MHz", "bound", "jobs");
  for (const char* of : {"host", "again", "card", "again"}) fmt::print(" {:>8} {:>7}", of, "us");
  fmt::print("\n");
  for (const auto& [workload, clock, times] : rows) {
    fmt::print("{:<7} {:>4.0f} {:>7.0f} {:>7.1f}", workload->name, clock, workload->bound_us, times.jobs_us);
    for (const uint64_t cycles : {times.host.first, times.host.again, times.card.first, times.card.again}) {
      fmt::print(" {:>8} {:>7.2f}", cycles, static_cast<double>(cycles) / clock);
    }
    fmt::print("\n");
  }
  fmt::print(
      "\nhost: ring, queries, results and completions in host memory, the driver's queue. card: in card "
      "memory, "
      "a direct queue, whose index table is in host memory. again: the same descriptor once more.\n");
}

int RunWholes(const Options& options) {
  const absl::StatusOr<std::vector<WholeRow>> rows = MeasureWhole(options);
  if (!rows.ok()) {
    fmt::print(stderr, "card_report: {}\n", std::string(rows.status().message()));
    return 1;
  }
  if (options.json) {
    fmt::print("{}\n", WholeJson(*rows).dump(2));
  } else {
    PrintWhole(*rows);
  }
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Times of the FPGA card by estimate, beside memory devices of this build.");
  AddOptions(&options, &app);
  CLI11_PARSE(app, argc, argv);
  if (options.whole) return RunWholes(options);
  const absl::StatusOr<std::vector<Column>> columns = Columns(options);
  const absl::StatusOr<std::vector<Row>> rows =
      columns.ok() ? Measure(options, *columns) : absl::StatusOr<std::vector<Row>>(columns.status());
  if (!rows.ok()) {
    fmt::print(stderr, "card_report: {}\n", std::string(rows.status().message()));
    return 1;
  }
  if (options.json) {
    fmt::print("{}\n", Json(options, *columns, *rows).dump(2));
  } else {
    PrintTable(options, *columns, *rows);
  }
  return 0;
}

}  // namespace
}  // namespace mnemo::card::report

int main(int argc, char** argv) { return mnemo::card::report::Main(argc, argv); }
