// The control plane over gRPC, and mnemo-memory as a process: how it starts, ends and is killed.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "mnemo/internal/memory.grpc.pb.h"
#include "server/memory_service/control_service.h"
#include "server/memory_service/metrics_endpoint.h"
#include "server/memory_service/plane_fixture.h"
#include "server/memory_service/testing/late_service.h"

namespace mnemo::memory_service {
namespace {

using std::chrono::milliseconds;
namespace v1 = internal::v1;

std::unique_ptr<v1::Memory::Stub> Connect(const std::string& address) {
  return v1::Memory::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
}

template <typename Request, typename Reply>
grpc::Status Call(v1::Memory::Stub& stub,
                  grpc::Status (v1::Memory::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                  const Request& request, Reply* reply) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  return (stub.*method)(&context, request, reply);
}

TEST_CASE("owners are told, given quotas, dropped and drained through the control service") {
  TestPlane service({.name = "memory7", .memory_bytes = 100 << 20, .max_owners = 2});
  const auto control = ControlServer::Create("127.0.0.1:0", service.socket, service.plane.get());
  REQUIRE(control.ok());
  const auto stub = Connect("127.0.0.1:" + std::to_string((*control)->port()));

  v1::AttachRequest attach;
  v1::AttachReply attached;
  CHECK(Call(*stub, &v1::Memory::Stub::Attach, attach, &attached).error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  attach.set_owner("worker0");
  attach.set_quota_bytes(20 << 20);
  REQUIRE(Call(*stub, &v1::Memory::Stub::Attach, attach, &attached).ok());
  CHECK(attached.quota_bytes() == 20 << 20);
  CHECK(attached.data_address() == "unix:" + service.socket);
  CHECK(attached.max_k() >= 8192);
  attach.set_quota_bytes(uint64_t{1} << 40);
  CHECK(Call(*stub, &v1::Memory::Stub::Attach, attach, &attached).error_code() ==
        grpc::StatusCode::RESOURCE_EXHAUSTED);

  TestWorker worker(service.address(), "worker0");
  CHECK(worker.link->device_name() == "memory7:cpu");
  CHECK(worker.link->granted().quota_bytes == 20 << 20);
  REQUIRE(worker.Create(0, 1, SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024)).status == layout::kStatusOk);
  v1::MemoryStats stats;
  REQUIRE(Call(*stub, &v1::Memory::Stub::Stats, v1::StatsRequest(), &stats).ok());
  CHECK(stats.name() == "memory7");
  CHECK(stats.device() == "memory7:cpu");
  CHECK(stats.pid() == ::getpid());
  REQUIRE(stats.owners_size() == 1);
  CHECK(stats.owners(0).name() == "worker0");
  CHECK(stats.owners(0).indexes() == 1);
  CHECK(stats.owners(0).operations() == 1);
  const std::string text = MetricsEndpoint::Expose(*service.plane);
  CHECK(text.find(
            "mnemo_memory_service_operations_total{device=\"memory7:cpu\",op=\"create\",status=\"ok\"} 1") !=
        std::string::npos);
  CHECK(text.find("mnemo_memory_service_quota_bytes{device=\"memory7:cpu\",owner=\"worker0\"") !=
        std::string::npos);

  v1::DrainRequest drain;
  drain.set_on(true);
  REQUIRE(Call(*stub, &v1::Memory::Stub::Drain, drain, &stats).ok());
  CHECK(stats.draining());
  drain.set_on(false);
  REQUIRE(Call(*stub, &v1::Memory::Stub::Drain, drain, &stats).ok());
  CHECK(!stats.draining());

  v1::DropRequest drop;
  v1::DropReply dropped;
  drop.set_owner("worker9");
  CHECK(Call(*stub, &v1::Memory::Stub::Drop, drop, &dropped).error_code() == grpc::StatusCode::NOT_FOUND);
  drop.set_owner("worker0");
  REQUIRE(Call(*stub, &v1::Memory::Stub::Drop, drop, &dropped).ok());
  CHECK(dropped.dropped() == 1);
  CHECK(worker.link->Wait(Ring::kBulk, std::chrono::seconds(30)).code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("a device that counts its work is shown with its figures, and simulated time as such") {
  DataPlane::Options options = testing::LateDevice({{"counts", "1"}});
  options.name = "memory3";
  options.operation_timeout_ms = 600'000;
  TestPlane service(options);
  const auto control = ControlServer::Create("127.0.0.1:0", service.socket, service.plane.get());
  REQUIRE(control.ok());
  v1::MemoryStats stats;
  const auto stub = Connect("127.0.0.1:" + std::to_string((*control)->port()));
  REQUIRE(Call(*stub, &v1::Memory::Stub::Stats, v1::StatsRequest(), &stats).ok());
  CHECK(stats.device() == "memory3:late");
  CHECK(stats.simulated_time());

  TestWorker worker(service.address(), "worker0");
  const layout::IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024);
  REQUIRE(worker.Create(0, 1, spec).status == layout::kStatusOk);
  Descriptor query{};
  query.op = layout::kOpScoreSelect;
  query.index_generation = 1;
  query.heads = query.queries = 1;
  query.k = 1;
  query.select_op = layout::kSelectLatest;
  query.format = layout::kFormatCodes2;
  query.result_offset = static_cast<uint32_t>(worker.link->result_area().offset_bytes / 64);
  query.result_length = 1;
  REQUIRE(worker.RunOne(Ring::kQuery, query).status == layout::kStatusOk);
  REQUIRE(worker.RunOne(Ring::kQuery, query).status == layout::kStatusOk);

  const std::string text = MetricsEndpoint::Expose(*service.plane);
  for (const char* line :
       {"mnemo_memory_service_device_info{device=\"memory3:late\",kind=\"late\",time=\"simulated\"} 1\n",
        "mnemo_memory_service_energy_joules_total{device=\"memory3:late\",source=\"model\"} 3\n",
        "mnemo_memory_service_device_jobs_total{device=\"memory3:late\"} 2\n",
        "mnemo_memory_service_device_channel_bytes_total{device=\"memory3:late\",channel=\"0\"} 0\n",
        "mnemo_memory_service_device_channel_stall_cycles_total{device=\"memory3:late\",channel=\"0\","
        "cause=\"memory\"} 0\n"}) {
    INFO(line << text);
    CHECK(text.find(line) != std::string::npos);
  }
  // The CPU's device has neither.
  TestPlane plain;
  const std::string other = MetricsEndpoint::Expose(*plain.plane);
  CHECK(
      other.find("mnemo_memory_service_device_info{device=\"memory:cpu\",kind=\"cpu\",time=\"real\"} 1\n") !=
      std::string::npos);
  CHECK(other.find("energy_joules") == std::string::npos);
  CHECK(other.find("mnemo_memory_service_device_jobs") == std::string::npos);
}

TEST_CASE("an address that is taken is an error") {
  TestPlane service;
  const auto control = ControlServer::Create("127.0.0.1:0", service.socket, service.plane.get());
  REQUIRE(control.ok());
  const std::string taken = "127.0.0.1:" + std::to_string((*control)->port());
  CHECK(ControlServer::Create(taken, service.socket, service.plane.get()).status().code() ==
        absl::StatusCode::kUnavailable);
  const auto metrics = MetricsEndpoint::Create("127.0.0.1:0", service.plane.get());
  REQUIRE(metrics.ok());
  CHECK(MetricsEndpoint::Create("127.0.0.1:" + std::to_string((*metrics)->port()), service.plane.get())
            .status()
            .code() == absl::StatusCode::kUnavailable);
}

// The program, with its lifeline.
class Process {
 public:
  Process() : data_socket(TestSocket()), control_(TestSocket()) {
    int sockets[2];
    MNEMO_CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    pid = ::fork();
    if (pid == 0) {
      ::close(sockets[0]);
      const std::string data = "--data-socket=" + data_socket;
      const std::string control = "--control-address=unix:" + control_;
      const std::string inherited = "--lifeline-fd=" + std::to_string(sockets[1]);
      ::execl(MNEMO_MEMORY_PROGRAM, "mnemo-memory", data.c_str(), control.c_str(), inherited.c_str(),
              "--threads=1", "--memory-bytes=67108864", "--region-bytes=1048576", "--log-level=error",
              nullptr);
      ::_exit(127);
    }
    ::close(sockets[1]);
    lifeline = UniqueFd(sockets[0]);
    char byte = 0;
    MNEMO_CHECK(::read(lifeline.get(), &byte, 1) == 1 && byte == 'L');
  }
  ~Process() {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    ::unlink(data_socket.c_str());
    ::unlink(control_.c_str());
  }
  std::string control_address() const { return "unix:" + control_; }
  int Wait() {
    int status = 0;
    ::waitpid(std::exchange(pid, -1), &status, 0);
    return status;
  }

  const std::string data_socket;
  UniqueFd lifeline;
  pid_t pid;

 private:
  const std::string control_;
};

TEST_CASE("the program serves, tells of itself, and ends cleanly at a signal") {
  Process process;
  TestWorker worker("unix:" + process.data_socket, "worker0");
  REQUIRE(worker.Create(0, 1, SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024)).status == layout::kStatusOk);
  const auto stub = Connect(process.control_address());
  v1::MemoryStats stats;
  REQUIRE(Call(*stub, &v1::Memory::Stub::Stats, v1::StatsRequest(), &stats).ok());
  CHECK(stats.pid() == process.pid);
  CHECK(stats.memory_bytes() == 67108864);
  ::kill(process.pid, SIGTERM);
  CHECK(worker.link->Wait(Ring::kQuery, std::chrono::seconds(30)).code() == absl::StatusCode::kUnavailable);
  const int status = process.Wait();
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(::access(process.data_socket.c_str(), F_OK) != 0);
}

TEST_CASE("the program ends when its lifeline closes, and its workers notice when it is killed") {
  {
    Process process;
    process.lifeline.Reset();
    CHECK(WIFEXITED(process.Wait()));
    CHECK(::access(process.data_socket.c_str(), F_OK) != 0);
  }
  Process process;
  TestWorker worker("unix:" + process.data_socket, "worker0");
  ::kill(process.pid, SIGKILL);
  CHECK(worker.link->Wait(Ring::kQuery, std::chrono::seconds(30)).code() == absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mnemo::memory_service
