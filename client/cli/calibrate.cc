#include "client/cli/calibrate.h"

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/bench/load.h"
#include "client/bench/power_fit.h"
#include "client/cli/common.h"
#include "client/cli/model_choice.h"
#include "devices/energy/cpu_times.h"

namespace mnemo::cli {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr int kOutputTokens = 64;  // of each request; short ones, so that a phase ends soon after its load
constexpr int kPromptTokens = 64;
// The daemon's counters settle in two intervals, and a load needs a moment to begin.
constexpr std::chrono::milliseconds kSettle{500};

struct Phase {
  int concurrency;
  bool is_held_out;
};
// The held-out phases lie between the fitted ones, in load and in time.
constexpr Phase kPhases[] = {{0, false}, {1, false}, {3, true}, {2, false}, {4, false}, {0, true}};

struct Look {
  steady_clock::time_point at;
  energy::CpuTimes cpu;
  std::map<std::string, double> joules;  // by device
};

// Only a meter tells something new: a model's energy would fit itself.
bool IsUsable(const v1::EnergyResponse::Device& device) {
  return device.meter_up() && device.source() != "model" &&
         (device.device().starts_with("cpu") || device.device().starts_with("dram"));
}

absl::StatusOr<Look> LookAtMeters(client::Client* client, const CalibrateOptions& options) {
  Look look;
  MNEMO_ASSIGN_OR_RETURN(const v1::EnergyResponse energy, client->Energy());
  look.at = steady_clock::now();
  MNEMO_ASSIGN_OR_RETURN(look.cpu, energy::ReadCpuTimes(options.proc_stat));
  for (const v1::EnergyResponse::Device& device : energy.devices()) {
    if (IsUsable(device)) look.joules[device.device()] += device.joules();
  }
  if (look.joules.empty()) {
    return FailedPrecondition(
        "the daemon has no meter of a CPU or of DRAM that is up; a model is fitted on a machine with one");
  }
  return look;
}

using DevicePhases = std::map<std::string, std::vector<bench::PowerPhase>>;

absl::Status AddPhase(const Look& begin, const Look& end, DevicePhases* phases) {
  const double seconds = duration<double>(end.at - begin.at).count();
  const double busy = end.cpu.busy_seconds - begin.cpu.busy_seconds;
  const double all = busy + end.cpu.idle_seconds - begin.cpu.idle_seconds;
  if (all <= 0) return FailedPrecondition("the CPUs' times have not moved; a longer --phase is needed");
  for (const auto& [device, joules] : end.joules) {
    const auto before = begin.joules.find(device);
    const double watts = before == begin.joules.end() ? 0 : (joules - before->second) / seconds;
    if (watts <= 0) {
      return FailedPrecondition("{} has counted no energy within a phase; its meter was down", device);
    }
    (*phases)[device].push_back({.use = busy / all, .watts = watts});
  }
  return absl::OkStatus();
}

absl::Status RunPhase(client::Client* client, const CalibrateOptions& options, int concurrency,
                      const std::vector<int32_t>& ids, DevicePhases* phases) {
  std::unique_ptr<bench::LoadRun> load;
  std::thread thread;
  if (concurrency > 0) {
    load = std::make_unique<bench::LoadRun>(
        std::vector<client::Client*>{client},
        bench::LoadOptions{.concurrency = concurrency, .duration_seconds = 1e9},
        [&](int64_t index) {
          v1::GenerateRequest request;
          for (int i = 0; i < kPromptTokens; ++i) {
            request.mutable_token_ids()->add_ids(
                ids[(static_cast<size_t>(index) * 31 + static_cast<size_t>(i)) % ids.size()]);
          }
          request.mutable_sampling()->set_max_tokens(kOutputTokens);
          request.mutable_sampling()->set_ignore_eos(true);
          return request;
        },
        nullptr);
    thread = std::thread([&] { (void)load->Run([](const bench::LoadProgress&) {}); });
  }
  std::this_thread::sleep_for(kSettle);
  const absl::StatusOr<Look> begin = LookAtMeters(client, options);
  if (begin.ok()) std::this_thread::sleep_for(options.phase);
  const absl::StatusOr<Look> end = begin.ok() ? LookAtMeters(client, options) : begin;
  if (load != nullptr) {
    load->Stop();
    thread.join();
  }
  if (!end.ok()) return end.status();
  return AddPhase(*begin, *end, phases);
}

int Print(const DevicePhases& fitted, const DevicePhases& held_out, bool as_json) {
  nlohmann::json list = nlohmann::json::array();
  std::string text = "energy:\n  model:\n";
  for (const auto& [device, phases] : fitted) {
    const auto others = held_out.find(device);
    if (others == held_out.end()) continue;
    const absl::StatusOr<bench::PowerFit> fit = bench::FitPower(phases);
    if (!fit.ok()) return Fail(Annotate(fit.status(), device));
    const double error = bench::MeanRelativeError(*fit, others->second);
    text +=
        fmt::format("    - \"{} idle={:.3f} busy={:.3f}\" # off by {:.1f} % in phases that were not fitted\n",
                    device, fit->idle_watts, fit->busy_watts, 100 * error);
    list.push_back({{"device", device},
                    {"idle_watts", fit->idle_watts},
                    {"busy_watts", fit->busy_watts},
                    {"mean_relative_error", error}});
  }
  return WriteOut(as_json ? nlohmann::json{{"model", list}}.dump() + "\n" : text) ? kExitOk : kExitBrokenPipe;
}

}  // namespace

int Calibrate(client::Client* client, const CalibrateOptions& options) {
  // Refused before any load where there is no meter.
  if (const absl::StatusOr<Look> look = LookAtMeters(client, options); !look.ok()) return Fail(look.status());
  const absl::StatusOr<v1::ListModelsResponse::Model> model = FindModel(client, "");
  if (!model.ok()) return Fail(model.status());
  const absl::StatusOr<std::vector<int32_t>> ids = OrdinaryIds(client, *model);
  if (!ids.ok()) return Fail(ids.status());
  DevicePhases fitted, held_out;
  for (const Phase& phase : kPhases) {
    std::fprintf(stderr, "mnemo: %s, %d requests at once\n", phase.is_held_out ? "checking" : "measuring",
                 phase.concurrency);
    const absl::Status status =
        RunPhase(client, options, phase.concurrency, *ids, phase.is_held_out ? &held_out : &fitted);
    if (!status.ok()) return Fail(status);
  }
  return Print(fitted, held_out, options.json);
}

}  // namespace mnemo::cli
