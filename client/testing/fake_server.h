// A server of mnemo.v1 in this process, for tests of clients. By default it answers every prompt with the ids
// and text of its bytes; a test may replace any answer.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mnemo/v1/admin.grpc.pb.h"
#include "mnemo/v1/generation.grpc.pb.h"

namespace mnemo::client::testing {

// Set the handlers before the first call. They run on threads of the server, several at once.
struct FakeScript {
  using Writer = grpc::ServerWriter<v1::GenerateResponse>;
  // Empty = EchoGenerate.
  std::function<grpc::Status(grpc::ServerContext*, const v1::GenerateRequest&, Writer*)> generate;
  // Empty = one token a byte.
  std::function<grpc::Status(grpc::ServerContext*, const v1::TokenizeRequest&, v1::TokenizeResponse*)>
      tokenize;
  std::function<grpc::Status(v1::ListModelsResponse*)> list_models;
  std::function<grpc::Status(v1::StatusResponse*)> status;
  std::function<grpc::Status(v1::EnergyResponse*)> energy;  // empty = UNIMPLEMENTED
  std::function<grpc::Status(const v1::DrainRequest&, v1::DrainResponse*)> drain;
  std::chrono::milliseconds token_gap{0};  // EchoGenerate sleeps this long before each token
};

// A Delta with one token: id, and its text as the piece.
v1::GenerateResponse MakeDelta(int32_t id, const std::string& text);
v1::GenerateResponse MakeFinal(v1::FinishReason reason, int prompt_tokens, int completion_tokens);

class FakeServer {
 public:
  explicit FakeServer(FakeScript script);
  ~FakeServer();  // cuts running calls

  const std::string& address() const { return address_; }  // "127.0.0.1:port"
  std::vector<v1::GenerateRequest> generate_requests() const;
  std::vector<v1::TokenizeRequest> tokenize_requests() const;
  std::vector<std::string> ended_sessions() const;
  int calls() const { return calls_.load(); }          // calls of any method
  int cancelled() const { return cancelled_.load(); }  // generations that ended because the client left
  int drains() const { return drains_.load(); }
  int resumes() const { return resumes_.load(); }

 private:
  class Generation;
  class Admin;
  grpc::Status EchoGenerate(grpc::ServerContext* context, const v1::GenerateRequest& request,
                            FakeScript::Writer* writer);

  FakeScript script_;
  mutable std::mutex mutex_;  // guards the records
  std::vector<v1::GenerateRequest> generate_requests_;
  std::vector<v1::TokenizeRequest> tokenize_requests_;
  std::vector<std::string> ended_sessions_;
  std::atomic<int> calls_{0};
  std::atomic<int> cancelled_{0};
  std::atomic<int> drains_{0};
  std::atomic<int> resumes_{0};
  std::unique_ptr<Generation> generation_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace mnemo::client::testing
