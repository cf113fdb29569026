// `mnemo energy` against a server in this process.
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "client/testing/fake_server.h"
#include "client/testing/process.h"
#include "client/testing/program.h"
#include "tests/support/temp_folder.h"

namespace mnemo::client {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::FakeScript;
using testing::FakeServer;
using testing::MakeFinal;
using testing::Process;
using testing::ProcessResult;
using testing::RunProcess;

std::vector<std::string> Command(const FakeServer& server, const std::vector<std::string>& arguments) {
  return testing::CommandOf(MNEMO_PROGRAM, server, arguments);
}

grpc::Status SomeEnergy(v1::EnergyResponse* response) {
  REQUIRE(google::protobuf::TextFormat::ParseFromString(
      "devices { device: 'cpu0' source: 'rapl' meter_up: true joules: 200 watts: 41.26 idle_watts: 12 "
      "idle_watts_measured: true request_joules: 150 overhead_joules: 10 idle_joules: 30 other_joules: 10 }"
      "steps { device: 'cpu0' method: 'token_topk' step: 'relevancy' joules: 30 }"
      "requests { request_id: 'r-1' joules: 6 completion_tokens: 40 age { seconds: 3 } }",
      response));
  return grpc::Status::OK;
}

TEST_CASE("energy prints devices, steps and requests, as a table or as JSON") {
  FakeScript script;
  script.energy = SomeEnergy;
  FakeServer server(script);
  const ProcessResult table = RunProcess(Command(server, {"energy", "--once"}));
  CHECK(table.exit_code == 0);
  CHECK(table.out ==
        "DEVICE  SOURCE  METER  WATTS  IDLE WATTS     JOULES  REQUESTS     OVERHEAD   IDLE        OTHER\n"
        "cpu0    rapl    up     41.3   12.0 measured  200.0   150.0 (75%)  10.0 (5%)  30.0 (15%)  10.0 (5%)\n"
        "\n"
        "STEP       METHOD      DEVICE  JOULES\n"
        "relevancy  token_topk  cpu0    30.0 (20%)\n"
        "\n"
        "REQUEST  AGE    TOKENS  JOULES  JOULES/TOKEN\n"
        "r-1      3.00s  40      6.00    0.150\n");
  const ProcessResult lines =
      RunProcess(Command(server, {"energy", "--json", "--count", "3", "--interval", "50ms"}));
  CHECK(lines.exit_code == 0);
  CHECK(std::count(lines.out.begin(), lines.out.end(), '\n') == 3);
  const json first = json::parse(lines.out.substr(0, lines.out.find('\n')));
  CHECK(first["devices"][0]["joules"] == 200);
  CHECK(first["steps"][0]["step"] == "relevancy");
  CHECK(first["requests"][0]["age_seconds"] == 3);
  Process process(Command(server, {"energy", "--json", "--interval", "50ms"}));
  REQUIRE(process.WaitForOutput("}\n{"));
  process.Signal(SIGINT);
  CHECK(process.Wait(20s).exit_code == 0);
}

TEST_CASE("energy and its calibration are refused where there is no meter, and bad options are named") {
  FakeServer none({});
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"energy", "--once"}, {"energy", "--calibrate"}}) {
    const ProcessResult result = RunProcess(Command(none, arguments));
    CHECK(result.exit_code == 1);
    CHECK(result.err.find("UNIMPLEMENTED: this machine has neither") != std::string::npos);
    CHECK(result.out.empty());
  }
  FakeScript script;
  script.energy = [](v1::EnergyResponse* response) {
    SomeEnergy(response);
    response->mutable_devices(0)->set_source("model");
    return grpc::Status::OK;
  };
  FakeServer modelled(script);
  const ProcessResult result = RunProcess(Command(modelled, {"energy", "--calibrate"}));
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("FAILED_PRECONDITION: the daemon has no meter of a CPU or of DRAM that is up") !=
        std::string::npos);
  CHECK(modelled.generate_requests().empty());
  for (const std::vector<std::string>& bad : {std::vector<std::string>{"--interval", "1ms"},
                                              {"--count", "-1"},
                                              {"--phase", "1s"},
                                              {"--calibrate", "--phase", "5ms"},
                                              {"--once", "--count", "2"}}) {
    std::vector<std::string> arguments = {"energy"};
    arguments.insert(arguments.end(), bad.begin(), bad.end());
    const ProcessResult refused = RunProcess(Command(modelled, arguments));
    INFO(refused.err);
    CHECK(refused.exit_code == 2);
    CHECK(refused.err.find(bad[bad.size() > 2 ? 1 : 0]) != std::string::npos);
  }
}

// Power and use of two CPUs follow the requests in flight. Each look at the energy writes the CPUs' times.
class ScriptedMachine {
 public:
  explicit ScriptedMachine(std::string stat_path) : path_(std::move(stat_path)) {}
  grpc::Status Energy(v1::EnergyResponse* response) {
    const std::lock_guard lock(mutex_);
    Advance();
    v1::EnergyResponse::Device* device = response->add_devices();
    device->set_device("cpu0");
    device->set_source("rapl");
    device->set_meter_up(true);
    device->set_joules(joules_);
    std::ofstream(path_ + ".new") << "cpu  " << static_cast<int64_t>(busy_ * 100) << " 0 0 "
                                  << static_cast<int64_t>(idle_ * 100) << " 0 0 0 0 0 0\n";
    std::filesystem::rename(path_ + ".new", path_);
    return grpc::Status::OK;
  }
  void Change(int requests) {
    const std::lock_guard lock(mutex_);
    Advance();
    requests_ += requests;
  }

 private:
  void Advance() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    const double use = std::min(0.1 + 0.2 * requests_, 1.0);
    busy_ += 2 * use * seconds;
    idle_ += 2 * (1 - use) * seconds;
    joules_ += (10 + 40 * use) * seconds;
    last_ = now;
  }

  const std::string path_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  int requests_ = 0;
  double busy_ = 100, idle_ = 100, joules_ = 0;
};

TEST_CASE("energy --calibrate fits the machine's own figures, and its lines are a configuration") {
  mnemo::testing::TempFolder folder;
  ScriptedMachine machine(folder.path("stat"));
  FakeScript script;
  script.energy = [&](v1::EnergyResponse* response) { return machine.Energy(response); };
  script.generate = [&](grpc::ServerContext* context, const v1::GenerateRequest& request,
                        FakeScript::Writer* writer) {
    CHECK(request.token_ids().ids_size() > 0);
    machine.Change(1);
    while (!context->IsCancelled()) std::this_thread::sleep_for(5ms);
    machine.Change(-1);
    writer->Write(MakeFinal(v1::FINISH_REASON_LENGTH, 1, 1));
    return grpc::Status::OK;
  };
  FakeServer server(script);
  const ProcessResult result = RunProcess(Command(
      server, {"energy", "--calibrate", "--json", "--phase", "1s", "--proc-stat", folder.path("stat")}));
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  const json model = json::parse(result.out)["model"][0];
  CHECK(model["device"] == "cpu0");
  CHECK(model["idle_watts"].get<double>() == Approx(10).margin(4));
  CHECK(model["busy_watts"].get<double>() == Approx(50).margin(8));
  CHECK(model["mean_relative_error"].get<double>() < 0.3);
}

}  // namespace
}  // namespace mnemo::client
