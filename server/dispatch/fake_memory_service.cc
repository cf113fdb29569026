// A stand-in for mnemo-memory, for the tests of its supervision: answers the question for its figures.
// Arguments: the address it listens on; "silent" = never answers.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "mnemo/internal/memory.grpc.pb.h"
#include "server/dispatch/child_process.h"

namespace {

class Service final : public mnemo::internal::v1::Memory::CallbackService {
 public:
  explicit Service(bool silent) : silent_(silent) {}
  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* call, const mnemo::internal::v1::StatsRequest*,
                                  mnemo::internal::v1::MemoryStats* reply) override {
    reply->set_device("memory0:cpu");
    reply->set_pid(::getpid());
    reply->set_indexes(5);
    if (silent_) return new Silence;
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  struct Silence final : grpc::ServerUnaryReactor {
    void OnCancel() override { Finish(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }
  };
  const bool silent_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  Service service(argc > 2 && std::strcmp(argv[2], "silent") == 0);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  char byte = 1;
  if (::write(mnemo::dispatch::kChildLifelineFd, &byte, 1) != 1) return 1;
  // Until the other end closes; SIGTERM ends the process as it does any.
  while (::read(mnemo::dispatch::kChildLifelineFd, &byte, 1) > 0) {
  }
  ::_exit(0);
}
